"""`[eval.detection]`: the component, and one evaluation of a tiny checkpoint from examples to files."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import attrs
import pytest
from PIL import Image

from coordcore import BuildContext, Example, Geometry, InputError
from coordcore.coords import int_to_token
from coordcore.protocols import Evaluation
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.testing import parametrize_with_checks
from coordcore_detection import plugin
from coordcore_detection.decode.decoding import Coordinates
from coordcore_detection.evaluate import distributions, results
from coordcore_detection.evaluate.config import Coordinates as OwnCoordinates
from coordcore_detection.evaluate.config import DetectionConfig, Score
from coordcore_detection.evaluate.evaluator import COMPONENT, PREDICTIONS, DetectionEvaluator
from coordcore_detection.predict import asking, prediction_files
from coordcore_detection.predict.corners import Together
from coordcore_detection.predict.scores import SCORES
from coordcore_detection.predict.settings import PredictSettings
from coordcore_train.checkpoint.folder import read_vocab, write_checkpoint_info
from coordcore_train.testing.tiny import tiny_qwen3vl


@parametrize_with_checks(plugin)
def test_conformance(check: Any) -> None:
    check()


# --- config ---------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_predict() -> None:
    assert DetectionConfig().settings() == PredictSettings()


def test_the_names_are_those_of_predict() -> None:
    assert (set(get_args(Score)), get_args(OwnCoordinates)) == (set(SCORES), get_args(Coordinates))


def test_every_setting_reaches_predict() -> None:
    chosen: dict[str, Any] = {
        "coordinates": "argmax",
        "window": 3,
        "score": "min",
        "constrained": False,
        "max_new_tokens": 9,
        "max_objects": 3,
        "batch_size": 1,
    }
    assert DetectionConfig(**chosen).settings() == PredictSettings(**chosen)


@pytest.mark.parametrize(
    ("given", "tolerance"),
    [
        ({}, None),
        ({"parallel": "verified"}, 0),
        ({"parallel": "fast"}, 20),
        ({"parallel": "fast", "tolerance": 999}, 999),
    ],
)
def test_corners_together(given: dict[str, Any], tolerance: int | None) -> None:
    assert DetectionConfig(**given).settings() == PredictSettings(tolerance=tolerance)


@pytest.mark.parametrize(
    ("given", "share", "told"),
    [
        ({"parallel": "fast"}, 0.5, []),
        (
            {"parallel": "fast"},
            0.0,
            ["the run does not learn to say corners together; set train.parallel_boxes"],
        ),
        ({"parallel": "verified", "constrained": False}, 0.5, ["corners are proposed where the format is kept to"]),
    ],
)
def test_corners_together_want_a_run_that_learns_it(given: dict[str, Any], share: float, told: list[str]) -> None:
    run: Any = SimpleNamespace(train=SimpleNamespace(parallel_boxes=share))
    found = list(COMPONENT.check(DetectionConfig(**given), run))
    assert [problem.path for problem in found] == ["eval.detection.parallel"] * len(told)
    assert all(problem.message.startswith(text) for problem, text in zip(found, told, strict=True))


@pytest.mark.parametrize("parallel", [None, "verified"])
def test_a_tolerance_is_of_fast_answers(parallel: Any) -> None:
    run: Any = SimpleNamespace(train=SimpleNamespace(parallel_boxes=0.5))
    (problem,) = COMPONENT.check(DetectionConfig(parallel=parallel, tolerance=5), run)
    assert str(problem) == 'eval.detection.tolerance: is given with parallel = "fast"; leave it out'


def test_a_window_of_all_bins_is_none() -> None:
    assert DetectionConfig(window=999).settings() == PredictSettings(window=None)


# --- evaluation -----------------------------------------------------------------------------------------------------


def example(index: int) -> Example:
    values = (10.25, 20.0, 30.0 + index, 40.0)
    bins = ", ".join(int_to_token(int(value)) for value in values)
    return Example(
        messages=(
            {"role": "user", "content": "<image>Where?"},
            {"role": "assistant", "content": f'{{"objects": [{{"desc": "cat", "bbox_2d": [{bins}]}}]}}'},
        ),
        images=(Image.new("RGB", (64, 64), (50 * index, 0, 0)),),
        geometries=(Geometry(kind="bbox_2d", values=values),),
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    tiny_qwen3vl(folder)
    return folder


@pytest.fixture
def evaluation(checkpoint: Path, tmp_path: Path) -> Evaluation:
    output = tmp_path / "eval" / "detection"
    output.mkdir(parents=True)
    return Evaluation(
        checkpoint=checkpoint,
        output=output,
        run_dir=tmp_path,
        examples=[example(index) for index in range(4)],
        quantisation=DEFAULT_QUANTISATION,
        vocab=None,
        device="cpu",
        log=[].append,
    )


def evaluator(**settings: Any) -> DetectionEvaluator:
    config = DetectionConfig(**{"max_new_tokens": 60, "max_objects": 2, "batch_size": 2, **settings})
    context = BuildContext(run_dir=Path(), seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None)
    built: DetectionEvaluator = COMPONENT.build(config, context)
    return built


def test_a_checkpoint_is_evaluated(evaluation: Evaluation) -> None:
    found = evaluator()(evaluation)
    assert set(found.shown) >= {"AP", "AP50", "agnostic_AP50", "F1", "mean_iou", "oracle_AP"}
    assert found.metrics["oracle_AP50"] == 1.0
    assert all(math.isfinite(value) for value in found.metrics.values())
    assert found.files == [evaluation.output / "report.html"]
    written = results.read(evaluation.output)
    assert (written.counts["images"], written.checkpoint) == (4, str(evaluation.checkpoint))
    assert {name: value for name, value in written.metrics.items() if value is not None} == found.metrics


@pytest.fixture(scope="module")
def learned(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights, said to have learned corners together: what is guessed so is mostly wrong."""
    folder = shutil.copytree(checkpoint, tmp_path_factory.mktemp("learned") / "tiny")
    write_checkpoint_info(folder, quantisation=DEFAULT_QUANTISATION, vocab=read_vocab(folder), parallel_boxes=True)
    return folder


