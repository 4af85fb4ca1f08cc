"""`coordcore predict` and `coordcore calibrate`, from the command line to the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_support import header, write_grey_pictures
from prediction_support import checkpoint
from typer.testing import CliRunner

from coordcore.cli import app
from coordcore_detection.evaluate import calibration
from coordcore_detection.predict import prediction_files
from coordcore_detection.predict.predictions import Box, Row

torch.set_num_threads(1)

COUNT = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five grey pictures with a box each, in pixels."""
    monkeypatch.chdir(tmp_path)
    write_grey_pictures(COUNT)
    return Path("val.jsonl")


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def predict(model: Path, *more: object, output: str = "out.jsonl") -> Any:
    asked = ("predict", model, "val.jsonl", "--space", "pixel", "--question", "Find.", "--max-new-tokens", 60)
    return call(*asked, "--device", "cpu", "--output", output, *more)


def test_every_image_gets_a_row(model: Path, records: Path) -> None:
    result = predict(model)
    found, rows = prediction_files.read(Path("out.jsonl"))
    assert result.exit_code == 0, result.output
    assert [row.image for row in rows] == [f"{k}.png" for k in range(COUNT)]
    assert found.decoding["question"] == "Find."
    assert result.stdout.startswith(f"out.jsonl: {COUNT} images, ")


def test_what_is_there_is_not_asked_again(model: Path, records: Path) -> None:
    predict(model, "--limit", 2)
    first = Path("out.jsonl").read_bytes()
    result = predict(model)
    assert "holds 2 of 5 images already" in result.stderr
    assert Path("out.jsonl").read_bytes().startswith(first)
    predict(model, output="whole.jsonl")
    continued, whole = (prediction_files.read(Path(name))[1] for name in ("out.jsonl", "whole.jsonl"))
    assert [(row.image, row.text) for row in continued] == [(row.image, row.text) for row in whole]


def test_a_folder_that_is_no_checkpoint_is_told_before_its_question(records: Path) -> None:
    result = call("predict", ".", records, "--space", "pixel", "--output", "out.jsonl")
    assert (result.exit_code, Path("out.jsonl").exists()) == (2, False)
    assert ".: neither a checkpoint (config.json) nor a run folder (manifest.resolved.toml); give" in result.stderr
    assert "--question" not in result.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--tolerance", 5], "--tolerance: is given with --parallel fast"),
        (["--parallel", "verified", "--tolerance", 5], "--tolerance: is given with --parallel fast"),
        (["--parallel", "fast", "--free"], "leave out --free, or --parallel"),
        (["--parallel", "fast", "--server", "http://localhost:1/v1"], "--parallel: means nothing with --server"),
    ],
)
def test_proposed_corners_that_come_to_nothing(model: Path, records: Path, given: list[Any], message: str) -> None:
    asked = ("predict", model, "val.jsonl", "--output", "out.jsonl", *given)
    result = call(*asked)
    assert (result.exit_code, Path("out.jsonl").exists()) == (2, False)
    assert message in " ".join(result.stderr.split())


def test_a_checkpoint_without_heads_proposes_no_corners(model: Path, records: Path) -> None:
    result = predict(model, "--parallel", "verified")
    assert result.exit_code == 2
    assert "--parallel" in result.stderr


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_a_link_stays_where_its_file_is_written_anew(model: Path, records: Path, more: tuple[str, ...]) -> None:
    there = Path("disk/there.jsonl")
    there.parent.mkdir()
    Path("out.jsonl").symlink_to(there)
    predict(model, "--limit", 2)
    there.write_bytes(there.read_bytes()[:-20])  # cut in the middle of a line, which is mended
    assert predict(model, *more).exit_code == 0
    assert Path("out.jsonl").is_symlink()
    assert [row.image for row in prediction_files.read(there)[1]] == [f"{k}.png" for k in range(COUNT)]


def test_another_contract_is_refused_unless_overwritten(model: Path, records: Path) -> None:
    predict(model)
    refused = predict(model, "--score", "min")
    replaced = predict(model, "--score", "min", "--overwrite")
    assert (refused.exit_code, replaced.exit_code) == (2, 0)
    assert "out.jsonl: was made under another contract (score near there, min now)" in refused.stderr


def test_an_image_that_is_gone_is_told_and_tried_again(model: Path, records: Path) -> None:
    Path("2.png").rename("kept.png")
    result = predict(model)
    assert (result.exit_code, "2.png: no image file at 2.png" in result.stderr) == (0, True)
    assert "1 answers with unread parts" in result.stdout
    Path("kept.png").rename("2.png")
    predict(model)
    _, rows = prediction_files.read(Path("out.jsonl"))
    assert ({row.image for row in rows}, [row.unread for row in rows]) == (
        {f"{k}.png" for k in range(COUNT)},
        [[]] * COUNT,
    )


