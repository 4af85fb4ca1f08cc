"""Answers read back and held against the truth: what `coordcore_demo.verify` counts. Torch-free."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import attrs

from coordcore_demo.shapes import Shape

Box = tuple[float, float, float, float]

_COORD = re.compile(r"<\|coord_(\d{1,3})\|>")


def parse(text: str) -> list[tuple[str, tuple[int, int, int, int]]] | None:
    """The (description, bins of x1, y1, x2, y2) pairs of an answer in CoordJSON, or None when it is anything else.

    Coordinates are coord tokens or plain integers, 0..999, with x1 < x2 and y1 < y2.
    """
    try:
        answer = json.loads(_COORD.sub(r"\1", text))
    except json.JSONDecodeError:
        return None
    objects = answer.get("objects") if isinstance(answer, dict) else None
    if not isinstance(objects, list):
        return None
    found = []
    for one in objects:
        if not (isinstance(one, dict) and isinstance(one.get("desc"), str) and _is_box(one.get("bbox_2d"))):
            return None
        x1, y1, x2, y2 = one["bbox_2d"]
        found.append((one["desc"], (x1, y1, x2, y2)))
    return found


def _is_box(box: object) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(type(k) is int and 0 <= k <= 999 for k in box)
        and box[0] < box[2]
        and box[1] < box[3]
    )


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes that are not empty."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@attrs.frozen(kw_only=True)
class Scores:
    """What a set of answers is worth, each figure between 0 and 1.

    parsed: answers that parse, with as many boxes as there are shapes.
    class_agnostic_iou: mean over all shapes of the IoU with the box given to it, 0 where there is none.
    mean_iou: the same, counted as 0 where the description is wrong.
    f1_50, f1_75: F1 of the boxes whose description is right and whose IoU is at least .50 or .75.
    """

    images: int
    parsed: float
    class_agnostic_iou: float
    mean_iou: float
    f1_50: float
    f1_75: float


def score(truths: Sequence[Sequence[Shape]], answers: Sequence[Sequence[Shape] | None]) -> Scores:
    """Score one answer per picture (None where it did not parse). Raises ValueError when there are no pictures.

    Within a picture, shapes and boxes are paired by falling IoU.
    """
    if not truths:
        raise ValueError("no pictures to score")
    pairs: list[tuple[float, bool]] = []
    for truth, answer in zip(truths, answers, strict=True):
        pairs += _pair(truth, answer or ())
    shapes = sum(len(truth) for truth in truths)
    boxes = sum(len(answer or ()) for answer in answers)
    right = [overlap for overlap, same in pairs if same]
    return Scores(
        images=len(truths),
        parsed=sum(
            answer is not None and len(answer) == len(truth) for truth, answer in zip(truths, answers, strict=True)
        )
        / len(truths),
        class_agnostic_iou=sum(overlap for overlap, _ in pairs) / shapes,
        mean_iou=sum(right) / shapes,
        f1_50=2 * sum(overlap >= 0.50 for overlap in right) / (shapes + boxes),
        f1_75=2 * sum(overlap >= 0.75 for overlap in right) / (shapes + boxes),
    )


def _pair(truth: Sequence[Shape], answer: Sequence[Shape]) -> list[tuple[float, bool]]:
    """(IoU, whether the descriptions agree) of each pair with an overlap."""
    candidates = sorted(
        (
            (iou(shape.box, box.box), shape.desc == box.desc, row, column)
            for row, shape in enumerate(truth)
            for column, box in enumerate(answer)
        ),
        reverse=True,
    )
    rows: set[int] = set()
    columns: set[int] = set()
    pairs = []
    for overlap, same, row, column in candidates:
        if overlap > 0 and row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            pairs.append((overlap, same))
    return pairs
