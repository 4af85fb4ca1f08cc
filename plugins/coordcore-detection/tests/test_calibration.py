"""Calibration: fitting, applying, and the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from evaluation_support import header, truth

from coordcore import InputError
from coordcore_detection.evaluate import calibration
from coordcore_detection.evaluate.calibration import Calibration, Method, fit, fit_to_predictions
from coordcore_detection.evaluate.gather import Account
from coordcore_detection.predict.predictions import Box, Row


def boxes(count: int = 4000) -> tuple[Any, Any]:
    """Scores that are far too low: a box of score s is right with probability sqrt(s)."""
    generator = np.random.default_rng(0)
    scores = generator.uniform(0, 1, count)
    return scores, generator.uniform(0, 1, count) < np.sqrt(scores)


@pytest.mark.parametrize("method", get_args(Method))
def test_a_fitted_score_is_the_share_of_right_boxes(method: Method) -> None:
    scores, right = boxes()
    fitted = fit(scores, right, method=method, name="min", iou=0.5)
    apply = np.vectorize(fitted.apply)
    fresh = np.linspace(0.05, 0.95, 19)
    assert np.abs(fresh - np.sqrt(fresh)).max() > 0.2
    assert np.abs(apply(fresh) - np.sqrt(fresh)).max() < 0.08


@pytest.mark.parametrize("method", get_args(Method))
def test_it_never_falls(method: Method) -> None:
    scores, right = boxes(200)
    fitted = fit(scores, right, method=method, name="min", iou=0.5)
    values = [fitted.apply(item) for item in np.linspace(0, 1, 101)]
    assert values == sorted(values)


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("right", [True, False])
def test_boxes_that_are_all_alike(method: Method, right: bool) -> None:
    fitted = fit(np.linspace(0, 1, 30), np.full(30, right), method=method, name="min", iou=0.5)
    assert (fitted.apply(0.5) > 0.9, fitted.apply(0.5) < 0.1) == (right, not right)


@pytest.mark.parametrize("method", get_args(Method))
def test_scores_of_0_and_1_and_one_score_for_all(method: Method) -> None:
    for scores in ([0.0] * 10 + [1.0] * 10, [0.5] * 20):
        fitted = fit(scores, [False] * 10 + [True] * 10, method=method, name="min", iou=0.5)
        assert 0.0 <= fitted.apply(0.0) <= fitted.apply(1.0) <= 1.0


def test_too_few_boxes_are_refused() -> None:
    with pytest.raises(InputError, match="needs at least 20 boxes, got 3; predict more images"):
        fit([0.1, 0.2, 0.3], [True, True, False], method="isotonic", name="min", iou=0.5)


# --- predictions ----------------------------------------------------------------------------------------------------

HERE, THERE = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)


def scene() -> tuple[list[Any], list[Row]]:
    """20 images with one "a" at HERE: half of the predictions find it, with the higher `min`."""
    truths = [truth(f"{k}.png", [("a", HERE)]) for k in range(20)]
    rows = []
    for k in range(20):
        found = k % 2 == 0
        box = Box(
            label="a",
            box=HERE if found else THERE,
            bins=(0, 0, 1, 1),
            score=0.3,
            scores={"min": 0.8 if found else 0.2, "near": 0.3},
        )
        rows.append(Row(image=f"{k}.png", width=100, height=100, text="", boxes=[box]))
    return truths, rows


def test_the_raw_score_is_fitted_whatever_the_file_was_ranked_by() -> None:
    truths, rows = scene()
    fitted = fit_to_predictions(truths, header(score="near"), rows, method="isotonic", score="min")
    assert (fitted.boxes, fitted.right, fitted.apply(0.8), fitted.apply(0.2)) == (20, 10, 1.0, 0.0)


def test_boxes_without_that_score_are_left_out() -> None:
    truths, rows = scene()
    with pytest.raises(InputError, match="needs at least 20 boxes, got 0"):
        fit_to_predictions(truths, header(), rows, method="isotonic", score="entropy")


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(InputError, match=r"score must be one of geometric_mean, min, .*, got 'best'"):
        fit_to_predictions([], header(), [], method="isotonic", score="best")


# --- file -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", get_args(Method))
def test_a_file_gives_back_what_was_written(tmp_path: Path, method: Method) -> None:
    scores, right = boxes(50)
    fitted = fit(scores, right, method=method, name="min", iou=0.5)
    calibration.write(fitted, tmp_path / "deep" / "calibration.json")
    assert calibration.read(tmp_path / "deep" / "calibration.json") == fitted


GOOD = '"calibration": 1, "method": "isotonic", "score": "min", "iou": 0.5, "boxes": 30, "right": 3'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "is no calibration"),
        ("{}", "is no calibration .*missing required field"),
        (f'{{{GOOD}, "x": [0, 1], "y": [0]}}', "x and y must hold as many numbers each"),
        (f'{{{GOOD}, "x": [1, 0], "y": [0, 1]}}', "x rising"),
        (f'{{{GOOD.replace("min", "best")}, "x": [0], "y": [0]}}', "score must be one of"),
        (f'{{{GOOD.replace("isotonic", "temperature")}, "temperature": 0}}', "temperature must be > 0, got 0"),
        (f'{{{GOOD.replace("1,", "9,", 1)}, "x": [0], "y": [0]}}', "format 9 is not 1; fit it again"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"calibration.json: .*{message}"):
        calibration.read(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: cannot be read: no such file"):
        calibration.read(tmp_path / "none.json")


def test_as_dict_is_what_a_header_holds() -> None:
    fitted = Calibration(
        calibration=1, method="temperature", score="min", iou=0.5, boxes=30, right=3, temperature=2.0, bias=0.5
    )
    assert fitted.as_dict()["temperature"] == 2.0


def test_what_does_not_fit_is_noted() -> None:
    box = Box(label="a", box=(0, 0, 10, 10), bins=(0, 0, 1, 1), score=0.5, scores={"min": 0.5})
    images = [truth(f"{k}.png", [("a", (0, 0, 10, 10))]) for k in range(22)]
    rows = [Row(image=f"{k}.png", width=100, height=100, text="", boxes=[box]) for k in range(21)]
    account = Account()
    fit_to_predictions(images, header(), rows, method="isotonic", score="min", account=account)
    assert account.notes == ["1 images have no prediction: counted as empty answers ('21.png')"]
