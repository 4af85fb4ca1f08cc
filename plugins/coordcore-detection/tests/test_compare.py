"""Two evaluations side by side: the resampled metrics, the intervals, and contracts that differ."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_support import header, random_scene, row
from typer.testing import CliRunner

from coordcore import InputError
from coordcore.cli import app
from coordcore_detection.evaluate import resampling, results
from coordcore_detection.evaluate.compare import Line, compare, restricted
from coordcore_detection.evaluate.evaluation import evaluate
from coordcore_detection.evaluate.results import Result
from coordcore_detection.evaluate.truth import TruthImage

SIZE = 1000
KEYS = [f"{index}.png" for index in range(12)]


def evaluated(seed: int, *, shift: float = 0.0, images: Sequence[int] = range(12), **changes: Any) -> Result:
    """A random scene evaluated, its predictions moved to the right; of these of its images, which may be repeated."""
    truth, crowd, predicted, scores = random_scene(seed)
    truths, rows = [], []
    for place, index in enumerate(images):
        key = KEYS[index] if list(images).count(index) == 1 else f"{KEYS[index]}, {place}"
        mine, theirs = truth.image == index, predicted.image == index
        truths.append(
            TruthImage(
                key=key,
                width=SIZE,
                height=SIZE,
                labels=tuple(str(label) for label in truth.label[mine]),
                boxes=truth.boxes[mine],
                crowd=crowd[mine],
                open=lambda: pytest.fail("no picture is needed"),
            )
        )
        boxes = (predicted.boxes[theirs] + np.array([shift, 0, shift, 0])).tolist()
        given = [(str(label), tuple(box)) for label, box in zip(predicted.label[theirs], boxes, strict=True)]
        rows.append(row(key, given, scores[theirs].tolist(), width=SIZE, height=SIZE))
    return evaluate(truths, header(**changes), rows).result


def values(found: Mapping[str, Any], names: Iterable[str]) -> list[float]:
    """The named metrics (of the first resample), NaN where there is no value."""
    return [math.nan if found[name] is None else float(np.ravel(found[name])[0]) for name in names]


@pytest.fixture(scope="module")
def base() -> Result:
    return evaluated(0)


# --- resampling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 5, 6])
def test_weights_of_one_give_the_metrics_themselves(seed: int) -> None:
    made = evaluated(seed)
    found = resampling.resampled(made.detail, np.ones((1, 12)))
    assert values(found, found) == pytest.approx(values(made.metrics, found), abs=1e-9, nan_ok=True)


def test_an_image_of_weight_two_counts_as_two(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = random_scene(1)
    # Of equal scores, COCO would take those of an image and its copy in turn.
    distinct = np.random.default_rng(1).permutation(len(scene[3])) / len(scene[3])
    monkeypatch.setattr(f"{__name__}.random_scene", lambda seed: (*scene[:3], distinct))
    drawn = [0, 2, 2, 3, 5, 5, 5, 6, 9, 10, 11, 11]
    found = resampling.resampled(evaluated(1).detail, np.bincount(drawn, minlength=12)[None].astype(float))
    expected = evaluated(1, images=drawn).metrics
    assert values(found, found) == pytest.approx(values(expected, found), abs=1e-9, nan_ok=True)


def test_a_resample_without_true_boxes_has_no_ap(base: Result) -> None:
    weights = np.zeros((2, 12))
    weights[0, 11] = 12.0  # the image without boxes
    weights[1, 0] = 12.0
    found = resampling.average_precisions(base.detail, weights, by_label=True)["AP"]
    assert np.isnan(found).tolist() == [True, False]


def test_resampling_in_small_steps_gives_the_same(base: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=5).astype(float)
    whole = resampling.resampled(base.detail, weights)
    monkeypatch.setattr(resampling, "_CELLS_AT_ONCE", 1)
    steps = resampling.resampled(base.detail, weights)
    np.testing.assert_allclose(list(steps.values()), list(whole.values()), rtol=1e-12)


# --- comparing ------------------------------------------------------------------------------------------------------


def lines(found: Any) -> dict[str, Line]:
    return {line.metric: line for line in found.lines}


def test_a_result_against_itself_differs_nowhere(base: Result) -> None:
    found = compare(base, base, resamples=20)
    assert {line.difference for line in found.lines} <= {0.0, None}
    assert {line.difference_interval for line in found.lines} <= {(0.0, 0.0), None}
    assert not any(line.is_clear for line in found.lines)


def test_boxes_moved_aside_are_clearly_worse(base: Result) -> None:
    found = lines(compare(base, evaluated(0, shift=30.0), resamples=200))
    assert (found["mean_iou"].is_clear, found["agnostic_AP"].is_clear) == (True, True)
    low, high = found["mean_iou"].difference_interval or (0.0, 0.0)
    assert low < (found["mean_iou"].difference or 0.0) < high < 0.0


def test_the_difference_is_paired(base: Result) -> None:
    line = lines(compare(base, evaluated(0, shift=1.0), resamples=200))["mean_iou"]
    assert line.a_interval is not None
    assert line.difference_interval is not None
    assert np.ptp(line.difference_interval) < np.ptp(line.a_interval) / 2


def test_values_are_those_of_the_results(base: Result) -> None:
    other = evaluated(0, shift=2.0)
    found = lines(compare(base, other, resamples=2))
    assert {name: (line.a, line.b) for name, line in found.items()} == {
        name: (pytest.approx(base.metrics[name]), pytest.approx(other.metrics[name])) for name in base.metrics
    }


def test_the_seed_decides(base: Result) -> None:
    other = evaluated(0, shift=2.0)
    first, same, another = (
        lines(compare(base, other, resamples=20, seed=seed))["F1"].difference_interval for seed in (1, 1, 2)
    )
    assert first == same
    assert first != another


def test_different_contracts_are_refused(base: Result) -> None:
    with pytest.raises(InputError) as error:
        compare(base, evaluated(0, score="geometric_mean"), resamples=2)
    assert str(error.value) == (
        "the two evaluations stand under different contracts, so their numbers do not compare:\n"
        "  score: min against geometric_mean\n"
        "evaluate both in one way, or compare them all the same with --force"
    )


def test_force_compares_and_keeps_the_differences(base: Result) -> None:
    found = compare(base, evaluated(0, score="geometric_mean"), resamples=2, force=True)
    assert found.differences == ("score: min against geometric_mean",)


def test_forced_results_are_compared_on_common_images(base: Result) -> None:
    fewer = evaluated(0, images=[7, 3, 1])
    found = compare(base, fewer, resamples=20, force=True)
    assert (found.images, found.only_a, found.only_b) == (3, 9, 0)
    assert max(abs(line.difference or 0.0) for line in found.lines) < 1e-12
    assert "AP_small" not in lines(found)


def test_results_of_other_images_do_not_compare(base: Result) -> None:
    with pytest.raises(
        InputError, match=r"no image is in both: the first begins with '0.png', the second with '3.png'"
    ):
        compare(evaluated(0, images=[0, 1]), evaluated(0, images=[3]), resamples=2, force=True)


def test_restricting_to_all_images_in_another_order_changes_no_metric(base: Result) -> None:
    turned = restricted(base.detail, KEYS[::-1])
    names = ("F1", "mean_iou", "ece", "agnostic_F1_95", "box_count_error")
    found = resampling.resampled(turned, np.ones((1, 12)))
    assert values(found, names) == pytest.approx(values(base.metrics, names))


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Result) -> Path:
    """The working directory with a.json, run/eval/detection/evaluation.json and other.json (of another score)."""
    monkeypatch.chdir(tmp_path)
    results.write(base, Path("a.json"))
    results.write(evaluated(0, shift=30.0), Path("run/eval/detection/evaluation.json"))
    results.write(evaluated(0, score="entropy"), Path("other.json"))
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["compare", *arguments, "--resamples", "20"])


@pytest.mark.usefixtures("folder")
def test_the_command_shows_both() -> None:
    shown = run("a.json", "run")
    assert shown.exit_code == 0, shown.output
    (line,) = [splitline.split() for splitline in shown.stdout.splitlines() if splitline.startswith("mean_iou")]
    assert (len(line), line[5], line[-1]) == (8, "..", "*")
    assert "12 images in both, drawn anew 20 times" in shown.stdout


@pytest.mark.usefixtures("folder")
def test_the_command_refuses_different_contracts() -> None:
    shown = run("a.json", "other.json")
    assert (shown.exit_code, "  score: min against entropy" in shown.stderr) == (2, True)
    assert "a.json and other.json: the two evaluations" in shown.stderr


@pytest.mark.usefixtures("folder")
def test_the_command_shows_what_was_overruled() -> None:
    assert "different contracts: score: min against entropy" in run("a.json", "other.json", "--force").stdout


def test_the_command_writes_json(folder: Path) -> None:
    printed = json.loads(run("a.json", "run", "--json", "--output", "both.json").stdout)
    assert printed == json.loads((folder / "both.json").read_text())
    assert (printed["a"], printed["b"], printed["images"]) == ("a.json", "run", 12)


def test_a_result_that_lacks_a_metric_is_refused(base: Result) -> None:
    other = evaluated(0)
    del other.metrics["agnostic_AP75"]

    with pytest.raises(InputError, match="not both hold agnostic_AP75; evaluate the predictions again"):
        compare(base, other, resamples=2)


def test_nothing_steers_the_terminal(tmp_path: Path) -> None:
    result = evaluated(1)
    result.checkpoint = "a\x9b2J"
    results.write(result, tmp_path / "a.json")
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "a.json"), str(tmp_path / "a.json"), "--resamples", "2"])

    assert r"a\x9b2J" in done.stdout
