"""Records of `[data.coord_jsonl]`, read leniently: from one space to another, back to COCO, or to mend them.

What the data builder refuses is left out, and counted under its message. Not carried: keys that records do not have,
the caches of `annotate_coord_tokens`, `poly_points` (counted anew).
Objects that are points are read as those under `metadata.points` are, which `--geometry own` (the default of records)
leaves there; quads are read as rotated boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import msgspec

from coordcore import InputError
from coordcore.records.annotations import Annotation, Rules, read_annotations, read_numbers
from coordcore.records.asking import ABSENT, INCOMPLETE
from coordcore.records.record import (
    Coordinates,
    LeftOut,
    Record,
    RecordError,
    check_declared,
    check_text,
    parse_record,
    regions_under,
)
from coordcore.records.source import all_lines
from coordcore_data.convert.core import (
    AREAS,
    ASKED,
    CROWD,
    POINTS,
    TURNED,
    Account,
    BoxOrder,
    Found,
    Reading,
    Shape,
    SourceImage,
    corners,
    is_area,
)
from coordcore_data.convert.text import UnreadableError, clean_label, clean_path, count_of, structure

_READ_METADATA = ("quantisation", "image_id", "difficult", AREAS, CROWD, POINTS)
"""Keys of `metadata` that are read here; any other is carried as it is."""

_OF_LABELS = (ABSENT, INCOMPLETE, "category_frequencies", "keypoint_names")
"""Keys of `metadata` whose values list labels, or say something of each."""


class _Points(msgspec.Struct):
    desc: str
    points: Coordinates


@attrs.frozen(kw_only=True)
class _Numbers:
    """How the numbers of a file are read. fractions: of the image, by bin, where they are bins; else empty."""

    rules: Rules
    fractions: tuple[float, ...]
    order: BoxOrder

    def real(self, values: tuple[float, ...], box: bool = False) -> list[float]:
        """As pixels or fractions, x before y; but for boxes, whose four numbers `corners` reads by the order."""
        real = [self.fractions[int(k)] for k in values] if self.fractions else list(map(float, values))
        if self.order == "yxyx" and not box:
            real[::2], real[1::2] = real[1::2], real[::2]
        return real


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError without a space, and for a record that declares another convention than the given one."""
    if reading.space is None:
        raise InputError(f"{source}: records do not say what their numbers are: --from-space pixel, norm1 or bin")
    fractions: tuple[float, ...] = ()
    if reading.space == "bin":
        if reading.quantisation is None:
            raise InputError(f"{source}: bins mean something only under a convention: --from-quantisation NAME")
        bins = range(reading.quantisation.bins)
        fractions = tuple(reading.quantisation.decode(list(bins), 1 + reading.quantisation.inset).tolist())
    order = reading.boxes or "xyxy"
    # Shapes over the edge of their image are for `place` to judge, under --outside.
    rules = Rules(space=reading.space, ordered=order == "xyxy", outside=None, coords=reading.coords)
    how = _Numbers(rules=rules, fractions=fractions, order=order)
    return Found(images=_images(source, reading, how, account))


