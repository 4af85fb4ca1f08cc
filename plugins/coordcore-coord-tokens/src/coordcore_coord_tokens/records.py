"""The record format: one JSON object per line, read strictly. Every mistake is an error with its path in the record."""

from __future__ import annotations

import codecs
import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from coordcore import InputError
from coordcore.coords import NUM_BINS
from coordcore_coord_tokens.answer import BINS, reserved

GEOMETRIES = ("bbox_2d", "poly")

# JSON integers have no upper bound; these keep every later conversion to a float exact.
LARGEST = 2**53
Whole = Annotated[int, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=10**6)]
Coordinates = list[Whole | float | str]


class RecordError(InputError):
    """One mistake in one record. path: "objects[2].bbox_2d", "" for the record as a whole."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message


class RecordObject(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One object as the file holds it. The three caches of `annotate_coord_tokens` may be there and are not read."""

    desc: str
    bbox_2d: Coordinates | None = None
    poly: Coordinates | None = None
    poly_points: int | None = None
    line: Any = None
    tokens_cache: Any = msgspec.field(name="_coord_tokens", default=None)
    ints_cache: Any = msgspec.field(name="_coord_token_ints", default=None)
    norm_cache: Any = msgspec.field(name="_coord_token_norm", default=None)


class Record(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One record as the file holds it."""

    images: list[str]
    width: Pixels
    height: Pixels
    objects: list[RecordObject] | None = None
    summary: str | None = None
    metadata: dict[str, Any] | None = None
    enabled_cache: Any = msgspec.field(name="_coord_tokens_enabled", default=None)


_DECODER = msgspec.json.Decoder(Record)
_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")


def parse_record(line: bytes) -> Record:
    """The record on one line of a JSONL file. Raises RecordError."""
    if not line.strip():
        raise RecordError("", "blank line; every line holds one record, remove it")
    if line.startswith(codecs.BOM_UTF8):
        raise RecordError("", "starts with a byte order mark; save the file as UTF-8 without one")
    try:
        record = _DECODER.decode(line)
    except msgspec.ValidationError as error:
        raise _structural(str(error)) from error
    except msgspec.DecodeError as error:
        raise RecordError("", f"not JSON: {_lower(str(error).removeprefix('JSON is malformed: '))}") from error
    except RecursionError as error:
        raise RecordError("", "not a record: nested too deep") from error
    except UnicodeDecodeError as error:
        raise RecordError("", f"not UTF-8 ({error.reason}); save the file as UTF-8") from error
    if len(record.images) != 1:
        raise RecordError(
            "images", f"holds {len(record.images)} images; geometry refers to one image, so write one record for each"
        )
    if not record.images[0]:
        raise RecordError("images[0]", "empty path")
    return record


def _structural(message: str) -> RecordError:
    """msgspec's message with our path, wording and a suggestion for a misspelt key."""
    place = _PLACE.search(message)
    path = place.group(1) if place else ""
    message = _PLACE.sub("", message)
    if unknown := _UNKNOWN.fullmatch(message):
        key = unknown.group(1)
        owner = RecordObject if path.startswith("objects") else Record
        known = [field.encode_name for field in msgspec.structs.fields(owner) if not field.encode_name.startswith("_")]
        near = difflib.get_close_matches(key, known, n=1)
        cure = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return RecordError(_join(path, key), f"unknown key; {cure}")
    if missing := _MISSING.fullmatch(message):
        return RecordError(_join(path, missing.group(1)), "missing")
    return RecordError(path, _lower(message.replace("`", "")))


def check_text(text: str, path: str) -> None:
    """Raise RecordError unless `text` has content and a tokenizer reads all of it as text."""
    if not text.strip():
        raise RecordError(path, "empty; write what is there")
    if found := reserved(text):
        raise RecordError(
            path, f"contains {found!r}, which the tokenizer or the template reads as a control token; reword it"
        )


def geometry_of(one: RecordObject, path: str) -> tuple[str, Coordinates]:
    """The kind and the coordinates of an object's one geometry, counted but not yet read. Raises RecordError."""
    if one.line is not None:
        raise RecordError(f"{path}.line", "lines are not supported; write a bbox_2d or a poly")
    given = [(kind, values) for kind in GEOMETRIES if (values := getattr(one, kind)) is not None]
    if len(given) != 1:
        found = " and ".join(kind for kind, _ in given) if given else "none"
        raise RecordError(path, f"needs exactly one geometry, bbox_2d or poly, got {found}")
    kind, values = given[0]
    where = f"{path}.{kind}"
    if kind == "bbox_2d":
        if len(values) != 4:
            raise RecordError(where, f"needs 4 numbers (x1, y1, x2, y2), got {len(values)}")
        if one.poly_points is not None:
            raise RecordError(f"{path}.poly_points", "belongs to a poly; remove it from this bbox_2d")
        return kind, values
    if len(values) % 2:
        raise RecordError(where, f"needs pairs x, y, got an odd count of {len(values)} numbers")
    if len(values) < 6:
        raise RecordError(where, f"needs at least 3 points, got {len(values) // 2}")
    if one.poly_points is not None and one.poly_points != len(values) // 2:
        raise RecordError(f"{path}.poly_points", f"says {one.poly_points}, but poly holds {len(values) // 2} points")
    return kind, values


def read_bins(kind: str, values: Coordinates, path: str) -> tuple[int, ...]:
    """The bins of coordinates that are written as bins: all integers 0..999, or all coord tokens.

    Raises RecordError for anything else, and for a box whose corners are in the wrong order.
    """
    tokens = [isinstance(value, str) for value in values]
    if any(tokens) and not all(tokens):
        raise RecordError(path, "mixes numbers and coord tokens; write one form throughout")
    bins = tuple(_read_bin(value, path) for value in values)
    if kind == "bbox_2d":
        check_corners(bins, path)
    return bins


def _read_bin(value: int | float | str, path: str) -> int:
    if isinstance(value, str):
        if value in BINS:
            return BINS[value]
        if value == "<|coord_*|>":
            raise RecordError(path, f"{value!r} is the wildcard, not a coordinate; write <|coord_0|> to <|coord_999|>")
        raise RecordError(path, f"{value!r} is no coord token; write <|coord_0|> to <|coord_999|>")
    if isinstance(value, float):
        raise RecordError(
            path, f"{value} is not a whole number, as bins are; if these are pixels or fractions, set `space`"
        )
    if value >= NUM_BINS:
        raise RecordError(
            path,
            f"{value} > {NUM_BINS - 1}: this looks like absolute pixels; convert to bins 0..{NUM_BINS - 1} first "
            '(`space = "pixel"` converts on reading)',
        )
    if value < 0:
        raise RecordError(path, f"{value} < 0: bins are 0..{NUM_BINS - 1}")
    return value


def check_corners(box: tuple[int, ...] | tuple[float, ...], path: str) -> None:
    """Raise RecordError for a box whose second corner lies before its first."""
    for axis, low, high in (("x", box[0], box[2]), ("y", box[1], box[3])):
        if high < low:
            raise RecordError(
                path,
                f"{axis}2 = {high} < {axis}1 = {low}: corners are x1, y1, x2, y2 (COCO writes x, y, w, h)",
            )


def parse_objects(record: Mapping[str, Any]) -> list[RecordObject]:
    """The objects of a record that is already in memory; its other keys are not read. Raises RecordError."""
    try:
        return msgspec.convert(record, _Objects).objects
    except msgspec.ValidationError as error:
        raise _structural(str(error)) from error


class _Objects(msgspec.Struct):
    objects: list[RecordObject]


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
