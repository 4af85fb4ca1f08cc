"""`coordcore report` and `coordcore eval --report`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from evaluation_support import header
from PIL import Image
from report_support import evaluated, run_folder
from typer.testing import CliRunner

from coordcore import Example
from coordcore.cli import app
from coordcore.coords import DEFAULT_COORDS, ints_to_tokens
from coordcore.quantisation import DEFAULT_QUANTISATION, encode_boxes
from coordcore.records.answers import COORDJSON
from coordcore_detection.evaluate import results
from coordcore_detection.evaluate.evaluation import evaluate
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.evaluate.truth_sources import Chosen, truth_from_examples
from coordcore_detection.predict import prediction_files
from coordcore_detection.predict.predictions import Box, Row

Again = Callable[..., str]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """The folder of an evaluation that belongs to a run, without predictions."""
    output = run_folder(tmp_path / "run") / "eval" / "detection"
    results.write(evaluated(4)[2].result, output / results.FILE)
    return output


@pytest.mark.parametrize("name", [".", "evaluation.json", "../.."])
def test_a_report_is_made_anew(evaluation: Path, name: str) -> None:
    (evaluation / "report.html").write_text("old")
    shown = run("report", evaluation / name)
    assert (shown.exit_code, shown.stderr) == (0, "")
    text = (evaluation / "report.html").read_text()
    assert ("loss.soft" in text, "was read without its predictions" in text) == (True, True)


def test_the_report_of_another_evaluation_is_not_replaced(evaluation: Path) -> None:
    other = evaluation / "by_text.json"
    other.write_bytes((evaluation / results.FILE).read_bytes())
    (evaluation / "report.html").write_text("old")
    shown = run("report", other)
    assert shown.exit_code == 2
    assert "the report beside it is that of evaluation.json; write another with --output" in shown.stderr
    assert (evaluation / "report.html").read_text() == "old"


def test_a_report_goes_elsewhere(evaluation: Path, tmp_path: Path) -> None:
    shown = run("report", evaluation, "--output", tmp_path / "there")
    assert shown.stdout.strip() == str(tmp_path / "there" / "report.html")
    assert not (evaluation / "report.html").exists()


def test_a_report_elsewhere_is_not_replaced_unasked(evaluation: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    shown = run("report", evaluation, "--output", tmp_path)
    assert (shown.exit_code, "--overwrite" in shown.stderr) == (2, True)
    assert run("report", evaluation, "--output", tmp_path, "--overwrite").exit_code == 0


def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    shown = run("report", tmp_path)
    assert (shown.exit_code, "holds neither evaluation.json" in shown.stderr) == (2, True)


# --- with the run's data --------------------------------------------------------------------------------------------


def hold_out(examples: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever run is loaded holds out these examples."""
    plan = SimpleNamespace(
        coords=DEFAULT_COORDS,
        format=COORDJSON,
        data=SimpleNamespace(validation=lambda: examples),
        quantisation=DEFAULT_QUANTISATION,
    )
    monkeypatch.setattr("coordcore_train.run.plan.load_run", lambda _: plan)