def test_corners_said_together_are_those_said_one_by_one(
    evaluation: Evaluation, learned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposers: list[Any] = []
    ask = asking.predict

    def watched(*given: Any, **settings: Any) -> Any:
        proposers.append(settings["proposer"])
        return ask(*given, **settings)

    monkeypatch.setattr(asking, "predict", watched)
    made = attrs.evolve(evaluation, checkpoint=learned)
    evaluator()(made)
    header, one_by_one = prediction_files.read(made.output / PREDICTIONS)
    shutil.rmtree(made.output)
    made.output.mkdir()
    evaluator(parallel="verified")(made)
    verified, rows = prediction_files.read(made.output / PREDICTIONS)
    assert (verified, [row.text for row in rows]) == (header, [row.text for row in one_by_one])
    evaluator(parallel="fast", tolerance=999)(made)
    fast, rows = prediction_files.read(made.output / PREDICTIONS)
    assert fast.decoding == {**header.decoding, "tolerance": 999}
    assert len(rows) == 4
    assert [type(proposer) for proposer in proposers] == [type(None), Together, Together]


def test_a_checkpoint_that_has_not_learned_it_is_told(evaluation: Evaluation) -> None:
    with pytest.raises(InputError, match=r"\[train\] parallel_boxes"):
        evaluator(parallel="fast")(evaluation)


def spoken(index: int) -> Example:
    """An example of a conversation, as chat rows have them."""
    messages = ({"role": "user", "content": "<image>Which?"}, {"role": "assistant", "content": "The red one."})
    return attrs.evolve(example(index), messages=messages, geometries=(), source=f"rows.jsonl:{index + 1}")


def test_conversations_among_the_examples_are_left_out_and_told(evaluation: Evaluation) -> None:
    told: list[str] = []
    mixed = [spoken(0), *(attrs.evolve(example(index), group="own") for index in (1, 2)), spoken(3)]
    found = evaluator()(attrs.evolve(evaluation, examples=mixed, log=told.append))
    asked = [row.image for row in prediction_files.read(evaluation.output / "predictions.jsonl")[1]]
    assert (asked, found.metrics["AP"]) == (["example-1", "example-2"], found.metrics["AP@own"])
    assert (
        "note: 2 of 4 examples are not measured, the first: rows.jsonl:1: the answer is no list of objects in "
        "CoordJSON (JSON is malformed: invalid character (byte 0)): 'The red one.'"
    ) in told


def test_as_many_as_are_asked_for_are_measured_behind_conversations(evaluation: Evaluation) -> None:
    evaluator(images=1)(attrs.evolve(evaluation, examples=[spoken(0), spoken(1), example(2), example(3)]))
    rows = prediction_files.read(evaluation.output / "predictions.jsonl")[1]
    assert [row.image for row in rows] == ["example-2"]


def test_conversations_alone_are_refused_before_the_model_is_asked(evaluation: Evaluation) -> None:
    with pytest.raises(InputError, match=r"none of the 2 examples .* rows.jsonl:1: .*hold out records"):
        evaluator()(attrs.evolve(evaluation, checkpoint=Path("none"), examples=[spoken(0), spoken(1)]))


def test_groups_of_examples_are_told_apart(evaluation: Evaluation) -> None:
    whole = evaluator()(evaluation).metrics
    groups = [attrs.evolve(example(index), group="coco" if index < 3 else "own") for index in range(4)]
    found = evaluator()(attrs.evolve(evaluation, examples=groups)).metrics
    assert {name: value for name, value in found.items() if "@" not in name} == whole
    alone = evaluator(images=3)(attrs.evolve(evaluation, examples=groups)).metrics
    assert {name for name in alone if "@" in name} == {f"{name}@coco" for name in alone if "@" not in name}
    for name in ("AP", "F1", "oracle_AP"):
        assert alone[f"{name}@coco"] == alone[name] == found[f"{name}@coco"]
    assert found["oracle_AP50@own"] == 1.0


def test_images_are_shown_in_the_size_that_their_source_trains_with(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {0: 1024, 1: 10**6, 2: None, 3: 1024}
    examples = [
        attrs.evolve(example(index), max_pixels=limit, group="own" if limit else "coco")
        for index, limit in limits.items()
    ]
    shown: list[tuple[int, int]] = []
    whole = asking._Asker._ask

    def noted(asker: Any, asked: Any, images: Any) -> Any:
        shown.extend(image.size for image in images)
        return whole(asker, asked, images)

    monkeypatch.setattr(asking._Asker, "_ask", noted)
    evaluator()(attrs.evolve(evaluation, examples=examples))
    assert shown == [(32, 32), (64, 64), (64, 64), (32, 32)]
    header, rows = prediction_files.read(evaluation.output / "predictions.jsonl")
    assert header.decoding["max_pixels"] == {"own": 10**6}
    assert {(row.width, row.height) for row in rows} == {(64, 64)}


def test_answers_about_images_of_another_size_are_not_continued(evaluation: Evaluation, asked: list[str]) -> None:
    evaluator()(evaluation)
    asked.clear()
    evaluator()(attrs.evolve(evaluation, examples=[attrs.evolve(example(k), max_pixels=1024) for k in range(4)]))
    assert len(asked) == 4


def test_some_distributions_are_kept_for_the_report(evaluation: Evaluation) -> None:
    evaluator()(evaluation)
    _, rows = prediction_files.read(evaluation.output / "predictions.jsonl")
    kept = distributions.read(evaluation.output / "predictions.distributions.npz")
    assert {(item.image, item.bins) for item in kept} <= {(row.image, row.boxes[0].bins) for row in rows if row.boxes}


def test_only_the_first_images(evaluation: Evaluation) -> None:
    evaluator(images=2)(evaluation)
    assert results.read(evaluation.output).detail.images == ["example-0", "example-1"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the images that the model is asked about."""
    keys: list[str] = []

    def noted(images: Iterable[Any]) -> Iterator[Any]:
        for image in images:
            keys.append(image.key)
            yield image

    whole = asking.predict
    monkeypatch.setattr(
        asking,
        "predict",
        lambda model, processor, images, *rest, **more: whole(model, processor, noted(images), *rest, **more),
    )
    return keys


def test_an_interrupted_evaluation_is_continued(evaluation: Evaluation, asked: list[str]) -> None:
    whole = evaluator()(evaluation)
    path = evaluation.output / "predictions.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    asked.clear()
    assert evaluator()(evaluation).metrics == whole.metrics
    assert asked == ["example-2", "example-3"]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_a_killed_evaluation_ends_with_the_files_of_a_whole_one(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    evaluator()(evaluation)
    whole = content(evaluation.output)
    assert "predictions.distributions.npz" in whole
    shutil.rmtree(evaluation.output)
    evaluation.output.mkdir()
    ask = asking.predict

    def killed(*given: Any, **more: Any) -> Iterator[Any]:
        yield from itertools.islice(ask(*given, **more), rows)
        raise _KilledError

    with monkeypatch.context() as patch:
        patch.setattr(asking, "predict", killed)
        with pytest.raises(_KilledError):
            evaluator()(evaluation)
    evaluator()(evaluation)
    assert content(evaluation.output) == whole


def test_an_image_that_could_not_be_opened_is_asked_again_in_its_place(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator()(evaluation)
    whole = content(evaluation.output)
    shutil.rmtree(evaluation.output)
    evaluation.output.mkdir()
    ask = asking.predict

    def broken() -> Any:
        raise InputError("gone")

    def without_the_first(model: Any, processor: Any, images: Iterable[Any], *rest: Any, **more: Any) -> Any:
        seen = (attrs.evolve(image, open=broken) if image.key == "example-0" else image for image in images)
        return ask(model, processor, seen, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(asking, "predict", without_the_first)
        evaluator()(evaluation)
    assert content(evaluation.output) != whole
    evaluator()(evaluation)
    assert content(evaluation.output) == whole


def test_more_boxes_of_an_image_can_be_looked_at(evaluation: Evaluation) -> None:
    evaluator(max_detections=300)(evaluation)
    assert results.read(evaluation.output).contract["max_detections"] == [1, 10, 300]


def test_predictions_of_other_settings_are_made_anew(evaluation: Evaluation, asked: list[str]) -> None:
    messages: list[str] = []
    evaluator(coordinates="argmax")(evaluation)
    asked.clear()
    evaluator()(attrs.evolve(evaluation, log=messages.append))
    assert len(asked) == 4
    assert any(message.startswith("predicts anew: ") for message in messages)
    header, rows = prediction_files.read(evaluation.output / "predictions.jsonl")
    assert (header.decoding["coordinates"], len(rows)) == ("expectation", 4)
