"""ODVG (Open-GroundingDINO, MM-Grounding-DINO): one JSON object per line, boxes x1, y1, x2, y2 in pixels.

`detection.instances` give one object each; `grounding.regions` one for each of their boxes, with the phrase as its
description. A caption goes under `metadata.caption`. Only an empty list of instances says that nothing is there.
Not carried: which words of the caption a phrase is (tokens_positive), scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from coordcore_data.convert.core import Account, BoxOrder, Found, Reading, Shape, SourceImage, corners
from coordcore_data.convert.text import UnreadableError, clean_path, count_of, json_lines, loose_structure, parse_json
from coordcore_data.convert.yolo import read_classes

_Box = tuple[float, float, float, float]


class _Detection(msgspec.Struct):
    instances: list[Any] | None = None


class _Grounding(msgspec.Struct):
    regions: list[Any] = []
    caption: str | None = None


class _Row(msgspec.Struct):
    filename: str
    width: int | float | None = None
    height: int | float | None = None
    detection: _Detection | None = None
    grounding: _Grounding | None = None


class _Instance(msgspec.Struct):
    bbox: _Box
    category: str | None = None
    label: int | str | None = None


class _Region(msgspec.Struct):
    bbox: list[Any]
    phrase: str | list[str] | None = None


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError when the file cannot be opened. reading.boxes: for files that break the format."""
    names = read_classes(reading.classes) if reading.classes is not None else {}
    return Found(images=_images(source, names, reading.boxes or "xyxy", account))


def _images(source: Path, names: Mapping[str, str], order: BoxOrder, account: Account) -> Iterator[SourceImage]:
    for number, line in json_lines(source):
        account.images.read += 1
        try:
            row = loose_structure(parse_json(line), _Row)
        except UnreadableError as error:
            count = count_of(line, "detection", "instances") + count_of(line, "grounding", "regions")
            account.objects.read += count
            account.drop_image(error.reason, f"line {number}", error.detail, objects=count)
            continue
        shapes: list[Shape] = []
        lost = 0
        instances = row.detection.instances if row.detection else None
        for index, given in enumerate(instances or []):
            account.objects.read += 1
            name = f"instance {index} on line {number}"
            try:
                item = loose_structure(given, _Instance)
            except UnreadableError as error:
                account.drop_object(f"instance not readable: {error.reason}", name)
                lost += 1
                continue
            by_number = names.get(str(item.label))
            label = item.category if item.category is not None else by_number
            if by_number is not None and label != by_number:
                account.note("category that --classes names otherwise: the category is taken", name, label, by_number)
            if label is None and item.label is not None:
                account.drop_object("label number without a name; --classes FILE gives them", name, item.label)
                lost += 1
                continue
            shapes.append(Shape(label=label, box=corners(item.bbox, order), name=name))
        for index, given in enumerate(row.grounding.regions if row.grounding else []):
            found = _region(given, f"region {index} on line {number}", order, account)
            shapes += found
            lost += not found
        caption = row.grounding.caption if row.grounding else None
        yield SourceImage(
            file=clean_path(row.filename),
            width=row.width,
            height=row.height,
            shapes=shapes,
            lost=lost,
            # Regions are of the phrases of a caption, and a caption without regions is about something.
            undeclared="row without a list of instances" if instances is None else "",
            metadata={} if caption is None else {"caption": caption},
        )


def _region(given: Any, name: str, order: BoxOrder, account: Account) -> list[Shape]:
    """One shape for each box of a region; a region that cannot be read counts as one object."""
    try:
        item = loose_structure(given, _Region)
        nested = bool(item.bbox) and isinstance(item.bbox[0], list)
        boxes: list[_Box] = loose_structure(item.bbox if nested else [item.bbox], list[_Box])
    except UnreadableError as error:
        account.objects.read += 1
        account.drop_object(f"region not readable: {error.reason}", name)
        return []
    phrase = item.phrase
    if isinstance(phrase, list):
        if len(phrase) != 1:
            account.objects.read += len(boxes)
            account.drop_object("region with several phrases, or none", name, count=len(boxes))
            return []
        phrase = phrase[0]
    account.objects.read += len(boxes)
    return [Shape(label=phrase, box=corners(box, order), name=name) for box in boxes]