def _images(source: Path, reading: Reading, how: _Numbers, account: Account) -> Iterator[SourceImage]:
    for number, line in all_lines(source):
        account.images.read += 1
        left_out = LeftOut()
        try:
            record = parse_record(line, left_out)
            _check_declared(record, reading, f"{source}:{number}")
            found = read_annotations(record, how.rules, left_out)
        except RecordError as error:
            count = count_of(line, "objects")
            account.objects.read += count
            account.drop_image(error.reason, f"line {number}: {error}", objects=count)
            continue
        metadata = record.metadata or {}
        difficult, points = _list(metadata.get("difficult")), _list(metadata.get(POINTS))
        shapes = [_shape(item, number, how, reading.keypoints) for item in found]
        if not reading.keypoints and (count := sum(bool(item.keypoints) for item in found)):
            account.note("keypoints: not carried without --keypoints", f"line {number}", count=count)
        areas = _areas(metadata.get(AREAS), record, number, account)
        for item, shape in zip(found, shapes, strict=True):
            shape.difficult = not item.crowd and item.index in difficult
            shape.area = None if item.crowd else areas.get(item.index)
        shapes += _points(points, number, how, left_out)
        account.objects.read += len(record.objects or ()) + len(regions_under(record, "crowd")) + len(points)
        for wrong in left_out.objects:
            account.drop_object(wrong.reason, f"line {number}: {wrong}")
        for needless in left_out.parts:
            account.note(needless.reason, f"line {number}: {needless}")
        yield SourceImage(
            file=clean_path(record.images[0]),
            width=record.width,
            height=record.height,
            shapes=shapes,
            fractions=reading.space != "pixel",
            inset=reading.quantisation.inset if reading.space == "bin" and reading.quantisation else 0.0,
            lost=len(left_out.objects),
            id=metadata.get("image_id"),
            summary=record.summary,
            metadata={
                key: _cleaned(value) if key in _OF_LABELS else value
                for key, value in metadata.items()
                if key not in _READ_METADATA
            },
            asked={key: _cleaned(value) for key in ASKED if (value := getattr(record, key)) is not None},
        )


def _cleaned(value: Any) -> Any:
    """The labels of a list, or the keys of an object, as those of objects are written; anything else as it is."""
    if isinstance(value, dict):
        return {clean_label(label).text or label: said for label, said in value.items()}
    if isinstance(value, list) and all(isinstance(label, str) for label in value):
        return list(dict.fromkeys(clean_label(label).text or label for label in value))
    return value


def _check_declared(record: Record, reading: Reading, where: str) -> None:
    """A record of another convention stops the conversion: more likely than the record, the option is wrong."""
    if reading.space == "bin" and reading.quantisation is not None:
        try:
            check_declared(record, reading.quantisation, "--from-quantisation")
        except RecordError as error:
            raise InputError(f"{where}: {error}") from error


def _shape(item: Annotation, number: int, how: _Numbers, with_keypoints: bool) -> Shape:
    values, name = how.real(item.values, item.kind == "bbox_2d"), f"{item.path} on line {number}"
    further: dict[str, Any] = {}
    if item.keypoints and with_keypoints:
        places = [value for at in range(0, len(item.keypoints), 3) for value in item.keypoints[at : at + 2]]
        further = {"keypoints": how.real(tuple(places)), "seen": [int(keypoint) for keypoint in item.keypoints[2::3]]}
    if item.kind == "bbox_2d":
        box = corners(values, how.order)
        return Shape(label=item.desc, box=box, crowd=item.crowd, name=name, **further)
    if item.kind == "point":
        return Shape(label=item.desc, points=values, crowd=item.crowd, name=name)
    was = TURNED if item.kind == "quad" else "polygon"
    return Shape(label=item.desc, poly=values, was=was, crowd=item.crowd, name=name, **further)


def _points(given: list[Any], number: int, how: _Numbers, left_out: LeftOut) -> Iterator[Shape]:
    """What stands under `metadata.points`, which is the converter's own and no part of the record format."""
    for index, entry in enumerate(given):
        path = f"metadata.{POINTS}[{index}]"
        try:
            item: _Points = structure(entry, _Points)
            check_text(item.desc, f"{path}.desc")
            if not item.points or len(item.points) % 2:
                raise RecordError(f"{path}.points", "needs pairs x, y")
            values, _ = read_numbers(item.points, f"{path}.points", how.rules)
        except UnreadableError as error:
            left_out.objects.append(RecordError(path, error.reason))
        except RecordError as error:
            left_out.objects.append(error)
        else:
            yield Shape(label=item.desc, points=how.real(values), was=POINTS, name=f"{path} on line {number}")


def _areas(given: Any, record: Record, number: int, account: Account) -> dict[int, float]:
    """The areas of the objects by their places. Left out and counted where they do not fit the objects."""
    values = _list(given)
    known = {index: area for index, area in enumerate(values) if is_area(area)}
    wrong = given is not None and len(values) != len(record.objects or ())
    if wrong or len(known) + values.count(None) != len(values):
        account.note(
            "metadata.object_areas that are not an area or null for each object: not carried", f"line {number}"
        )
        return {}
    return known


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
