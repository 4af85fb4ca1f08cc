"""COCO's average precision and recall, accumulated from matches: of an evaluation, and of its resamples.

The one accumulation: `average_precision` measures an evaluation, and `coordcore compare` calls `label_ap` with other
weights of the images. Both give what pycocotools' COCOeval.accumulate gives, and of matches by LVIS's rule what
lvis-api's LVISEval.accumulate gives.

Shape legend: n predicted boxes, m true boxes, B weightings of the images (resamples), T IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from coordcore_detection.evaluate.matching import (
    AREAS,
    IOU_THRESHOLDS,
    Bools,
    Flat,
    Floats,
    Ints,
    Matches,
    bits,
    in_areas,
)

RECALL_POINTS = 101
THRESHOLD_AT = {"50": 0, "75": 5, "95": len(IOU_THRESHOLDS) - 1}
"""IoU, in percent, of the metrics at one threshold and of the curves -> its place in IOU_THRESHOLDS."""

FREQUENCIES = ("r", "c", "f")
"""LVIS's groups of labels, by how many training images have them: rare, common, frequent: APr, APc, APf."""

_NONE: Ints = np.zeros(0, dtype=np.int64)


@attrs.frozen(kw_only=True, eq=False)
class AveragePrecision:
    """AP and AR, each as COCO defines it.

    metrics: AP, AP50, AP75, AP95, AP_small ..., APr, APc, APf where labels have frequencies, AR1, AR10, AR100 (of
        `Matches.limit`), AR_small ...; None where no true box counts.
    by_label: label id -> (AP, AP50), for every label with a true box.
    curve: IoU ("50", "75", "95") -> precision at 101 recalls from 0 to 1, the mean over labels.
    """

    metrics: dict[str, float | None]
    by_label: dict[int, tuple[float, float]]
    curve: dict[str, list[float]]


def detection_limits(limit: int, *, federated: bool) -> tuple[int, ...]:
    """The numbers of boxes of an image and label at which recall is told: COCO's 1, 10 and 100 for a limit of 100.

    federated: of an image whatever the labels, and LVIS's, which is the limit alone.
    """
    return (limit,) if federated else (*(item for item in (1, 10) if item < limit), limit)


def average_precision(
    truth: Flat,
    crowd: Bools,
    predicted: Flat,
    scores: Floats,
    matches: Matches,
    *,
    by_label: bool,
    frequency: Mapping[int, str] | None = None,
) -> AveragePrecision:
    """Score `predicted` ([n] finite scores) against `truth` ([m] crowd); `matches` is what `match` gave for them.

    A predicted label that no true box has is left out, as by COCO. frequency: label id -> one of FREQUENCIES.
    """
    real = np.flatnonzero(~crowd)
    label, true_label = (item.label if by_label else np.zeros_like(item.label) for item in (predicted, truth))
    boxes = grouped(label, np.argsort(-scores, kind="stable"))
    truths = grouped(true_label, real)
    within = in_areas(truth)
    # AP of each threshold and area, AR of each threshold and area or limit of detections, by label; NaN without truth.
    ap = np.full((len(truths), len(IOU_THRESHOLDS), 1 + len(AREAS)), np.nan)
    limits = detection_limits(matches.limit, federated=matches.federated)
    ar, ar_first = np.full_like(ap, np.nan), np.full((len(limits), len(truths), len(IOU_THRESHOLDS)), np.nan)
    curve = np.zeros((len(truths), len(THRESHOLD_AT), RECALL_POINTS))
    for k, (name, true) in enumerate(truths.items()):
        mine = boxes.get(name, _NONE)
        weight = np.ones((len(mine), 1))
        for area, positives in enumerate(within[:, true].sum(1)):
            if positives:
                found, ignored = (bits(masks[mine], area) for masks in (matches.found, matches.ignored))
                ap[k, :, area] = label_ap(weight, np.array([positives]), found, ignored)[:, 0]
                ar[k, :, area] = found.sum(0) / positives
        found, ignored = (bits(masks[mine]) for masks in (matches.found, matches.ignored))
        for number, limit in enumerate(limits):
            ar_first[number, k] = found[matches.place[mine] < limit].sum(0) / len(true)
        for number, t in enumerate(THRESHOLD_AT.values()):
            curve[k, number] = _curve(weight, len(true), found[:, t], ignored[:, t])
    groups = {}
    if frequency:
        groups = {item: [frequency.get(name) == item for name in truths] for item in FREQUENCIES}
    return AveragePrecision(
        metrics=_summary(ap, ar, dict(zip(limits, ar_first, strict=True)), groups),
        by_label={name: (float(ap[k, :, 0].mean()), float(ap[k, 0, 0])) for k, name in enumerate(truths)},
        curve={name: curve[:, n].mean(0).tolist() for n, name in enumerate(THRESHOLD_AT) if truths},
    )


