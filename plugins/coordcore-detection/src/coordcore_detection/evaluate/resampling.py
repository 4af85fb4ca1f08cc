"""Every metric of a stored evaluation under other weights of its images: the bootstrap of `coordcore compare`."""

from __future__ import annotations

import numpy as np

from coordcore_detection.evaluate import metrics, points, results
from coordcore_detection.evaluate.average_precision import THRESHOLD_AT, by_score, grouped, label_ap
from coordcore_detection.evaluate.matching import IOU_THRESHOLDS, Floats, Ints, bits
from coordcore_detection.evaluate.metrics import AGNOSTIC
from coordcore_detection.evaluate.results import OUTLINE, Detail

_CELLS_AT_ONCE = 300_000  # resamples x boxes of one label
_NONE: Ints = np.zeros(0, dtype=np.int64)


def resampled(detail: Detail, weights: Floats) -> dict[str, Floats]:
    """Metric -> [B] values for `weights` [B, I], how often each resample holds each image; NaN where undefined.

    The metrics are those of `metrics.ratios` and `points.ratios`, and AP, AP50, AP75, AP95 with and without labels.
    """
    found = {
        **average_precisions(detail, weights, by_label=True),
        **average_precisions(detail, weights, by_label=False),
        **metrics.ratios(metrics.weighted(per_image(detail), weights)),
    }
    if detail.by_outline:
        for by_label in (True, False):
            found |= average_precisions(detail, weights, by_label=by_label, prefix=OUTLINE)
        found |= outline_ratios(detail, weights)
    return found | (points.ratios(metrics.weighted(point_sums(detail), weights)) if detail.points else {})


def per_image(detail: Detail, prefix: str = "") -> metrics.Sums:
    return metrics.per_image(results.images(detail), *map(results.found, detail.outcomes[prefix]))


def point_sums(detail: Detail) -> metrics.Sums:
    return {name: np.array(column) for name, column in (detail.points or {}).items()}


def outline_ratios(detail: Detail, weights: Floats) -> dict[str, Floats]:
    """Those of `metrics.ratios` that depend on how far outlines overlap, with `shape_` in their names."""
    found = metrics.ratios(metrics.weighted(per_image(detail, OUTLINE), weights))
    kept = [prefix + name for prefix in ("", AGNOSTIC) for name in ("F1_50", "F1", "mean_iou", "accuracy_50")]
    return {_named(name, OUTLINE): found[name] for name in kept}


def _named(name: str, prefix: str) -> str:
    """ "agnostic_shape_AP" for "agnostic_AP"."""
    start = AGNOSTIC if name.startswith(AGNOSTIC) else ""
    return f"{start}{prefix}{name.removeprefix(start)}"


def average_precisions(detail: Detail, weights: Floats, *, by_label: bool, prefix: str = "") -> dict[str, Floats]:
    """COCO's AP under `weights` [B, I], accumulated anew from stored matches: AP, AP50, AP75, AP95, each [B].

    An image of weight 2 counts as two images. Without weights, that is all 1, this is what `average_precision` gives.
    prefix: one of `Detail.outcomes`.
    """
    outcome = detail.outcomes[prefix][0 if by_label else 1]
    label, true_label = (
        np.array(labels if by_label else [0] * len(labels), dtype=np.int64)
        for labels in (detail.label, detail.truth_label)
    )
    image, true_image = (np.array(item, dtype=np.int64) for item in (detail.image, detail.truth_image))
    flags = [bits(np.array(item, dtype=np.int64)) for item in (outcome.found, outcome.ignored)]
    truths = grouped(true_label, np.arange(len(true_label)))
    boxes = grouped(label, by_score(detail.score))
    turned = np.ascontiguousarray(weights.T)
    sums, counted = np.zeros((len(IOU_THRESHOLDS), len(weights))), np.zeros(len(weights))
    for name, true in truths.items():
        positives = turned[true_image[true]].sum(0)
        counted += positives > 0
        mine = boxes.get(name, _NONE)
        found, ignored = (flag[mine] for flag in flags)
        filled = np.flatnonzero(positives)
        step = max(1, _CELLS_AT_ONCE // max(1, len(mine)))
        for begin in range(0, len(filled), step):
            columns = filled[begin : begin + step]
            weight = turned[image[mine][:, None], columns]
            sums[:, columns] += label_ap(weight, positives[columns], found, ignored)
    prefix = prefix if by_label else AGNOSTIC + prefix
    ap = np.divide(sums, counted, out=np.full(sums.shape, np.nan), where=counted > 0)
    return {f"{prefix}AP": ap.mean(0)} | {f"{prefix}AP{percent}": ap[index] for percent, index in THRESHOLD_AT.items()}
