"""COCO's results file written from predictions: what pycocotools' `loadRes` and evaluation servers read. Torch-free.

A list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}, boxes in pixels. Image ids are those of
the records where all of them have a whole number of their own, else 1, 2, ... in their order; category ids those of a
COCO file that is given, else 1, 2, ... by name over the labels of the records. `coordcore data convert --to coco`
numbers so too, and has an image once, whatever its records ask for: the results have the boxes of all answers to them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from coordcore.errors import InputError
from coordcore_detection.evaluate.results import write_text
from coordcore_detection.evaluate.synonyms import Synonyms
from coordcore_detection.evaluate.truth import Id, TruthImage
from coordcore_detection.predict.answer_files import read_bytes
from coordcore_detection.predict.predictions import Box, Row

TASKS = ("detect", "named")
"""What records ask that COCO's files can have."""


class _Category(msgspec.Struct):
    id: int
    name: str


class _File(msgspec.Struct):
    categories: list[_Category]


def write(
    path: Path,
    truth: Sequence[TruthImage],
    rows: Iterable[Row],
    categories: Mapping[str, int] | None,
    synonyms: Synonyms | None = None,
) -> str:
    """Write the boxes of `rows` on images of `truth`; returns one line that says how many, and what was left out.

    truth: in the order of the records. rows: as `evaluate` has taken them. categories: label -> id, None to number the
    labels of the truth. synonyms: a label without an id has that of the first of its name and alternatives with one. A
    box whose label has no id is left out, and so is one that is no box; one without a score ranks behind all others,
    as `evaluate` does. Left out are answers to records that ask for anything but objects.
    Raises InputError when the file cannot be written.
    """
    asked = [item for item in truth if item.task in TASKS]
    images, numbered, own = numbered_images(truth)
    ids = {item.key: number for records, number in zip(images, numbered, strict=True) for item in records}
    if categories is None:
        categories = numbered_labels(images)
    meant = dict(categories)
    for name, others in (synonyms or {}).items():
        if numbers := [categories[label] for label in (name, *others) if label in categories]:
            meant = dict.fromkeys((name, *others), numbers[0]) | meant
    answers = {row.image: row for row in rows if row.image in ids}  # one that is there twice is the same
    boxes = [(key, box) for key in ids if key in answers for box in answers[key].regions]
    finite = [box.score for _, box in boxes if math.isfinite(box.score)]
    last = min(finite, default=0.0) - 1.0
    known = [(key, box) for key, box in boxes if box.label in meant]
    written: list[dict[str, Any]] = [
        {
            "image_id": ids[key],
            "category_id": meant[box.label],
            "bbox": [box.box[0], box.box[1], box.box[2] - box.box[0], box.box[3] - box.box[1]],
            "score": box.score if math.isfinite(box.score) else last,
        }
        for key, box in known
        if _is_box(box)
    ]
    write_text(msgspec.json.encode(written).decode() + "\n", path)
    parts = [f"{path}: {len(written)} boxes on {len(images)} images"]
    if len(asked) < len(truth):
        parts.append(f"records left out, whose tasks COCO does not have: {len(truth) - len(asked)}")
    if len(known) < len(boxes):
        parts.append(f"{len(boxes) - len(known)} left out, whose labels have no category id")
    if len(written) < len(known):
        parts.append(f"{len(known) - len(written)} left out that are no boxes")
    if points := sum(len(answer.boxes) - len(answer.regions) for answer in answers.values()):
        parts.append(f"{points} left out that are points")
    if not own:
        parts.append("image ids are 1, 2, ... in the order of the records, which have none, or not one each")
    return "; ".join(parts)


def numbered_images(truth: Sequence[TruthImage]) -> tuple[list[list[TruthImage]], list[int], bool]:
    """The records of each image that COCO can have, its id, and whether ids are the records' own."""
    images = _images([item for item in truth if item.task in TASKS])
    own_ids = [next((item.id for item in records if item.id is not None), None) for records in images]
    numbered = _image_ids(own_ids)
    return images, numbered, numbered == own_ids


def numbered_labels(images: Iterable[Iterable[TruthImage]]) -> dict[str, int]:
    """Label -> id where no COCO file says them: 1, 2, ... by name."""
    labels = sorted({label for records in images for item in records for label in item.labels})
    return {label: number for number, label in enumerate(labels, 1)}


def read_categories(path: Path) -> dict[str, int]:
    """Label -> id from the `categories` of a COCO file. Raises InputError."""
    try:
        found = msgspec.json.decode(read_bytes(path), type=_File).categories
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = str(error).replace("`", "")
        raise InputError(f"{path}: has no COCO categories ({why}); name an instances file, or one like it") from error
    ids: dict[str, int] = {}
    names: dict[int, str] = {}
    for item in found:
        if ids.setdefault(item.name, item.id) != item.id or names.setdefault(item.id, item.name) != item.name:
            raise InputError(f"{path}: category {item.name!r} with id {item.id}: its name or its id is another's too")
    if not ids:
        raise InputError(f"{path}: its list of categories is empty")
    return ids


def _images(truth: Sequence[TruthImage]) -> list[list[TruthImage]]:
    """The records of each image, in the order in which images come first.

    As in a COCO file that `data convert` writes, one that was only asked for categories that are not there is none.
    """
    by_name: dict[str, list[list[TruthImage]]] = {}
    images: list[list[TruthImage]] = []
    for item in truth:
        entries = by_name.setdefault(str(item.path or item.key), [])
        there = (
            records for records in entries if all(item.id in (None, known.id) or known.id is None for known in records)
        )
        entry = next(there, None)
        if entry is None:
            entries.append(entry := [])
            images.append(entry)
        entry.append(item)
    return [records for records in images if any(item.task == "detect" or item.labels for item in records)]


def _image_ids(given: Sequence[Id | None]) -> list[int]:
    own = [number for number in given if type(number) is int]
    return own if len(set(own)) == len(given) else list(range(1, len(given) + 1))


def _is_box(box: Box) -> bool:
    x1, y1, x2, y2 = box.box
    return all(map(math.isfinite, box.box)) and x1 <= x2 and y1 <= y2
