"""Examples trained to their end: whether they still find what their comments say. Minutes each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs/examples"

BOUNDS = {"shapes-many": {"agnostic_AP50": 0.9, "AP50": 0.85}}
"""Example -> metric -> what it reaches at least."""


@pytest.mark.parametrize("name", BOUNDS)
def test_an_example_finds_what_it_should(name: str, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("coordcore")), "run", str(EXAMPLES / f"{name}.toml")]
    done = subprocess.run(
        command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0, done.stdout
    metrics = json.loads((tmp_path / "runs" / name / "eval/detection/metrics.json").read_text())
    assert {metric: metrics[metric] for metric, least in BOUNDS[name].items() if metrics[metric] < least} == {}
