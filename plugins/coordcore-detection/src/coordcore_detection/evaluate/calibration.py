"""Calibration: from a raw score to the share of boxes with that score that are right. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec
import numpy as np

from coordcore.errors import InputError
from coordcore.files import require_regular, write_whole
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.predictions import Header, Row
from coordcore_detection.predict.scores import SCORES

if TYPE_CHECKING:
    from coordcore_detection.evaluate.gather import Account
    from coordcore_detection.evaluate.synonyms import Synonyms

Array = np.ndarray[Any, np.dtype[np.float64]]

Method = Literal["isotonic", "temperature"]

VERSION = 1
LEAST_BOXES = 20

_EDGE = 1e-6  # logits of 0 and 1 are infinite


class Calibration(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A fitted calibration, as it lies in its JSON file and in the header of predictions.

    method: "isotonic", through the points (x, y) and straight between them; or "temperature",
    sigmoid(logit(score) / temperature + bias). score: the raw score it reads. iou: from which IoU with a true box of
    the same label on a box counted as right. boxes, right: how many it was fitted to, and how many of them were right.
    """

    calibration: int
    method: Method
    score: str
    iou: float
    boxes: int
    right: int
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    temperature: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        if self.calibration != VERSION:
            raise ValueError(f"format {self.calibration} is not {VERSION}; fit it again")
        if self.score not in SCORES:
            raise ValueError(f"score must be one of {', '.join(SCORES)}, got {self.score!r}")
        if self.method == "isotonic" and (
            len(self.x) != len(self.y) or not self.x or list(self.x) != sorted(self.x) or not _within(self.y)
        ):
            raise ValueError("x and y must hold as many numbers each, x rising, y in 0..1")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature:g}")

    def apply(self, score: float) -> float:
        """The calibrated score, in 0..1. It never falls where the raw score rises."""
        if self.method == "isotonic":
            return float(np.interp(score, self.x, self.y))
        return float(_sigmoid(_logit(np.array(score)) / self.temperature + self.bias))

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for a header."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values


def fit(
    scores: Sequence[float] | Array, right: Sequence[bool] | Any, *, method: Method, name: str, iou: float
) -> Calibration:
    """Fit to boxes: their raw scores [n], and whether each was right [n].

    Isotonic regression is scikit-learn's; temperature and bias minimise the log-loss, with a slight pull towards
    temperature 1 and bias 0 that keeps them finite when every box is right or wrong.
    Raises InputError for fewer than 20 boxes.
    """
    array, target = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if method not in get_args(Method):
        raise InputError(f"method must be {' or '.join(get_args(Method))}, got {method!r}")
    if len(array) < LEAST_BOXES:
        raise InputError(f"a calibration needs at least {LEAST_BOXES} boxes, got {len(array)}; predict more images")
    found: dict[str, Any] = {"score": name, "iou": iou, "boxes": len(array), "right": int(target.sum())}
    if method == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        model = IsotonicRegression(y_min=0.0, y_max=1.0).fit(array, target)
        points = model.X_thresholds_.tolist(), model.y_thresholds_.tolist()
        return Calibration(calibration=VERSION, method=method, x=tuple(points[0]), y=tuple(points[1]), **found)
    temperature, bias = _temperature(_logit(array), target)
    return Calibration(calibration=VERSION, method=method, temperature=temperature, bias=bias, **found)


def _temperature(logits: Array, right: Array) -> tuple[float, float]:
    from scipy.optimize import minimize

    def loss(at: Array) -> float:
        z = logits / np.exp(at[0]) + at[1]
        return float((np.logaddexp(0.0, z) - right * z).sum() + 0.5 * (at**2).sum())

    log_temperature, bias = minimize(loss, np.zeros(2), method="BFGS").x.tolist()
    return float(np.exp(log_temperature)), float(bias)


def fit_to_predictions(
    truth: Iterable[TruthImage],
    header: Header,
    rows: Iterable[Row],
    *,
    method: Method,
    score: str,
    iou: float = 0.5,
    account: Account | None = None,
    synonyms: Synonyms | None = None,
) -> Calibration:
    """Fit the raw score `score` of predictions to ground truth of the same images, best a split held out from training.

    A box is right when it is paired with a true box of its label and their IoU is at least `iou`; boxes in crowd
    regions, of labels that nobody looked for in their image (LVIS), and without a score are left out. synonyms: labels
    that count as one. account: takes note of what did not fit. Raises InputError as `fit`
    does, and when predictions and truth do not belong together.
    """
    from coordcore.quantisation import Quantisation
    from coordcore_detection.evaluate.gather import Account, Truth, by_image
    from coordcore_detection.evaluate.matching import match

    if score not in SCORES:
        raise InputError(f"score must be one of {', '.join(SCORES)}, got {score!r}")
    quantisation = Quantisation.from_dict(header.quantisation, source="the predictions' header: quantisation")
    known = Truth(truth, quantisation, synonyms)
    raw = [_with_raw(row, score) for row in rows]
    account = Account() if account is None else account
    predicted, scores = known.predicted(by_image(known, raw, account), account)
    found = match(known.flat, known.crowd, predicted, scores, by_label=True, unjudged=known.unjudged(predicted))
    judged = (found.in_crowd < iou) & (scores >= 0)
    return fit(scores[judged], found.iou[judged] >= iou, method=method, name=score, iou=iou)


def _with_raw(row: Row, score: str) -> Row:
    """The row with raw scores in place of calibrated or other ones."""
    boxes = [msgspec.structs.replace(box, score=box.scores.get(score, float("nan"))) for box in row.boxes]
    return msgspec.structs.replace(row, boxes=boxes)


def read(path: Path) -> Calibration:
    """Raises InputError naming the file."""
    try:
        require_regular(path)
        return msgspec.json.decode(path.read_bytes(), type=Calibration)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: is no calibration ({error}); `coordcore calibrate` writes them") from error


def write(calibration: Calibration, path: Path) -> None:
    """Raises InputError when the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(calibration.as_dict(), indent=2) + "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error


def _within(values: Sequence[float]) -> bool:
    return all(0.0 <= value <= 1.0 for value in values)


def _logit(scores: Array) -> Array:
    clipped = np.clip(scores, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _sigmoid(values: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-values)))
