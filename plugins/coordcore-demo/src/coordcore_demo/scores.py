"""The figures of `coordcore_demo.verify`: answers, read and paired as everywhere in coordcore, held against the truth.

Torch-free.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from coordcore.records.geometry import overlaps
from coordcore_demo.shapes import Shape


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
        pairs += _pairs(truth, answer or ())
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


def _pairs(truth: Sequence[Shape], answer: Sequence[Shape]) -> list[tuple[float, bool]]:
    """(IoU, whether the descriptions agree) of each pair with an overlap. Of equal IoUs, agreement comes first."""
    rows, columns = np.indices((len(truth), len(answer))).reshape(2, -1)
    shapes, boxes = (np.array([shape.box for shape in side]).reshape(-1, 4) for side in (truth, answer))
    iou = overlaps(shapes[rows], np.zeros(len(rows), dtype=bool), boxes[columns])
    same = np.array([truth[row].desc == answer[column].desc for row, column in zip(rows, columns, strict=True)])
    pairs = []
    order: list[int] = np.lexsort((~same, -iou)).tolist() if len(rows) else []
    while order and iou[order[0]] > 0:
        best = order[0]
        pairs.append((float(iou[best]), bool(same[best])))
        order = [k for k in order if rows[k] != rows[best] and columns[k] != columns[best]]
    return pairs
