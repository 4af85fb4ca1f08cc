"""Results of an evaluation: metrics, the contract they stand under, and what every box came to. Torch-free.

The file is JSON. Its last key, `detail`, holds one number per box: `coordcore compare` resamples images from it.
"""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from coordcore import InputError
from coordcore.files import require_regular, write_whole
from coordcore_detection.evaluate.matching import IOU_THRESHOLDS, Matches
from coordcore_detection.evaluate.metrics import Found, Images
from coordcore_detection.evaluate.points import COUNTED

OUTLINE = "shape_"
"""In front of a metric's name: outlines overlap, and not the boxes around them."""

VERSION = 1
FILE = "evaluation.json"


class Outcome(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What became of each predicted box, as in `matching.Matches`, and `hit` of each image, as in `metrics.Found`."""

    iou: list[float]
    in_crowd: list[float]
    found: list[int]
    ignored: list[int]
    hit: list[bool]


class Detail(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The evaluation box by box.

    images: their keys. labels: by id. truth_image, truth_label: of each true box, crowd regions aside. unread,
    unfinished: per image. image, label, score, duplicate: of each predicted box; a score is null where there is none.
    by_outline, agnostic_by_outline: of the same boxes by their outlines, where the truth has any. points: what
    `points.per_image` counts, per image, where there are points.
    """

    images: list[str]
    labels: list[str]
    truth_image: list[int]
    truth_label: list[int]
    unread: list[bool]
    unfinished: list[bool]
    image: list[int]
    label: list[int]
    score: list[float | None]
    duplicate: list[bool]
    by_label: Outcome
    agnostic: Outcome
    by_outline: Outcome | msgspec.UnsetType = msgspec.UNSET
    agnostic_by_outline: Outcome | msgspec.UnsetType = msgspec.UNSET
    points: dict[str, list[float]] | msgspec.UnsetType = msgspec.UNSET

    @property
    def outcomes(self) -> dict[str, tuple[Outcome, Outcome]]:
        """Prefix of a metric's name -> what it is measured from, with and without labels."""
        found = {"": (self.by_label, self.agnostic)}
        if self.by_outline and self.agnostic_by_outline:
            found[OUTLINE] = (self.by_outline, self.agnostic_by_outline)
        return found


class Result(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One evaluation.

    evaluation: VERSION. checkpoint: what was asked. contract: see `coordcore_detection.evaluate.contract`. metrics: by
    name, null where the ground truth gives no value. counts: what was read, left out or repaired; notes say so in
    words. caveats: what distorts AP, to be said beside it. labels: AP by label, most boxes first.
    tasks: the figures of each task of the records by its own measure, `contract.tasks` says which; left out where all
    records are detection.
    calibration, curves: by "by_label" and "agnostic", as in `metrics.calibration_table` and `AveragePrecision.curve`.
    """

    evaluation: int
    checkpoint: str
    contract: dict[str, Any]
    metrics: dict[str, float | None]
    counts: dict[str, int]
    notes: list[str]
    labels: list[dict[str, Any]]
    calibration: dict[str, list[dict[str, float]]]
    curves: dict[str, dict[str, list[float]]]
    caveats: list[str] = []
    tasks: dict[str, dict[str, float | None]] | msgspec.UnsetType = msgspec.UNSET
    detail: Detail


def found(outcome: Outcome) -> Found:
    return Found(
        iou=np.array(outcome.iou, dtype=np.float64),
        in_crowd=np.array(outcome.in_crowd, dtype=np.float64),
        hit=np.array(outcome.hit, dtype=bool),
    )


def outcome(matches: Matches, hit: Any) -> Outcome:
    found, ignored = matches.of_all_sizes()
    return Outcome(
        iou=matches.iou.tolist(),
        in_crowd=matches.in_crowd.tolist(),
        found=found.tolist(),
        ignored=ignored.tolist(),
        hit=hit.tolist(),
    )


def images(detail: Detail) -> Images:
    """What `metrics.per_image` counts."""
    truth = np.bincount(np.array(detail.truth_image, dtype=np.int64), minlength=len(detail.images))
    return Images(
        truth=truth,
        alone=truth == 1,
        unread=np.array(detail.unread, dtype=bool),
        unfinished=np.array(detail.unfinished, dtype=bool),
        image=np.array(detail.image, dtype=np.int64),
        score=np.array(detail.score, dtype=np.float64),  # null becomes NaN
        duplicate=np.array(detail.duplicate, dtype=bool),
    )


def task_figures(result: Result) -> dict[str, float | None]:
    """The figures of all tasks under one name each, "refer_accuracy_50"."""
    tasks = {} if isinstance(result.tasks, msgspec.UnsetType) else result.tasks
    return {f"{task}_{name}": value for task, figures in tasks.items() for name, value in figures.items()}


def summary(result: Result) -> dict[str, Any]:
    """The result without its detail, as plain values."""
    plain: dict[str, Any] = msgspec.to_builtins(result)
    del plain["detail"]
    return plain


def as_json(result: Result) -> str:
    """The result without its detail, indented."""
    return msgspec.json.format(msgspec.json.encode(summary(result)), indent=2).decode()


def write(result: Result, path: Path) -> None:
    """Write `result` whole or not at all. Raises InputError when that is not possible."""
    head = as_json(result).removesuffix("\n}")
    write_text(f'{head},\n  "detail": {msgspec.json.encode(result.detail).decode()}\n}}\n', path)


def write_text(text: str, path: Path) -> None:
    """Write a file whole or not at all, with its folder. Raises InputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error


def file_in(path: Path) -> Path:
    """The evaluation file that `path` speaks of: itself, or the one of a folder or run folder. Raises InputError.

    Of a run that of `[eval.detection]`, or of another evaluator that is the only one to leave such a file.
    """
    if not path.is_dir():
        return path
    for file in (path / FILE, path / "eval" / "detection" / FILE):
        if file.is_file():
            return file
    others = sorted(path.glob(f"eval/*/{FILE}"))
    if len(others) == 1:
        return others[0]
    if others:
        raise InputError(f"{path}: holds {' and '.join(str(file.relative_to(path)) for file in others)}; name one")
    raise InputError(
        f"{path}: holds neither {FILE} nor eval/detection/{FILE}; `coordcore eval PREDICTIONS RECORDS --output "
        "FILE` writes such a file"
    )


def read(path: Path) -> Result:
    """The result in `path`: a file, an evaluation's folder or a run folder. Raises InputError."""
    file = file_in(path)
    try:
        require_regular(file)
        result = msgspec.json.decode(file.read_bytes(), type=Result)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{file}: is no evaluation ({error}); `coordcore eval` writes them with --output") from error
    if result.evaluation != VERSION:
        raise InputError(
            f"{file}: has evaluation format {result.evaluation}, this coordcore-detection reads {VERSION}; "
            "evaluate the predictions again"
        )
    if not (_is_consistent(result.detail) and _is_complete(result)):
        raise InputError(f"{file}: is incomplete, or its columns do not fit together; evaluate the predictions again")
    return result


def _is_complete(result: Result) -> bool:
    """Whether the keys are there that reports and tables read."""
    row = {"label", "true_boxes", "predicted_boxes", "AP", "AP50"}
    return (
        {"images", "true_boxes", "predicted_boxes"} <= result.counts.keys()
        and {"quantisation", "truth", "max_detections"} <= result.contract.keys()
        and all(row <= label.keys() for label in result.labels)
    )


def _is_consistent(detail: Detail) -> bool:
    both = [item for pair in detail.outcomes.values() for item in pair]
    per_image: list[Sized] = [detail.unread, detail.unfinished, *(item.hit for item in both)]
    per_box: list[Sized] = [detail.label, detail.score, detail.duplicate]
    per_box += [column for item in both for column in (item.iou, item.in_crowd, item.found, item.ignored)]
    count = len(detail.images)
    per_image += (detail.points or {}).values()
    masks = [mask for item in both for column in (item.found, item.ignored) for mask in column]
    return (
        all(0 <= mask < 1 << len(IOU_THRESHOLDS) for mask in masks)
        and all(len(column) == count for column in per_image)
        and (not detail.points or detail.points.keys() == set(COUNTED))
        and (not detail.by_outline) is (not detail.agnostic_by_outline)
        and all(len(column) == len(detail.image) for column in per_box)
        and len(detail.truth_label) == len(detail.truth_image)
        and all(0 <= item < count for item in (*detail.image, *detail.truth_image))
        and all(0 <= item < len(detail.labels) for item in (*detail.label, *detail.truth_label))
    )
