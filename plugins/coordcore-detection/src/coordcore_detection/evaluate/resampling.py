"""Every metric of a stored evaluation under other weights of its images: the bootstrap of `coordcore compare`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coordcore_detection.evaluate import metrics, results
from coordcore_detection.evaluate.matching import IOU_THRESHOLDS, Bools, Floats, Ints, bits
from coordcore_detection.evaluate.metrics import AGNOSTIC
from coordcore_detection.evaluate.metrics_ap import RECALL_POINTS
from coordcore_detection.evaluate.results import Detail

_CELLS_AT_ONCE = 300_000  # resamples x boxes of one label
_NONE: Ints = np.zeros(0, dtype=np.int64)
_AP_AT = {"AP50": 0, "AP75": 5, "AP95": len(IOU_THRESHOLDS) - 1}


def resampled(detail: Detail, weights: Floats) -> dict[str, Floats]:
    """Metric -> [B] values for `weights` [B, I], how often each resample holds each image; NaN where undefined.

    The metrics are those of `metrics.ratios`, and AP, AP50, AP75, AP95 with and without labels.
    """
    return {
        **average_precisions(detail, weights, by_label=True),
        **average_precisions(detail, weights, by_label=False),
        **metrics.ratios(metrics.weighted(per_image(detail), weights)),
    }


def per_image(detail: Detail) -> metrics.Sums:
    return metrics.per_image(results.images(detail), results.found(detail.by_label), results.found(detail.agnostic))


def average_precisions(detail: Detail, weights: Floats, *, by_label: bool) -> dict[str, Floats]:
    """COCO's AP under `weights` [B, I], accumulated anew from stored matches: AP, AP50, AP75, AP95, each [B].

    An image of weight 2 counts as two images. Without weights, that is all 1, this is what faster-coco-eval computes.
    """
    outcome = detail.by_label if by_label else detail.agnostic
    label, true_label = (
        np.array(one if by_label else [0] * len(one), dtype=np.int64) for one in (detail.label, detail.truth_label)
    )
    image, true_image = (np.array(one, dtype=np.int64) for one in (detail.image, detail.truth_image))
    flags = [bits(np.array(one, dtype=np.int64)) for one in (outcome.found, outcome.ignored)]
    truths = _grouped(true_label, np.arange(len(true_label)))
    boxes = _grouped(label, _by_score(detail.score))
    turned = np.ascontiguousarray(weights.T)
    sums, counted = np.zeros((len(IOU_THRESHOLDS), len(weights))), np.zeros(len(weights))
    for one, true in truths.items():
        positives = turned[true_image[true]].sum(0)
        counted += positives > 0
        mine = boxes.get(one, _NONE)
        found, ignored = (flag[mine] for flag in flags)
        filled = np.flatnonzero(positives)
        step = max(1, _CELLS_AT_ONCE // max(1, len(mine)))
        for begin in range(0, len(filled), step):
            columns = filled[begin : begin + step]
            weight = turned[image[mine][:, None], columns]
            sums[:, columns] += _label_ap(weight, positives[columns], found, ignored)
    prefix = "" if by_label else AGNOSTIC
    ap = np.divide(sums, counted, out=np.full(sums.shape, np.nan), where=counted > 0)
    return {f"{prefix}AP": ap.mean(0)} | {prefix + name: ap[index] for name, index in _AP_AT.items()}


def _by_score(scores: Sequence[float | None]) -> Ints:
    """The order of all boxes by falling score; those without one last."""
    keys = np.array(scores, dtype=np.float64)
    order: Ints = np.argsort(np.where(np.isnan(keys), np.inf, -keys), kind="stable")
    return order


def _grouped(label: Ints, order: Ints) -> dict[int, Ints]:
    """Label -> the indices that have it, in the given order."""
    sorted_ = order[np.argsort(label[order], kind="stable")]
    labels, starts = np.unique(label[sorted_], return_index=True)
    return dict(zip(labels.tolist(), np.split(sorted_, starts[1:]), strict=True)) if len(labels) else {}


def _label_ap(weight: Floats, positives: Floats, found: Bools, ignored: Bools) -> Floats:
    """[T, B] AP of one label, 0 for a resample without true boxes.

    weight: [n, B] of its boxes by falling score, so that sums run along whole rows. positives: [B] true boxes, not 0.
    found, ignored: [n, T].
    """
    result = np.zeros((found.shape[1], len(positives)))
    total = np.cumsum(weight, axis=0)
    for t in range(found.shape[1]):
        hits = np.flatnonzero(found[:, t])
        if not len(hits):
            continue
        # Precision is highest, between two changes of recall, where a box has just been found: only those matter.
        judged = np.cumsum(weight * ~ignored[:, t, None], axis=0) if ignored[:, t].any() else total
        right = np.cumsum(weight[hits], axis=0)
        # Boxes of weight 0 at the beginning may leave nothing to divide by, and have found nothing.
        precision = right / np.maximum(judged[hits], 1.0)
        envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        reached = _points_reached(right / positives)
        points = envelope[0] * reached[0] + np.einsum("nb,nb->b", envelope[1:], np.diff(reached, axis=0))
        result[t] = points / RECALL_POINTS
    return result


def _points_reached(recall: Floats) -> Floats:
    """How many of COCO's 101 recalls, 0 among them, are at most each of `recall`."""
    nearest = np.rint(recall * (RECALL_POINTS - 1))
    # numpy's linspace(0, 1, 101), which COCO's evaluation compares with, is k * 0.01, not k / 100.
    result: Floats = nearest + (nearest * 0.01 <= recall)
    return result
