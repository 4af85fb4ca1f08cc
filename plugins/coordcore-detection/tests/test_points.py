"""Points: pairs, distances, ScreenSpot's rule, what box metrics make of them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from evaluation_support import header, truth
from typer.testing import CliRunner

from coordcore import InputError
from coordcore.cli import app
from coordcore_detection.evaluate import results
from coordcore_detection.evaluate.compare import compare
from coordcore_detection.evaluate.evaluation import evaluate
from coordcore_detection.evaluate.radius import Radius
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.predictions import Box, Row

Given = tuple[str, float, float]


def points(key: str, *given: Given) -> TruthImage:
    return attrs.evolve(truth(key, []), points=given, kinds=frozenset(["point"]))


def answer(key: str, *given: Given, scores: Sequence[float] | None = None) -> Row:
    boxes = [
        Box(label=label, box=(x, y, x, y), bins=(0, 0, 0, 0), score=score, kind="point", points=[x, y])
        for (label, x, y), score in zip(given, scores or [0.5] * len(given), strict=True)
    ]
    return Row(image=key, width=100, height=100, text="", boxes=boxes)


def measured(images: list[TruthImage], rows: list[Row], **options: Any) -> dict[str, float | None]:
    return evaluate(images, header(), rows, **options).result.metrics


def test_f1_and_distance_by_hand() -> None:
    images = [points("a", ("eye", 10, 10), ("eye", 20, 10), ("nose", 50, 50))]
    # Of the eyes, 3 to the first, 6 to the second, and one that is left; the nose has another label.
    rows = [answer("a", ("eye", 10, 13), ("eye", 20, 16), ("eye", 90, 90), ("ear", 50, 50))]
    found = measured(images, rows)

    assert found["point_precision"] == pytest.approx(1 / 4)  # 5 % of 100 pixels
    assert found["point_recall"] == pytest.approx(1 / 3)
    assert found["point_F1"] == pytest.approx(2 / 7)
    assert found["point_distance"] == pytest.approx(4.5)
    assert found["agnostic_point_F1"] == pytest.approx(4 / 7)
    assert measured(images, rows, radius="6px")["point_F1"] == pytest.approx(4 / 7)
    assert measured(images, rows, radius="2.9%")["point_F1"] == 0


def test_a_point_has_one_pair() -> None:
    found = measured([points("a", ("eye", 10, 10))], [answer("a", ("eye", 11, 10), ("eye", 10, 10))])

    assert (found["point_recall"], found["point_precision"], found["point_distance"]) == (1, 0.5, 0)


def test_what_is_no_point_is_a_mistake_and_no_crash() -> None:
    found = measured([points("a", ("eye", 10, 10))], [answer("a", ("eye", math.nan, 10), ("eye", 11, 10))])
    assert (found["point_recall"], found["point_precision"], found["point_distance"]) == (1, 0.5, 1)
    row = answer("a", ("eye", 10, 10))
    row.boxes[0].kind, row.boxes[0].points = "cube", [1.0, 2.0, 3.0]
    quad = attrs.evolve(truth("a", [("eye", (0, 0, 9, 9))]), outlines={0: np.array([[0, 0], [9, 0], [9, 9], [0, 9.0]])})
    assert measured([quad], [row])["shape_AP"] == 0


def test_many_points_take_no_time() -> None:
    many = [("eye", float(k % 97), float(k % 89)) for k in range(1500)]
    assert measured([points("a", *many)], [answer("a", *many)])["point_F1"] == 1


@pytest.mark.parametrize(
    ("text", "side", "expected"), [("5%", 200, 10), ("12px", 200, 12), (" 2.5 px", 200, 2.5), ("100%", 640, 640)]
)
def test_a_radius_says_its_unit(text: str, side: int, expected: float) -> None:
    assert Radius.read(text).of((side, 50)) == expected


@pytest.mark.parametrize("text", ["5", "0px", "-1px", "px", "5 %%", "nan%", "1e3px", "", "0.0%"])
def test_a_radius_that_is_none(text: str) -> None:
    with pytest.raises(InputError, match="is no radius above 0; write pixels, 12px, or percent of the longer side, 5%"):
        Radius.read(text)


BUTTON = (10.0, 10.0, 30.0, 20.0)


def test_the_rule_of_screenspot() -> None:
    """One target: the point of highest score must lie inside, edges included. Without a point it is missed."""
    images = [truth(key, [("ok", BUTTON)]) for key in "abcd"]
    rows = [
        answer("a", ("ok", 30, 20)),
        answer("b", ("ok", 30.1, 20)),
        answer("c", ("ok", 90, 90), ("ok", 20, 15), scores=[0.2, 0.7]),
        answer("d"),
    ]
    found = measured(images, rows)

    assert found["point_accuracy"] == pytest.approx(2 / 4)
    assert found["point_inside"] == pytest.approx(2 / 4)
    assert (found["point_F1"], found["point_distance"]) == (None, None)


def test_a_picture_whose_region_is_answered_with_a_box_was_not_to_be_pointed_at() -> None:
    boxed = Box(label="cup", box=(1, 1, 9, 9), bins=(0, 0, 0, 0), score=0.5)
    images = [truth("a", [("cup", (0, 0, 10, 10))]), truth("b", [("cup", (0, 0, 10, 10))])]
    rows = [Row(image="a", width=100, height=100, text="", boxes=[boxed]), answer("b", ("cup", 5, 5))]
    assert measured(images, rows)["point_accuracy"] == 1
    nothing = Row(image="a", width=100, height=100, text="", boxes=[])
    assert measured(images, [nothing, rows[1]])["point_accuracy"] == 0.5


def test_of_a_mixed_file_only_what_asks_to_point_is_counted() -> None:
    """Phrases are answered with boxes, and an empty answer to one misses no point."""
    refer = [attrs.evolve(truth(key, [("cup", (0, 0, 10, 10))]), task="refer") for key in "abc"]
    boxed = Box(label="cup", box=(1, 1, 9, 9), bins=(0, 0, 0, 0), score=0.5)
    said = [Row(image="a", width=100, height=100, text="", boxes=[boxed]), answer("b")]  # and nothing to c
    asked = attrs.evolve(points("d", ("eye", 10, 10)), task="point")
    found = measured([*refer, asked], [*said, answer("d", ("eye", 10, 10))])
    assert (found["point_accuracy"], found["agnostic_point_accuracy"], found["point_F1"]) == (None, None, 1)

    stray = measured([*refer, asked], [*said, answer("c", ("cup", 50, 50)), answer("d", ("eye", 10, 10))])
    assert stray["point_accuracy"] is None

    clicks = [truth(key, [("ok", BUTTON)]) for key in "de"]  # ScreenSpot's, beside the phrases
    found = measured([*refer, *clicks], [*said, answer("d", ("ok", 15, 15)), answer("e")])
    assert found["point_accuracy"] == 0.5


def test_phrases_that_are_answered_with_points_are_screenspots() -> None:
    images = [attrs.evolve(truth(key, [("ok", BUTTON)]), task="refer") for key in "abc"]
    found = measured(images, [answer("a", ("ok", 15, 15)), answer("b", ("ok", 90, 15)), answer("c")])
    assert found["point_accuracy"] == pytest.approx(1 / 3)


def test_who_never_points_where_points_are_has_missed() -> None:
    asked = [points("a", ("eye", 10, 10)), truth("b", [("ok", BUTTON)])]
    assert measured(asked, [answer("a"), answer("b")])["point_accuracy"] == 0


def test_labels_count_unless_they_are_not_looked_at() -> None:
    found = measured([truth("a", [("ok", BUTTON), ("no", (50, 50, 60, 60))])], [answer("a", ("no", 20, 15))])

    assert (found["point_inside"], found["agnostic_point_inside"]) == (0, 1)
    assert found["point_accuracy"] is None


def test_points_are_no_boxes() -> None:
    images = [truth("a", [("ok", BUTTON)]), points("b", ("eye", 10, 10))]
    box = Box(label="ok", box=BUTTON, bins=(0, 0, 0, 0), score=0.9)
    rows = [answer("a", ("ok", 15, 15)), answer("b", ("eye", 10, 10))]
    rows[0].boxes.insert(0, box)
    result = evaluate(images, header(), rows).result

    assert (result.metrics["AP"], result.metrics["F1"]) == pytest.approx((1, 1))
    assert (result.counts["true_boxes"], result.counts["predicted_boxes"]) == (1, 1)
    assert (result.counts["true_points"], result.counts["predicted_points"]) == (1, 2)
    assert (result.metrics["point_F1"], result.metrics["point_accuracy"]) == (pytest.approx(2 / 3), 1)


def test_points_alone_leave_box_metrics_without_a_value() -> None:
    result = evaluate([points("a", ("eye", 10, 10))], header(), [answer("a", ("eye", 10, 10))]).result

    assert (result.metrics["AP"], result.metrics["F1"], result.metrics["mean_iou"]) == (None, None, None)
    assert result.contract["point_radius"] == "5%"
    assert not any("holds no boxes" in note for note in result.notes)


def test_compare_resamples_them(tmp_path: Path) -> None:
    images = [points(str(index), ("eye", 10, 10)) for index in range(5)]
    for name, x in (("a", 10), ("b", 40)):
        result = evaluate(images, header(), [answer(image.key, ("eye", x, 10)) for image in images]).result
        results.write(result, tmp_path / f"{name}.json")
    lines = {line.metric: line for line in compare(*(results.read(tmp_path / f"{name}.json") for name in "ab")).lines}

    assert (lines["point_F1"].a, lines["point_F1"].b, lines["point_F1"].difference_interval) == (1, 0, (-1, -1))
    assert lines["point_distance"].difference == pytest.approx(30)
    assert math.isclose(lines["point_distance"].b or 0, 30)


def test_another_radius_is_another_contract() -> None:
    images, rows = [points("a", ("eye", 10, 10))], [answer("a", ("eye", 10, 10))]
    with pytest.raises(InputError, match="point_radius: 5% against 3px"):
        compare(evaluate(images, header(), rows).result, evaluate(images, header(), rows, radius="3px").result)


def test_answers_of_other_tools(tmp_path: Path) -> None:
    """Qwen's points against the boxes of a screen, from the command line."""
    record = {
        "images": ["a.png"],
        "width": 200,
        "height": 100,
        "objects": [{"desc": "ok", "bbox_2d": [20, 10, 60, 20]}],
    }
    (tmp_path / "screen.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "answers.jsonl").write_text(
        json.dumps({"image": "a.png", "response": '[{"point_2d": [150, 150], "label": "ok"}]'}) + "\n"
    )
    command = ["eval", *(str(tmp_path / name) for name in ("answers.jsonl", "screen.jsonl")), "--space", "pixel"]
    done = CliRunner().invoke(app, [*command, "--numbers", "qwen_1000", "--json"])

    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["metrics"]["point_accuracy"] == 1
    shown = CliRunner().invoke(app, [*command, "--numbers", "qwen_1000"])
    assert "0 true points, 1 predicted" in shown.output
    wrong = CliRunner().invoke(app, [*command, "--numbers", "qwen_1000", "--radius", "5"])
    assert "--radius: '5' is no radius" in wrong.output
