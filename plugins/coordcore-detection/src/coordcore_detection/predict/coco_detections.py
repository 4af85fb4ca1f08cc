"""COCO's results files read as predictions: pycocotools measures of them what `eval` does. Torch-free.

A list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}, boxes in pixels. Numbers of images and
categories mean what they do in the files that `eval --coco-results` writes (`evaluate.coco_results`), and boxes of
equal score stay in their order. An image without any has an answer that nothing is there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from coordcore.errors import InputError
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_detection.evaluate.coco_results import TASKS, numbered_images, numbered_labels
from coordcore_detection.evaluate.joining import Join
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.answer_files import Given, identified
from coordcore_detection.predict.boxes import mark_duplicates
from coordcore_detection.predict.predictions import VERSION, Box, Header, Row

_OUTLINES = ("segmentation", "keypoints")
_NAMED = 5


@attrs.frozen(kw_only=True)
class Detection:
    """One of a file. at: "results.json: [3]". image: its id as text. box: x1, y1, x2, y2 in pixels."""

    at: str
    image: str
    category: int
    box: tuple[float, float, float, float]
    score: float


def is_results(items: Sequence[tuple[str, Any]]) -> bool:
    """Whether the first object of a file (`answer_files.items`) is a detection."""
    first = items[0][1] if items else None
    return isinstance(first, dict) and "category_id" in first and any(key in first for key in ("bbox", *_OUTLINES))


def read(items: Iterable[tuple[str, Any]]) -> list[Detection]:
    """The detections of a file. Raises InputError naming the first that is none, what is wrong with it, the cure."""
    return [_detection(at, item) for at, item in items]


def header(path: Path, categories: Path | None) -> Header:
    """The contract of the detections in `path`. categories: the file whose ids they have, where one was given."""
    return Header(
        predictions=VERSION,
        checkpoint=str(path),
        quantisation=DEFAULT_QUANTISATION.as_dict(),
        decoding={"answers": "COCO results", "categories": None if categories is None else categories.name},
        score="score",
    )


def rows(
    found: Sequence[Detection], truth: Sequence[TruthImage], categories: Mapping[str, int] | None
) -> tuple[list[Row], str]:
    """A row for each image, and what is to be said of them: how many boxes, and what numbers were taken to mean.

    found: one at least. truth: in the order of the records; those that ask for anything but objects get no row.
    categories: label -> id, None for 1, 2, ... by name over the labels of the truth. A detection on an image that the
    truth does not have keeps its image's id for a name.
    Raises InputError for an id of no category, for one of an image that several records have, and, where the records
    have no ids of their own, for one that neither counts nor names an image; where ids of all images are of none, too.
    """
    images, numbers, own = numbered_images(truth)
    known = numbered_labels(images) if categories is None else categories
    labels = {number: label for label, number in known.items()}
    place, taken = (_by_id(truth), "") if own else _by_count(found, images, numbers)
    answers: dict[str, Row] = {
        item.key: Row(image=item.key, width=item.width, height=item.height, text="", boxes=[])
        for item in truth
        if item.task in TASKS
    }
    asked = len(answers)
    for item in found:
        if item.category not in labels:
            raise InputError(f"{item.at}: category_id: {item.category} {_no_category(labels, categories is None)}")
        image = place(item)
        key = item.image if image is None else image.key
        row = answers.setdefault(key, Row(image=key, width=1, height=1, text="", boxes=[]))
        x1, y1, x2, y2 = item.box
        bins = (math.floor(x1), math.floor(y1), math.floor(x2), math.floor(y2))
        row.boxes.append(Box(label=labels[item.category], box=item.box, bins=bins, score=item.score))
    given = list(answers.values())
    if not any(row.boxes for row in given[:asked]):
        raise InputError(
            f"{found[0].at}: image_id: {found[0].image} is the id of no record, and neither is any other; evaluate "
            "against the records of these images, which have their ids as metadata.image_id"
        )
    for row in given:
        mark_duplicates(row.boxes)
    empty = sum(not row.boxes for row in given[:asked])
    told = [f"{len(found)} boxes on {len(given) - empty} images"]
    told += [f"{empty} images without any are answered with nothing"] if empty else []
    told += [f"image ids were taken for {taken}"] if taken else []
    if categories is None:
        told.append("category ids were taken for 1, 2, ... by name over the labels of the records (else --categories)")
    return given, "; ".join(told)


def _detection(at: str, item: Any) -> Detection:
    if not isinstance(item, dict) or "category_id" not in item:
        raise InputError(f"{at}: is no detection of COCO's results format as those before it, but {_shown(item)}")
    if not item.get("bbox") and (shape := next((key for key in _OUTLINES if key in item), None)):
        raise InputError(
            f"{at}: holds {shape} and no bbox; eval measures boxes of COCO results: write the box around each as "
            '"bbox": [x, y, width, height]'
        )
    image, category = identified(item.get("image_id")), identified(item["category_id"])
    if not image:
        raise InputError(f"{at}: image_id: must be an image's id, got {_shown(item.get('image_id'))}")
    if not category.removeprefix("-").isdecimal() or isinstance(item["category_id"], str):
        raise InputError(f"{at}: category_id: must be a whole number, got {_shown(item['category_id'])}")
    score: Any = item.get("score")
    if not _is_number(score):
        given = f"got {_shown(score)}" if "score" in item else "and there is none"
        raise InputError(f"{at}: score: must be a finite number, {given}; AP ranks detections by it")
    box = item.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise InputError(f"{at}: bbox: must be [x, y, width, height] in pixels, got {_shown(box)}")
    x, y, width, height = map(float, box)
    if not (math.isfinite(x + width) and math.isfinite(y + height)):
        raise InputError(f"{at}: bbox: {_shown(box)} has an end that is no number; write pixels of the image")
    if width < 0 or height < 0:
        raise InputError(
            f"{at}: bbox: {_shown(box)} has a negative size; COCO's boxes are [x, y, width, height], not two corners"
        )
    corners = (x, y, x + width, y + height)
    return Detection(at=at, image=image, category=int(category), box=corners, score=float(score))


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _shown(value: Any) -> str:
    return f"{json.dumps(value):.80}"


Place = Callable[[Detection], TruthImage | None]


def _by_id(truth: Sequence[TruthImage]) -> Place:
    """The record that a detection is of, by the ids that records have; None for none."""
    asked = [item for item in truth if item.task in TASKS]
    records: dict[str, list[TruthImage]] = {}
    for record in asked:
        records.setdefault(identified(record.id), []).append(record)

    def place(item: Detection) -> TruthImage | None:
        found = records.get(item.image, [])
        return _only(found, item) if found else None

    return place


def _by_count(
    found: Sequence[Detection], images: Sequence[Sequence[TruthImage]], numbers: Sequence[int]
) -> tuple[Place, str]:
    """The record that a detection is of where records have no ids: by its number, or by its image's name; and which."""
    counted = {str(number): records for number, records in zip(numbers, images, strict=True)}
    every = [record for records in images for record in records]
    join = Join([(record.key, record.id) for record in every])
    first: dict[str, Detection] = {}
    for item in found:
        first.setdefault(item.image, item)
    is_counted = all(image in counted for image in first)
    named: dict[str, int | None] = {}
    for image, item in first.items():
        try:
            named[image] = join.place(Given(at=item.at, names=(), ids=(image,), text=None))
        except InputError:  # a name that several images have tells none
            if not is_counted:
                raise
    by_name = {image: every[index] for image, index in named.items() if index is not None}
    if is_counted and (clash := next((i for i, record in by_name.items() if record not in counted[i]), None)):
        raise InputError(
            f"{first[clash].at}: image_id: {clash} is the number of {counted[clash][0].key!r}, counting the records, "
            f"and the name of {by_name[clash].key!r}; give the records ids of their images, as metadata.image_id"
        )
    lacking = next((item for image, item in first.items() if image not in counted), None)
    if lacking is not None and len(by_name) < len(first):
        raise InputError(
            f"{lacking.at}: image_id: {lacking.image} is the id of no record: none has a metadata.image_id, or not one "
            f"each, so that 1 to {len(images)} count them in their order; give them the ids of their images"
        )

    def place(item: Detection) -> TruthImage | None:
        return _only(counted[item.image], item) if is_counted else by_name[item.image]

    return place, "1, 2, ... in the order of the records" if is_counted else "names of images"


def _only(records: Sequence[TruthImage], item: Detection) -> TruthImage:
    if len(records) > 1:
        raise InputError(
            f"{item.at}: image_id: {item.image} is of {len(records)} records, {records[0].key!r} and "
            f"{records[1].key!r}, and COCO results do not say which of them a box answers; evaluate the predictions "
            "themselves, or records of which each has an image of its own"
        )
    return records[0]


def _no_category(labels: Mapping[int, str], counted: bool) -> str:
    """Why a category's id is none, behind that id."""
    ids = sorted(labels)
    listed = ", ".join(map(str, ids[:_NAMED])) + (f", ... {ids[-1]}" if len(ids) > _NAMED else "")
    if counted:
        return (
            f"is none of {listed or 'no labels'}, by which the labels of the records are numbered in the order of "
            "their names; name the COCO file that has these ids with --categories"
        )
    return f"is none of the ids of --categories: {listed}; name the file that the detections were made for"
