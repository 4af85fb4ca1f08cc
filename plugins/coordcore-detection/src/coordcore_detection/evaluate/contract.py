"""The evaluation contract: everything that two results must share for their numbers to be compared. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from coordcore_detection.evaluate.average_precision import RECALL_POINTS, detection_limits
from coordcore_detection.evaluate.matching import AREAS, IOU_THRESHOLDS
from coordcore_detection.evaluate.metrics import CALIBRATION_BINS
from coordcore_detection.predict.predictions import Header


def contract(header: Header, truth: Mapping[str, Any], max_detections: int) -> dict[str, Any]:
    """What the metrics of predictions with this header, on ground truth described by `truth`, depend on.

    max_detections: how many boxes of an image and label count for AP.

    The checkpoint is not part of it, nor are the fitted numbers of a calibration: those are what a comparison compares.
    """
    return {
        "truth": dict(truth),
        "quantisation": header.quantisation,
        **({} if header.coords is None else {"coords": header.coords}),
        **({} if header.answers is None else {"answers": header.answers}),
        "decoding": header.decoding,
        "score": header.score,
        "calibration": header.calibration and header.calibration.get("method"),
        "iou_thresholds": [round(one, 2) for one in IOU_THRESHOLDS.tolist()],
        "recall_points": RECALL_POINTS,
        "max_detections": list(detection_limits(max_detections)),
        "equal_scores": "in the order of the images (truth.image_order), then of the answer",
        "areas": {name: list(bounds) for name, bounds in AREAS.items()},
        "area_of": "box",
        "labels": "equal text",
        "calibration_bins": CALIBRATION_BINS,
        "versions": {
            "predict": header.versions,
            "eval": {name: version(name) for name in ("coordcore", "coordcore-detection", "numpy")},
        },
    }


def differences(a: Mapping[str, Any], b: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """What differs between two contracts: "decoding.coordinates: argmax against expectation"."""
    for key in [*a, *(one for one in b if one not in a)]:
        where = f"{path}.{key}" if path else key
        ours, theirs = a.get(key, _ABSENT), b.get(key, _ABSENT)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            yield from differences(ours, theirs, where)
        elif ours != theirs:
            yield f"{where}: {_shown(ours)} against {_shown(theirs)}"


_ABSENT = object()


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
