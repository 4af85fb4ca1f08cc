"""The example manifests pass `coordcore check`, those of the demo train, and the guard that they rely on holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import ROOT, coordcore
from coordcore.cli import app

EXAMPLES = sorted((ROOT / "docs/examples").glob("*.toml"))
ELSEWHERE = {"shapes.toml", "qwen3vl-lora.toml", "full.toml"}
"""test_demo.py trains the first; the others are of a model that no test fetches."""

TRAINED = {
    "shapes-many": ("agnostic_AP50", "AP50"),
    "shapes-grouped": ("AP50", "AP50"),
    "shapes-points": ("point_F1", "point_F1"),
    "shapes-quads": ("shape_AP50", "shape_AP50"),
    "shapes-refer": ("refer_absent_right", "absent_right"),
    "shapes-named": ("named_absent_found", "absent_found"),
    "shapes-mixture": ("point_absent_right@points", "absent_right"),
}
"""Example -> a metric of what it asks for, and its name in the report."""


@pytest.mark.parametrize("manifest", EXAMPLES, ids=lambda path: path.name)
def test_example_checks(manifest: Path) -> None:
    assert coordcore("check", str(manifest), cwd=ROOT).endswith("no problems found\n")


@pytest.mark.parametrize("manifest", EXAMPLES, ids=lambda path: path.name)
def test_a_check_of_an_example_imports_nothing_heavy(manifest: Path) -> None:
    """Each of these takes longer to import than the check takes."""
    heavy = ("torch", "transformers", "swift", "peft", "numpy", "PIL", "huggingface_hub", "pydantic")
    code = (
        "import sys; from coordcore.manifest import load; from coordcore.check import check; "
        f"problems = check(load({str(manifest)!r})); print(problems, sorted({{*{heavy}}} & {{*sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stdout == "[] []\n"


def test_coord_tokens_without_a_coord_loss_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.toml").write_text(
        f'extends = "{ROOT}/docs/examples/shapes.toml"\ndrop = ["loss.coord_soft_ce_w1"]\n'
    )
    output = coordcore("check", "plain.toml", cwd=tmp_path, expect=2)
    assert "data.shapes: coord tokens need a loss that supervises them" in output
    assert "loss.coord_soft_ce_w1" in output


def test_every_example_is_trained_by_a_test() -> None:
    assert {path.name for path in EXAMPLES} == ELSEWHERE | {f"{name}.toml" for name in TRAINED}


@pytest.mark.parametrize("name", TRAINED)
def test_an_example_goes_from_its_base_to_a_report(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In four steps, all in this process: to import the engine takes longer than any of them."""
    settings = {"train.steps": 4, "train.batch_size": 4, "train.log_every": 1, "eval.detection.images": 12}
    sources = [f"mixture.sources.{source}.settings" for source in ("all", "phrases", "points")]
    for source in sources if name == "shapes-mixture" else ["shapes"]:
        settings |= {f"data.{source}.train_images": 16, f"data.{source}.validation_images": 4}
    changes = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["run", str(ROOT / "docs/examples" / f"{name}.toml"), *changes])
    assert done.exit_code == 0, done.output
    run = tmp_path / "runs" / name
    assert (run / "merged/model.safetensors").is_file()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    metric, shown = TRAINED[name]
    metrics = json.loads((run / "eval/detection/metrics.json").read_text())
    assert metrics[metric] >= 0.0
    assert re.search(rf"\b{shown}\b", (run / "eval/detection/report.html").read_text(encoding="utf-8"))