@pytest.fixture
def whole(evaluation: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with predictions, and a run whose data builder gives the examples again."""
    pictures = [Image.new("RGB", (90, 60), (40 * index, 0, 0)) for index in range(3)]
    answer = f'{{"objects": [{{"desc": "cat", "bbox_2d": [{", ".join(ints_to_tokens([100, 100, 500, 500]))}]}}]}}'
    messages = ({"role": "user", "content": "<image>?"}, {"role": "assistant", "content": answer})
    examples = [Example(messages=messages, images=(picture,)) for picture in pictures]
    hold_out(examples, monkeypatch)
    truth = truth_from_examples(examples, DEFAULT_QUANTISATION)
    box = Box(label="cat", box=(10.0, 6.0, 45.0, 30.0), bins=(111, 100, 500, 500), score=0.7)
    rows = [Row(image=item.key, width=90, height=60, text="", boxes=[box]) for item in truth]
    prediction_files.write(evaluation / "predictions.jsonl", header(), rows)
    results.write(evaluate(truth, header(), rows).result, evaluation / results.FILE)
    return evaluation


def test_a_report_of_a_run_shows_its_images(whole: Path) -> None:
    shown = run("report", whole)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "example-2, 90 x 60 px" in (whole / "report.html").read_text()


def test_other_data_than_was_evaluated_is_refused(whole: Path) -> None:
    results.write(evaluated(3)[2].result, whole / results.FILE)
    shown = run("report", whole)
    assert (shown.exit_code, "was measured on other examples" in shown.stderr) == (2, True)


@pytest.fixture
def again(evaluation: Path, monkeypatch: pytest.MonkeyPatch) -> Again:
    """`again(examples, places, radius="10px")` is the page of a run that was measured on examples at places."""

    def again(examples: list[Example], places: list[int], **options: Any) -> str:
        hold_out(examples, monkeypatch)
        truth = Chosen(truth_from_examples(examples, DEFAULT_QUANTISATION), places)
        rows = [
            Row(image=item.key, width=90, height=60, text="", boxes=[point(item)] if item.points else [])
            for item in truth
        ]
        prediction_files.write(evaluation / "predictions.jsonl", header(), rows)
        results.write(evaluate(truth, header(), rows, **options).result, evaluation / results.FILE)
        shown = run("report", evaluation)
        assert (shown.exit_code, shown.stderr) == (0, "")
        return (evaluation / "report.html").read_text()

    return again


def point(image: TruthImage) -> Box:
    """Nine pixels beside the first point of an image."""
    _, x, y = image.points[0]
    return Box(label="eye", box=(x + 9, y, x + 9, y), bins=(0, 0, 0, 0), score=0.7, kind="point", points=[x + 9, y])


def said(answer: str, **changes: Any) -> Example:
    messages = ({"role": "user", "content": "<image>?"}, {"role": "assistant", "content": answer})
    return Example(messages=messages, images=(Image.new("RGB", (90, 60)),), **changes)


BOX = f'{{"objects": [{{"desc": "cat", "bbox_2d": [{", ".join(ints_to_tokens([100, 100, 500, 500]))}]}}]}}'
EYE = f'{{"objects": [{{"desc": "eye", "point": [{", ".join(ints_to_tokens([100, 100]))}]}}]}}'


def test_texts_among_the_examples_are_no_other_data(again: Again) -> None:
    examples = [said("A cat.", task="caption"), said(BOX), said(BOX)]
    assert "example-2, 90 x 60 px" in again(examples, [0, 1, 2])


def test_examples_that_were_not_measured_are_no_other_data(again: Again) -> None:
    assert "example-2, 90 x 60 px" in again([said("It is there."), said(BOX), said(BOX)], [1, 2])


def test_points_are_measured_within_the_radius_that_they_were(again: Again) -> None:
    assert "<td>point_F1</td><td>1.0000</td>" in again([said(EYE)], [0], radius="10px")


def test_a_report_made_anew_says_who_proposed_the_synonyms(again: Again) -> None:
    page = again([said(BOX)], [0], synonyms={"cat": ["kitten"]}, proposed_by={"model": "mini"})
    assert "<td>labels.proposed_by.model</td><td>mini</td>" in page
    assert "labels.synonyms.cat" in page


# --- eval --report --------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """val.jsonl with an image, and predictions.jsonl for it."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((60, 80, 3), 90, dtype=np.uint8)).save("a.png")
    bins = encode_boxes([[10, 10, 40, 50]], 80, 60).bins[0].tolist()
    record = {"images": ["a.png"], "width": 80, "height": 60, "objects": [{"desc": "cat", "bbox_2d": bins}]}
    Path("val.jsonl").write_text(json.dumps(record) + "\n")
    box = Box(label="cat", box=(11.0, 10.0, 40.0, 50.0), bins=tuple(bins), score=0.9)
    given = header(quantisation=DEFAULT_QUANTISATION.as_dict())
    prediction_files.write(
        Path("predictions.jsonl"), given, [Row(image="a.png", width=80, height=60, text="", boxes=[box])]
    )
    return tmp_path


def test_eval_writes_a_report(files: Path) -> None:
    shown = run("eval", "predictions.jsonl", "val.jsonl", "--report", "seen")
    assert shown.exit_code == 0, shown.output
    assert "a.png, 80 x 60 px" in (files / "seen" / "report.html").read_text()
    assert (files / "seen" / "report" / "best-1.png").exists()


@pytest.mark.usefixtures("files")
def test_eval_finds_images_elsewhere() -> None:
    Path("images").mkdir()
    Path("a.png").rename("images/a.png")
    missing, found = "seen/report.html", "found/report.html"
    run("eval", "predictions.jsonl", "val.jsonl", "--report", "seen")
    run("eval", "predictions.jsonl", "val.jsonl", "--report", "found", "--image-root", "images")
    assert ["80 x 60 px (" in Path(page).read_text() for page in (missing, found)] == [True, False]


@pytest.mark.usefixtures("files")
def test_eval_prints_json_alone() -> None:
    shown = run("eval", "predictions.jsonl", "val.jsonl", "--report", "seen", "--json")
    assert json.loads(shown.stdout)["metrics"]["AP50"] == 1.0


@pytest.mark.usefixtures("files")
def test_eval_replaces_no_report_unasked() -> None:
    Path("report.html").write_text("mine")
    shown = run("eval", "predictions.jsonl", "val.jsonl", "--report", ".")
    assert (shown.exit_code, Path("report.html").read_text()) == (2, "mine")
