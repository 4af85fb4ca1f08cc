"""COCO's average precision and recall, by faster-coco-eval. Torch-free; faster-coco-eval is imported when used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from coordcore_detection.evaluate.matching import IOU_THRESHOLDS, MAX_DETECTIONS, Bools, Flat, Floats

AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e5**2)}
"""COCO's size classes, by the area of the box: records hold no masks, whose area COCO's own annotations use."""

DETECTIONS = (1, 10, MAX_DETECTIONS)
RECALL_POINTS = 101
CURVES = (50, 75, 95)
"""IoU, in percent, of the precision-recall curves."""

_CELLS_AT_ONCE = 10_000  # labels x images: what faster-coco-eval allocates, filled or not


@attrs.frozen(kw_only=True, eq=False)
class AveragePrecision:
    """AP and AR, each as COCO defines it.

    metrics: AP, AP50, AP75, AP95, AP_small ..., AR1, AR10, AR100, AR_small ...; None where no true box counts.
    by_label: label id -> (AP, AP50), for every label with a true box.
    curve: IoU ("50", "75", "95") -> precision at 101 recalls from 0 to 1, the mean over labels.
    """

    metrics: dict[str, float | None]
    by_label: dict[int, tuple[float, float]]
    curve: dict[str, list[float]]


def average_precision(
    truth: Flat, crowd: Bools, predicted: Flat, scores: Floats, *, by_label: bool
) -> AveragePrecision:
    """Score `predicted` ([n] finite scores) against `truth` ([m] crowd).

    A predicted label that no true box has is left out, as by COCO. Boxes must have x1 <= x2 and y1 <= y2.
    """
    if not by_label:
        truth, predicted = (attrs.evolve(one, label=np.zeros_like(one.label)) for one in (truth, predicted))
    precisions, recalls, curves, labels = [_cells(0)], [_cells(0)], [np.zeros((RECALL_POINTS, 0, len(CURVES)))], []
    for chunk in _chunks(truth, predicted):
        precision, recall = _evaluate(truth, crowd, predicted, scores, chunk)
        # A label without true boxes in an area holds -1 at every recall.
        precisions.append(precision.mean(1))
        curves.append(np.moveaxis(precision[[_threshold(one) for one in CURVES], :, :, 0, -1], 0, -1))
        recalls.append(recall)
        labels += chunk.tolist()
    precision, recall = np.concatenate(precisions, axis=1), np.concatenate(recalls, axis=1)
    counted = recall[0, :, 0, -1] > -1
    curve = np.concatenate(curves, axis=1)[:, counted]
    return AveragePrecision(
        metrics=_summary(precision, recall),
        by_label={
            label: (float(precision[:, k, 0, -1].mean()), float(precision[0, k, 0, -1]))
            for k, label in enumerate(labels)
            if counted[k]
        },
        curve={str(one): curve[..., index].mean(1).tolist() for index, one in enumerate(CURVES) if counted.any()},
    )


def _cells(labels: int) -> NDArray[Any]:
    """[thresholds, labels, areas, detections], as faster-coco-eval shapes its recall."""
    return np.zeros((len(IOU_THRESHOLDS), labels, 1 + len(AREAS), len(DETECTIONS)))


def _chunks(truth: Flat, predicted: Flat) -> Iterator[NDArray[np.int64]]:
    """The true labels, in groups whose labels times images stay small even for thousands of labels."""
    images: dict[int, set[int]] = {label: set() for label in np.unique(truth.label).tolist()}
    for side in (truth, predicted):
        for label, image in zip(side.label.tolist(), side.image.tolist(), strict=True):
            if label in images:
                images[label].add(image)
    chunk: list[int] = []
    held: set[int] = set()
    for label in sorted(images, key=lambda one: (-len(images[one]), one)):
        if chunk and (len(chunk) + 1) * len(held | images[label]) > _CELLS_AT_ONCE:
            yield np.array(sorted(chunk))
            chunk, held = [], set()
        chunk.append(label)
        held |= images[label]
    if chunk:
        yield np.array(sorted(chunk))


def _evaluate(
    truth: Flat, crowd: Bools, predicted: Flat, scores: Floats, labels: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Over `labels` and the images that hold one of them: precision, [thresholds, recalls, labels, areas, detections],
    and recall, [thresholds, labels, areas, detections]. A cell without true boxes holds -1.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    ours, theirs = np.isin(truth.label, labels), np.isin(predicted.label, labels)
    images = [{"id": one + 1} for one in np.union1d(truth.image[ours], predicted.image[theirs]).tolist()]
    categories = [{"id": label + 1, "name": str(label)} for label in labels.tolist()]
    common = {"images": images, "categories": categories}
    evaluation = COCOeval_faster(
        COCO({**common, "annotations": _annotations(truth, ours, "iscrowd", crowd.astype(int))}),
        COCO({**common, "annotations": _annotations(predicted, theirs, "score", scores)}),
        "bbox",
        ranges={name: list(bounds) for name, bounds in AREAS.items()},
    )
    evaluation.params.iouThrs = IOU_THRESHOLDS
    evaluation.params.maxDets = list(DETECTIONS)
    evaluation.evaluate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _annotations(side: Flat, keep: Bools, key: str, values: NDArray[Any]) -> list[dict[str, Any]]:
    corner = side.boxes[keep, :2]
    size = side.boxes[keep, 2:] - corner
    columns = (
        side.image[keep] + 1,
        side.label[keep] + 1,
        np.concatenate([corner, size], axis=1),
        size.prod(1),
        values[keep],
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    # An id of 0 would read as "not matched".
    return [
        {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": area, key: value}
        for number, (image, label, box, area, value) in enumerate(rows, start=1)
    ]


def _summary(precision: NDArray[Any], recall: NDArray[Any]) -> dict[str, float | None]:
    """AP and AR by name, both from [thresholds, labels, areas, detections]. Area 0 is "all"."""
    metrics = {"AP": _mean(precision[..., 0, -1])}
    for percent in (50, 75, 95):
        metrics[f"AP{percent}"] = _mean(precision[_threshold(percent), :, 0, -1])
    for number, name in enumerate(AREAS, start=1):
        metrics[f"AP_{name}"] = _mean(precision[..., number, -1])
    for number, limit in enumerate(DETECTIONS):
        metrics[f"AR{limit}"] = _mean(recall[..., 0, number])
    for number, name in enumerate(AREAS, start=1):
        metrics[f"AR_{name}"] = _mean(recall[..., number, -1])
    return metrics


def _threshold(percent: int) -> int:
    return int(np.argmin(np.abs(IOU_THRESHOLDS * 100 - percent)))


def _mean(cells: NDArray[Any]) -> float | None:
    counted = cells[cells > -1]
    return float(counted.mean()) if counted.size else None
