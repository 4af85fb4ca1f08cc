"""COCO's results file written from predictions: what pycocotools' `loadRes` and evaluation servers read. Torch-free.

A list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}, boxes in pixels. Image ids are those of
the records where all of them have a whole number of their own, else 1, 2, ... in their order; category ids those of a
COCO file that is given, else 1, 2, ... by name over the labels of the records. `coordcore data convert --to coco`
numbers so too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from coordcore.errors import InputError
from coordcore_detection.evaluate.results import write_text
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.answer_files import read_bytes
from coordcore_detection.predict.predictions import Box, Row


class _Category(msgspec.Struct):
    id: int
    name: str


class _File(msgspec.Struct):
    categories: list[_Category]


def write(path: Path, truth: Sequence[TruthImage], rows: Iterable[Row], categories: Mapping[str, int] | None) -> str:
    """Write the boxes of `rows` on images of `truth`; returns one line that says how many, and what was left out.

    truth: in the order of the records. rows: as `evaluate` has taken them. categories: label -> id, None to number the
    labels of the truth. A box whose label has no id is left out, and so is one that is no box; one without a score is
    ranked behind all others, as `evaluate` does. Raises InputError when the file cannot be written.
    """
    numbered = _image_ids(truth)
    ids = {item.key: number for item, number in zip(truth, numbered, strict=True)}
    own = numbered == [item.id for item in truth]
    if categories is None:
        labels = sorted({label for item in truth for label in item.labels})
        categories = {label: number for number, label in enumerate(labels, 1)}
    answers = {row.image: row for row in rows if row.image in ids}  # one that is there twice is the same
    boxes = [(key, box) for key in ids if key in answers for box in answers[key].regions]
    finite = [box.score for _, box in boxes if math.isfinite(box.score)]
    last = min(finite, default=0.0) - 1.0
    known = [(key, box) for key, box in boxes if box.label in categories]
    written: list[dict[str, Any]] = [
        {
            "image_id": ids[key],
            "category_id": categories[box.label],
            "bbox": [box.box[0], box.box[1], box.box[2] - box.box[0], box.box[3] - box.box[1]],
            "score": box.score if math.isfinite(box.score) else last,
        }
        for key, box in known
        if _is_box(box)
    ]
    write_text(msgspec.json.encode(written).decode() + "\n", path)
    parts = [f"{path}: {len(written)} boxes on {len(ids)} images"]
    if len(known) < len(boxes):
        parts.append(f"{len(boxes) - len(known)} left out, whose labels have no category id")
    if len(written) < len(known):
        parts.append(f"{len(known) - len(written)} left out that are no boxes")
    if points := sum(len(answer.boxes) - len(answer.regions) for answer in answers.values()):
        parts.append(f"{points} left out that are points")
    if not own:
        parts.append("image ids are 1, 2, ... in the order of the records, which have none, or not one each")
    return "; ".join(parts)


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


def _image_ids(truth: Sequence[TruthImage]) -> list[int]:
    own = [item.id for item in truth if type(item.id) is int]
    return own if len(set(own)) == len(truth) else list(range(1, len(truth) + 1))


def _is_box(box: Box) -> bool:
    x1, y1, x2, y2 = box.box
    return all(map(math.isfinite, box.box)) and x1 <= x2 and y1 <= y2