def test_the_score_is_the_calibrations(model: Path, records: Path) -> None:
    fitted = calibration.fit([0.0, 1.0] * 10, [True, True] * 10, method="isotonic", name="entropy", iou=0.5)
    calibration.write(fitted, Path("calibration.json"))
    assert predict(model, "--calibration", "calibration.json").exit_code == 0
    assert predict(model, "--calibration", "calibration.json").exit_code == 0  # continues, with nothing left to do
    found, rows = prediction_files.read(Path("out.jsonl"))
    assert (found.score, found.calibration) == ("entropy", json.loads(json.dumps(fitted.as_dict())))
    assert {box.score for row in rows for box in row.boxes} <= {1.0}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--system", "Be brief."], None),
        (["--quantisation", "best"], "unknown quantisation 'best'"),
        (["--max-new-tokens", 2], "max_new_tokens must be at least"),
        (["--image-root", "elsewhere"], None),
        (["--calibration", "none.json"], "none.json: cannot be read"),
    ],
)
def test_mistakes_are_told(model: Path, records: Path, more: list[object], message: str | None) -> None:
    result = predict(model, *more)
    assert (result.exit_code, message is None or message in result.stderr) == (0 if message is None else 2, True)


def test_a_system_message_comes_with_a_question(model: Path, records: Path) -> None:
    result = call("predict", model, records, "--system", "Be brief.", "--output", "out.jsonl")
    assert (result.exit_code, "--system: is given with --question" in result.stderr) == (2, True)


def test_a_checkpoint_needs_a_question(model: Path, records: Path) -> None:
    result = call("predict", model, records, "--space", "pixel", "--output", "out.jsonl")
    assert (result.exit_code, "give the question with --question" in result.stderr) == (2, True)


def test_records_that_are_wrong_are_told(model: Path, records: Path) -> None:
    result = call("predict", model, records, "--question", "Find.", "--output", "out.jsonl", "--device", "cpu")
    assert (result.exit_code, "val.jsonl:1: objects[0].bbox_2d" in result.stderr) == (2, True)


# --- calibrate ------------------------------------------------------------------------------------------------------


@pytest.fixture
def predictions(records: Path) -> Path:
    """Four boxes of each picture, one of them right and scored highest."""
    with prediction_files.appending(Path("predictions.jsonl"), header(score="near")) as add:
        for k in range(COUNT):
            boxes = [
                Box(label="a", box=(1, 2, 30, 20.5), bins=(0, 0, 0, 0), score=0.5, scores={"near": 0.9, "min": 0.1}),
                *(
                    Box(label="b", box=(0, 0, i, 9), bins=(0,) * 4, score=0.5, scores={"near": 0.2})
                    for i in range(1, 5)
                ),
            ]
            add(Row(image=f"{k}.png", width=40 + k, height=32, text="", boxes=boxes))
    return Path("predictions.jsonl")


@pytest.mark.parametrize("method", ["isotonic", "temperature"])
def test_a_calibration_is_fitted(predictions: Path, records: Path, method: str) -> None:
    result = call("calibrate", predictions, records, "--space", "pixel", "--method", method, "--output", "c.json")
    assert result.exit_code == 0, result.output
    fitted = calibration.read(Path("c.json"))
    assert (fitted.method, fitted.score, fitted.boxes, fitted.right) == (method, "near", 25, 5)
    assert fitted.apply(0.9) > 0.8 > 0.2 > fitted.apply(0.2)


def test_a_score_that_too_few_boxes_have_is_refused(predictions: Path, records: Path) -> None:
    result = call("calibrate", predictions, records, "--space", "pixel", "--score", "min", "--output", "c.json")
    assert (result.exit_code, "needs at least 20 boxes, got 5" in result.stderr) == (2, True)


def test_a_calibration_is_not_overwritten_unasked(predictions: Path, records: Path) -> None:
    Path("c.json").write_text("mine")
    result = call("calibrate", predictions, records, "--space", "pixel", "--output", "c.json")
    assert (result.exit_code, Path("c.json").read_text()) == (2, "mine")


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_the_records_are_never_replaced(model: Path, records: Path, more: tuple[str, ...]) -> None:
    before = records.read_bytes()
    result = predict(model, *more, output="val.jsonl")
    assert (result.exit_code, records.read_bytes() == before) == (2, True)
    assert "val.jsonl: is read by this command; name another file to write" in result.stderr


def test_a_folder_is_no_output(model: Path, records: Path) -> None:
    result = predict(model, "--overwrite", output=".")
    assert (result.exit_code, result.stderr) == (2, "coordcore: .: is a folder; name a file\n")
