"""The evaluation contract: everything that two results must share for their numbers to be compared. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from coordcore_detection.evaluate.average_precision import RECALL_POINTS, detection_limits
from coordcore_detection.evaluate.matching import AREAS, IOU_THRESHOLDS
from coordcore_detection.evaluate.metrics import CALIBRATION_BINS
from coordcore_detection.predict.predictions import Header

FEDERATED = (
    "as LVIS: labels that nobody looked for in an image, or not for all, are no mistakes; limits of whole images"
)

PROPOSED_BY = "proposed_by"


def contract(
    header: Header,
    truth: Mapping[str, Any],
    *,
    max_detections: int,
    federated: bool,
    areas: bool,
    synonyms: Mapping[str, Sequence[str]],
    radius: str | None = None,
) -> dict[str, Any]:
    """What the metrics of predictions with this header, on ground truth described by `truth`, depend on.

    max_detections: how many boxes of an image and label count for AP; of an image, where the truth is federated.
    federated: whether AP is LVIS's. areas: whether the truth says how large its objects are. synonyms: name -> what
    else is taken for it. radius: within which a predicted point finds a true one, where points are measured.

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
        "iou_thresholds": [round(value, 2) for value in IOU_THRESHOLDS.tolist()],
        "recall_points": RECALL_POINTS,
        **({"federated": FEDERATED} if federated else {}),
        "max_detections": list(detection_limits(max_detections, federated=federated)),
        "equal_scores": "in the order of the images (truth.image_order), then of the answer",
        "areas": {name: list(bounds) for name, bounds in AREAS.items()},
        "area_of": "object, where the truth says it; else box" if areas else "box",
        "labels": same_labels(synonyms),
        **({} if radius is None else {"point_radius": radius}),
        "calibration_bins": CALIBRATION_BINS,
        "versions": {
            "predict": header.versions,
            "eval": {name: version(name) for name in ("coordcore", "coordcore-detection", "numpy")},
        },
    }


def same_labels(synonyms: Mapping[str, Sequence[str]], proposed_by: Mapping[str, Any] | None = None) -> Any:
    """What a contract says of labels. proposed_by: from what the table follows beside the truth, such as a model."""
    if not synonyms and proposed_by is None:
        return "equal text"
    table = {"synonyms": {name: list(others) for name, others in synonyms.items()}}
    return table if proposed_by is None else {**table, PROPOSED_BY: dict(proposed_by)}


def synonyms_in(contract: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    """The table of synonyms that a contract names, empty without one."""
    labels = contract.get("labels")
    found: Mapping[str, Sequence[str]] = labels.get("synonyms", {}) if isinstance(labels, Mapping) else {}
    return found


def proposed_in(contract: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """From what the table of synonyms of a contract follows; None for one that was given."""
    labels = contract.get("labels")
    found: Mapping[str, Any] | None = labels.get(PROPOSED_BY) if isinstance(labels, Mapping) else None
    return found


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two contracts: "decoding.coordinates: argmax against expectation".

    A table of synonyms that was proposed holds the labels that one model has said, and the same rule gives another
    model's answers another table: of such contracts the rules are compared.
    """
    return _differences(_with_rule(a), _with_rule(b), "")


def _with_rule(contract: Mapping[str, Any]) -> Mapping[str, Any]:
    rule = proposed_in(contract)
    return contract if rule is None else {**contract, "labels": {PROPOSED_BY: rule}}


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], path: str) -> Iterator[str]:
    for key in [*a, *(item for item in b if item not in a)]:
        where = f"{path}.{key}" if path else key
        ours, theirs = a.get(key, _ABSENT), b.get(key, _ABSENT)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            yield from _differences(ours, theirs, where)
        elif ours != theirs:
            yield f"{where}: {_shown(ours)} against {_shown(theirs)}"


_ABSENT = object()


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