def _summary(
    ap: Floats, ar: Floats, ar_first: dict[int, Floats], groups: dict[str, list[bool]]
) -> dict[str, float | None]:
    """AP and AR by name, from [labels, T, areas] and, by limit, [labels, T]. Area 0 holds every size.

    groups: which labels are of each frequency.
    """
    return {
        "AP": _mean(ap[..., 0]),
        **{f"AP{percent}": _mean(ap[:, t, 0]) for percent, t in THRESHOLD_AT.items()},
        **{f"AP_{name}": _mean(ap[..., area]) for area, name in enumerate(AREAS, start=1)},
        **{f"AP{group}": _mean(ap[labels, :, 0]) for group, labels in groups.items()},
        **{f"AR{limit}": _mean(cells) for limit, cells in ar_first.items()},
        **{f"AR_{name}": _mean(ar[..., area]) for area, name in enumerate(AREAS, start=1)},
    }


def _mean(cells: Floats) -> float | None:
    counted = cells[~np.isnan(cells)]
    return float(counted.mean()) if counted.size else None


def by_score(scores: Sequence[float | None]) -> Ints:
    """The order of all boxes by falling score; those without one last."""
    keys = np.array(scores, dtype=np.float64)
    order: Ints = np.argsort(np.where(np.isnan(keys), np.inf, -keys), kind="stable")
    return order


def grouped(label: Ints, order: Ints) -> dict[int, Ints]:
    """Label -> the indices in `order` that have it, in that order."""
    by_group = order[np.argsort(label[order], kind="stable")]
    labels, starts = np.unique(label[by_group], return_index=True)
    return dict(zip(labels.tolist(), np.split(by_group, starts[1:]), strict=True)) if len(labels) else {}


def label_ap(weight: Floats, positives: Floats, found: Bools, ignored: Bools) -> Floats:
    """[T, B] AP of one label.

    weight: [n, B] of its boxes by falling score, so that sums run along whole rows: how often a resample holds the
    box's image. positives: [B] true boxes, not 0. found, ignored: [n, T].
    """
    result = np.zeros((found.shape[1], len(positives)))
    total = np.cumsum(weight, axis=0)
    for t in range(found.shape[1]):
        if found[:, t].any():
            precision, reached = _steps(weight, total, positives, found[:, t], ignored[:, t])
            points = precision[0] * reached[0] + np.einsum("nb,nb->b", precision[1:], np.diff(reached, axis=0))
            result[t] = points / RECALL_POINTS
    return result


def _curve(weight: Floats, positives: int, found: Bools, ignored: Bools) -> Floats:
    """[101] precision at COCO's recalls, of one label and one weighting; 0 at recalls that are not reached."""
    result = np.zeros(RECALL_POINTS)
    if found.any():
        total = np.cumsum(weight, axis=0)
        precision, reached = _steps(weight, total, np.array([positives]), found, ignored)
        points = np.repeat(precision[:, 0], np.diff(reached[:, 0], prepend=0).astype(np.int64))
        result[: len(points)] = points
    return result


def _steps(
    weight: Floats, total: Floats, positives: Floats | Ints, found: Bools, ignored: Bools
) -> tuple[Floats, Floats]:
    """[h, B] for the h boxes that found one: the precision that holds up to its recall, and the recalls it reaches.

    total: the cumulative sum of `weight`. Precision is highest, between two changes of recall, where a box has just
    been found: only those boxes matter. The second array counts those of COCO's 101 recalls, 0 among them.
    """
    hits = np.flatnonzero(found)
    judged = np.cumsum(weight * ~ignored[:, None], axis=0) if ignored.any() else total
    right = np.cumsum(weight[hits], axis=0)
    # Boxes of weight 0 at the beginning may leave nothing to divide by, and have found nothing.
    precision = right / np.maximum(judged[hits], 1.0)
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = right / positives
    nearest = np.rint(recall * (RECALL_POINTS - 1))
    # numpy's linspace(0, 1, 101), which COCO's evaluation compares with, is k * 0.01, not k / 100.
    return envelope, nearest + (nearest * 0.01 <= recall)
