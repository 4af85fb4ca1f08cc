"""Record files, line by line: the boxes in pixels, labels and crowd regions of one record. Torch-free."""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Sequence
from typing import Any, Literal

import attrs
import msgspec
import numpy as np

from coordcore import InputError
from coordcore.coords import NUM_BINS, Quantisation, is_coord_token, quantisation, require_same, token_to_int
from coordcore_detection.evaluate.truth import Boxes

Space = Literal["bin", "pixel", "norm1"]
Outside = Literal["error", "clip"]

_PLACE = re.compile(r" - at `\$\.?(.*)`$")


class RecordObject(msgspec.Struct, forbid_unknown_fields=True):
    desc: str
    bbox_2d: list[float | str] | None = None
    poly: list[float | str] | None = None
    poly_points: int | None = None
    tokens_cache: Any = msgspec.field(name="_coord_tokens", default=None)
    ints_cache: Any = msgspec.field(name="_coord_token_ints", default=None)
    norm_cache: Any = msgspec.field(name="_coord_token_norm", default=None)


class _Metadata(msgspec.Struct):
    """What is read of `metadata`. crowd: regions of several objects, as `coordcore data convert` carries them."""

    quantisation: str | dict[str, Any] | None = None
    crowd: list[RecordObject] = []


class Record(msgspec.Struct, forbid_unknown_fields=True):
    images: list[str]
    width: int
    height: int
    objects: list[RecordObject]
    summary: Any = None
    metadata: _Metadata | None = None
    enabled_cache: Any = msgspec.field(name="_coord_tokens_enabled", default=None)


_RECORDS = msgspec.json.Decoder(Record)


@attrs.frozen(kw_only=True)
class Reading:
    space: Space
    quantisation: Quantisation
    outside: Outside


def parse(line: bytes) -> Record:
    if not line.strip():
        raise InputError("blank line; every line holds one record, remove it")
    if line.startswith(codecs.BOM_UTF8):
        raise InputError("starts with a byte order mark; save the file as UTF-8 without one")
    try:
        record = _RECORDS.decode(line)
    except msgspec.ValidationError as error:
        message = str(error)
        place = _PLACE.search(message)
        text = _PLACE.sub("", message).replace("`", "")
        raise InputError(
            ": ".join([*([place[1]] if place and place[1] else []), text[:1].lower() + text[1:]])
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"not a record in JSON: {error}") from error
    if len(record.images) != 1 or not record.images[0]:
        raise InputError(f"images: needs the path of one image, got {record.images!r}")
    if record.width < 1 or record.height < 1:
        raise InputError(f"width, height: must be at least 1, got {record.width} x {record.height}")
    return record


def read_objects(record: Record, reading: Reading) -> tuple[Boxes, tuple[str, ...], np.ndarray[Any, Any]]:
    """Boxes, labels and crowd marks of a record. Raises InputError with the object's path in front."""
    metadata = record.metadata or _Metadata()
    if reading.space == "bin" and metadata.quantisation is not None:
        _require_declared(metadata.quantisation, reading.quantisation)
    given = [(f"objects[{index}]", one) for index, one in enumerate(record.objects)]
    given += [(f"metadata.crowd[{index}]", one) for index, one in enumerate(metadata.crowd)]
    boxes = np.array([corners(one, path, reading) for path, one in given], dtype=np.float64).reshape(-1, 4)
    size = np.array([record.width, record.height] * 2, dtype=np.float64)
    if reading.space == "bin":
        boxes = reading.quantisation.decode(boxes, size)
    else:
        boxes = _inside(boxes * size if reading.space == "norm1" else boxes, size, [path for path, _ in given], reading)
    # The same few labels come again and again.
    labels = tuple(sys.intern(one.desc) for _, one in given)
    return boxes, labels, np.arange(len(given)) >= len(record.objects)


def corners(one: RecordObject, path: str, reading: Reading) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 as the record writes them, bins as numbers."""
    if not one.desc.strip():
        raise InputError(f"{path}.desc: empty; write what is there")
    if (one.bbox_2d is None) == (one.poly is None):
        found = "none" if one.poly is None else "bbox_2d and poly"
        raise InputError(f"{path}: needs exactly one geometry, bbox_2d or poly, got {found}")
    kind, given = ("poly", one.poly) if one.bbox_2d is None else ("bbox_2d", one.bbox_2d)
    assert given is not None
    path = f"{path}.{kind}"
    if kind == "bbox_2d" and len(given) != 4:
        raise InputError(f"{path}: needs 4 numbers (x1, y1, x2, y2), got {len(given)}")
    if kind == "poly" and (len(given) < 6 or len(given) % 2):
        raise InputError(f"{path}: needs at least 3 points as pairs x, y, got {len(given)} numbers")
    values = [_bin(value, path) if reading.space == "bin" else _real(value, path, reading) for value in given]
    if kind == "poly":
        return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    x1, y1, x2, y2 = values
    for axis, low, high in (("x", x1, x2), ("y", y1, y2)):
        if high < low:
            raise InputError(
                f"{path}: {axis}2 = {high:g} < {axis}1 = {low:g}: corners are x1, y1, x2, y2 (COCO writes x, y, w, h)"
            )
    return x1, y1, x2, y2


def _bin(value: float | str, path: str) -> float:
    if isinstance(value, str):
        if not is_coord_token(value):
            raise InputError(f"{path}: {value!r} is no coord token; write <|coord_0|> to <|coord_999|>")
        return float(token_to_int(value))
    if value >= NUM_BINS:
        raise InputError(f"{path}: {value:g} > {NUM_BINS - 1}: this looks like absolute pixels; set the space to pixel")
    if value < 0 or value != int(value):
        raise InputError(f"{path}: {value:g} is no bin, a whole number from 0 to {NUM_BINS - 1}; set the space")
    return float(value)


def _real(value: float | str, path: str, reading: Reading) -> float:
    if isinstance(value, str):
        raise InputError(f'{path}: {value!r} is text, but the space is "{reading.space}"; write numbers, or set "bin"')
    return value


def _inside(boxes: Boxes, size: Boxes, paths: Sequence[str], reading: Reading) -> Boxes:
    """`boxes` (pixels), moved to the image's edge where they reach over it and that is allowed."""
    low, high = boxes[:, :2], boxes[:, 2:]
    missed = ((high <= 0) & (low < 0) | (low >= size[:2]) & (high > size[:2])).any(1)
    over = ((boxes < 0) | (boxes > size)).any(1)
    for bad, why in ((missed, "does not overlap"), (over, "reaches over")):
        if bad.any() and (bad is missed or reading.outside == "error"):
            index = int(bad.argmax())
            fraction = reading.space == "norm1" and (boxes[index] > size).any()
            cure = "remove the object" if bad is missed else '`outside` "clip" moves such corners to the edge'
            if fraction:
                cure = "if these are pixels, set the space to pixel"
            raise InputError(
                f"{paths[index]}: box {boxes[index].tolist()} {why} the image of {size[0]:g} x {size[1]:g}; {cure}"
            )
    clipped: Boxes = np.clip(boxes, 0.0, size)
    return clipped


def _require_declared(declared: str | dict[str, Any], ours: Quantisation) -> None:
    """Bins mean something only under a convention: a record that declares one must declare `ours`."""
    try:
        spec = quantisation(declared) if isinstance(declared, str) else Quantisation.from_dict(declared)
        require_same(spec, ours, "the record", "what reads it")
    except InputError as error:
        raise InputError(f"metadata.quantisation: {error}") from error
