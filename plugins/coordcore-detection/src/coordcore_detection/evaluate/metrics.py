"""The metrics that are ratios of sums over images: F1, IoU, accuracy, calibration, rates. One code for all resamples.

Shape legend: n predicted boxes, I images, B weightings of the images (resamples), T IoU thresholds, C calibration bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from coordcore_detection.evaluate.matching import IOU_THRESHOLDS, Bools, Floats, Ints

AGNOSTIC = "agnostic_"
"""In front of a metric's name: labels are not looked at."""

CALIBRATION_BINS = 15
"""Equal bins of the score in 0..1, as in Guo et al., On Calibration of Modern Neural Networks (2017)."""

_AT_50, _AT_95 = 0, len(IOU_THRESHOLDS) - 1


@attrs.frozen(kw_only=True, eq=False)
class Found:
    """What became of the predicted boxes under one way of matching, with or without labels.

    iou, in_crowd: [n] as in `Matches`. hit: [I] whether the first box of an image with one true box reaches IoU .5.
    """

    iou: Floats
    in_crowd: Floats
    hit: Bools


@attrs.frozen(kw_only=True, eq=False)
class Images:
    """What is counted per image ([I]) and per predicted box ([n], with the index of its image).

    truth: true boxes, crowd regions aside. alone: whether that is exactly one. unread: whether a part of the answer
    could not be read. unfinished: whether it was cut off. score: NaN where there is none. duplicate: of an earlier box.
    """

    truth: Ints
    alone: Bools
    unread: Bools
    unfinished: Bools
    image: Ints
    score: Floats
    duplicate: Bools


Sums = dict[str, Floats]


def per_image(images: Images, by_label: Found, agnostic: Found) -> Sums:
    """Name -> [I] or [I, columns]: what `ratios` divides, to be summed over images with any weights."""
    boxes = np.ones(len(images.image))
    counted = _over_images(images, boxes)
    sums = {
        "images": np.ones(len(images.truth)),
        "truth": images.truth.astype(np.float64),
        "boxes": counted,
        "alone": images.alone.astype(np.float64),
        "unread": images.unread.astype(np.float64),
        "unfinished": images.unfinished.astype(np.float64),
        "duplicates": _over_images(images, images.duplicate),
        "surplus": counted - images.truth,
        "miscount": np.abs(counted - images.truth),
    }
    for prefix, found in (("", by_label), (AGNOSTIC, agnostic)):
        right = found.iou[:, None] >= IOU_THRESHOLDS
        excused = ~right & (found.in_crowd[:, None] >= IOU_THRESHOLDS)
        sums[f"{prefix}right"] = _over_images(images, right)
        sums[f"{prefix}judged"] = _over_images(images, ~excused)
        sums[f"{prefix}iou"] = _over_images(images, found.iou)
        sums[f"{prefix}hit"] = (found.hit & images.alone).astype(np.float64)
        rated = (images.score >= 0) & (images.score <= 1) & ~excused[:, _AT_50]  # false for NaN
        one_hot = np.eye(CALIBRATION_BINS)[calibration_bin(images.score[rated])]
        columns = np.stack([np.ones(int(rated.sum())), images.score[rated], right[rated, _AT_50]], axis=1)
        table = (one_hot[:, :, None] * columns[:, None, :]).reshape(len(columns), CALIBRATION_BINS * 3)
        sums[f"{prefix}calibration"] = _add(images.image[rated], table, len(images.truth))
    return sums


def ratios(sums: Mapping[str, Floats]) -> dict[str, Floats]:
    """Metric -> [B], NaN where there is nothing to divide by. `sums` holds [B] and [B, columns] of `per_image`.

    F1_50, F1_95, F1 (mean over .50:.95), precision_50, recall_50: of all boxes, whatever their score, over all labels
    together; a box that lies in a crowd region is left out. mean_iou: over true boxes, 0 for one without a pair.
    accuracy_50: over images with one true box, as in referring expressions: the box of highest score has IoU >= .5.
    ece: expected calibration error against "IoU >= .5" (Guo et al. 2017). Each also with `agnostic_` in front.
    parse_failure_rate, unfinished_rate: of answers. duplicate_rate: of boxes. box_count_error, box_count_bias: mean
    absolute and signed difference between predicted and true boxes of an image.
    """
    result: dict[str, Floats] = {}
    for prefix in ("", AGNOSTIC):
        right, judged = sums[f"{prefix}right"], sums[f"{prefix}judged"]
        f1 = _divide(2 * right, judged + sums["truth"][:, None])
        result |= {
            f"{prefix}F1_50": f1[:, _AT_50],
            f"{prefix}F1_95": f1[:, _AT_95],
            f"{prefix}F1": f1.mean(1),
            f"{prefix}precision_50": _divide(right[:, _AT_50], judged[:, _AT_50]),
            f"{prefix}recall_50": _divide(right[:, _AT_50], sums["truth"]),
            f"{prefix}mean_iou": _divide(sums[f"{prefix}iou"], sums["truth"]),
            f"{prefix}accuracy_50": _divide(sums[f"{prefix}hit"], sums["alone"]),
            f"{prefix}ece": _calibration_error(sums[f"{prefix}calibration"]),
        }
    result |= {
        "parse_failure_rate": _divide(sums["unread"], sums["images"]),
        "unfinished_rate": _divide(sums["unfinished"], sums["images"]),
        "duplicate_rate": _divide(sums["duplicates"], sums["boxes"]),
        "box_count_error": _divide(sums["miscount"], sums["images"]),
        "box_count_bias": _divide(sums["surplus"], sums["images"]),
    }
    return result


def weighted(sums: Sums, weights: Floats) -> Sums:
    """Sums over images with `weights` [B, I]: [B] and [B, columns]."""
    return {name: weights @ values for name, values in sums.items()}


def calibration_table(row: Floats) -> list[dict[str, float]]:
    """The filled bins of one row ([3 C]) of `calibration`: score from .. to, boxes, mean score, share that is right."""
    table = row.reshape(CALIBRATION_BINS, 3).tolist()
    return [
        {
            "from": index / CALIBRATION_BINS,
            "to": (index + 1) / CALIBRATION_BINS,
            "boxes": boxes,
            "score": score / boxes,
            "right": right / boxes,
        }
        for index, (boxes, score, right) in enumerate(table)
        if boxes
    ]


def calibration_bin(scores: Floats) -> Ints:
    """The bin of each score in 0..1; 1 belongs to the last one."""
    result: Ints = np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    return result


def _calibration_error(table: Floats) -> Floats:
    """[B, 3 C] -> [B]: the sum over bins of |sum of scores - number right|, over the number of boxes."""
    boxes, score, right = np.moveaxis(table.reshape(len(table), CALIBRATION_BINS, 3), 2, 0)
    return _divide(np.abs(score - right).sum(1), boxes.sum(1))


def _over_images(images: Images, values: NDArray[Any]) -> Floats:
    return _add(images.image, values, len(images.truth))


def _add(image: Ints, values: NDArray[Any], count: int) -> Floats:
    """[n] or [n, columns] summed into [count] or [count, columns]."""
    total = np.zeros((count, *values.shape[1:]))
    np.add.at(total, image, values.astype(np.float64))
    return total


def _divide(above: Floats, below: ArrayLike) -> Floats:
    below = np.broadcast_to(np.asarray(below, dtype=np.float64), above.shape)
    result: Floats = np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)
    return result
