"""Records of `[data.coord_jsonl]`, read leniently: from one space to another, back to COCO, or to mend them.

Not carried: the caches of `annotate_coord_tokens`, `poly_points` (counted anew).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import msgspec

from coordcore import InputError
from coordcore.coords import Quantisation, is_coord_token, quantisation, require_same, token_to_int
from coordcore_data.convert.core import Account, BoxOrder, Found, Reading, Shape, SourceImage, corners
from coordcore_data.convert.rules import CROWD, POINTS
from coordcore_data.convert.text import UnreadableError, clean_path, json_lines, parse_json, structure

_HUGE = 1e300
_OURS = ("quantisation", "image_id", "difficult", CROWD, POINTS)


class _Record(msgspec.Struct):
    images: list[str]
    width: int | float
    height: int | float
    objects: list[Any] = []
    summary: str | None = None
    metadata: dict[str, Any] | None = None


class _Object(msgspec.Struct):
    desc: str
    bbox_2d: list[int | float | str] | None = None
    poly: list[int | float | str] | None = None
    points: list[int | float | str] | None = None


@attrs.frozen
class _Numbers:
    """How the numbers of a file are read: fractions of the image by bin for "bin", as they are otherwise."""

    fractions: tuple[float, ...]
    order: BoxOrder

    def read(self, values: list[int | float | str]) -> list[float] | str:
        """The numbers, or what is wrong with them."""
        if not self.fractions:
            numbers = [value for value in values if not isinstance(value, str)]
            if len(numbers) < len(values):
                return "coordinate is text, but the space is not bin"
            return [float(value) if abs(value) < _HUGE else math.inf for value in numbers]  # an int may be too large
        found = []
        for value in values:
            if isinstance(value, str):
                if not is_coord_token(value):
                    return "coordinate is text, but no coord token"
                value = token_to_int(value)
            if value != value or value not in range(len(self.fractions)):
                return f"bin that is no whole number from 0 to {len(self.fractions) - 1}"
            found.append(self.fractions[int(value)])
        return found


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError without a space, and for a record that declares another convention than the given one."""
    if reading.space is None:
        raise InputError(f"{source}: records do not say what their numbers are: --from-space pixel, norm1 or bin")
    fractions: tuple[float, ...] = ()
    if reading.space == "bin":
        if reading.quantisation is None:
            raise InputError(f"{source}: bins mean something only under a convention: --from-quantisation NAME")
        bins = range(reading.quantisation.bins)
        fractions = tuple(reading.quantisation.decode(list(bins), 1).tolist())
    return Found(images=_images(source, reading, _Numbers(fractions, reading.boxes or "xyxy"), account))


def _images(source: Path, reading: Reading, how: _Numbers, account: Account) -> Iterator[SourceImage]:
    for number, line in json_lines(source):
        account.images.read += 1
        try:
            record = structure(parse_json(line), _Record)
        except UnreadableError as error:
            account.drop_image(error.reason, f"line {number}", error.detail)
            continue
        metadata = record.metadata or {}
        given = [(one, "objects") for one in record.objects]
        given += [(one, key) for key in (CROWD, POINTS) for one in _list(metadata.get(key))]
        account.objects.read += len(given)
        if len(record.images) != 1:
            account.drop_image("record with several images, or none", f"line {number}", objects=len(given))
            continue
        if reading.quantisation is not None and metadata.get("quantisation") is not None:
            _check_declared(metadata["quantisation"], reading.quantisation, f"{source}:{number}")
        difficult = _list(metadata.get("difficult"))
        shapes = []
        for index, (one, place) in enumerate(given):
            name = f"{place}[{index}] on line {number}"
            shape = _shape(one, name, how, crowd=place == CROWD)
            if isinstance(shape, str):
                account.drop_object(shape, name)
                continue
            shape.difficult = place == "objects" and index in difficult
            shapes.append(shape)
        yield SourceImage(
            file=clean_path(record.images[0]),
            width=record.width,
            height=record.height,
            shapes=shapes,
            fractions=reading.space != "pixel",
            lost=len(given) - len(shapes),
            id=metadata.get("image_id"),
            summary=record.summary,
            metadata={key: value for key, value in metadata.items() if key not in _OURS},
        )


def _shape(given: Any, name: str, how: _Numbers, *, crowd: bool) -> Shape | str:
    try:
        one = structure(given, _Object)
    except UnreadableError as error:
        return f"object not readable: {error.reason}"
    kinds = [kind for kind in ("bbox_2d", "poly", "points") if getattr(one, kind) is not None]
    if len(kinds) != 1:
        return "object without exactly one geometry"
    kind = kinds[0]
    values = how.read(getattr(one, kind))
    if isinstance(values, str):
        return values
    if kind == "bbox_2d":
        if len(values) != 4:
            return "bbox_2d is not 4 numbers"
        return Shape(label=one.desc, box=corners(values, how.order), crowd=crowd, name=name)
    if not values or len(values) % 2:
        return f"{kind} without pairs of numbers"
    if kind == "points":
        return Shape(label=one.desc, points=values, name=name)
    return Shape(label=one.desc, poly=values, was="polygon", crowd=crowd, name=name)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _check_declared(declared: str | Mapping[str, Any], ours: Quantisation, where: str) -> None:
    theirs = quantisation(declared) if isinstance(declared, str) else Quantisation.from_dict(declared, source=where)
    require_same(theirs, ours, where, "--from-quantisation")
