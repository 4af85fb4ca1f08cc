"""Measuring needs neither coordcore-train nor torch, and what does need them says what to install."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from evaluation_support import header, row
from report_support import evaluated, run_folder

from coordcore_detection.evaluate import results
from coordcore_detection.predict import prediction_files

COMMAND = """import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers", "peft", "swift"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
sys.modules["coordcore_train"] = None
from coordcore.cli import main
main()
"""
BOX = ("cat", (10.0, 20.0, 60.0, 80.0))
INSTALL = "pip install 'coordcore-detection[model]'"


def coordcore(*arguments: object, code: int = 0) -> str:
    """What the command prints, where importing any of them fails."""
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """val.jsonl and predictions.jsonl, of 20 images that are not there."""
    monkeypatch.chdir(tmp_path)
    record = {"width": 100, "height": 100, "objects": [{"desc": BOX[0], "bbox_2d": BOX[1]}]}
    keys = [f"{number}.png" for number in range(20)]
    Path("val.jsonl").write_text("".join(json.dumps(record | {"images": [key]}) + "\n" for key in keys))
    rows = [row(key, [BOX]) for key in keys]
    for given in rows:
        given.boxes[0].scores = {"min": 0.5}
    prediction_files.write(Path("predictions.jsonl"), header(), rows)


@pytest.mark.usefixtures("files")
def test_predictions_are_measured_compared_calibrated_and_reported() -> None:
    sides = ("predictions.jsonl", "val.jsonl", "--space", "pixel")
    assert "AP50" in coordcore("eval", *sides, "--output", "a.json", "--report", "seen")
    assert "19.png, 100 x 100 px" in Path("seen/report.html").read_text()
    assert "mean_iou" in coordcore("compare", "a.json", "a.json", "--resamples", 2)
    assert "20 of 20 boxes right" in coordcore("calibrate", *sides, "--output", "c.json")
    assert coordcore("report", "a.json", "--output", "again").strip() == "again/report.html"


def test_a_report_beside_its_run_shows_what_it_can_read(tmp_path: Path) -> None:
    output = run_folder(tmp_path / "run") / "eval" / "detection"
    results.write(evaluated(2)[2].result, output / results.FILE)
    coordcore("report", output)
    text = (output / "report.html").read_text()
    assert ("loss: the weighted sum of all parts" in text, "coordcore-detection[model]" in text) == (True, True)


@pytest.mark.usefixtures("files")
def test_predict_says_what_to_install() -> None:
    said = coordcore("predict", ".", "val.jsonl", "--output", "out.jsonl", code=2)
    assert said.strip() == f"coordcore: predict needs coordcore-train, which is not installed: {INSTALL}"


def test_the_report_of_a_run_says_what_to_install(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    output = run / "eval" / "detection"
    results.write(evaluated(2)[2].result, output / results.FILE)
    prediction_files.write(output / "predictions.jsonl", header(), [])
    assert f"{run}: the report of a run needs coordcore-train, which is not installed: {INSTALL}" in coordcore(
        "report", run, code=2
    )
