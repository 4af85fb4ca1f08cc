"""What the README says works: its plugin, installed as a stranger would, trains under its name."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from conftest import ROOT, coordcore

README = (ROOT / "README.md").read_text(encoding="utf-8")

MANIFEST = f"""
extends = "{ROOT}/docs/examples/shapes.toml"
name = "readme"
drop = ["requires", "loss.coord_soft_ce_w1"]

[data.shapes]
train_images = 32
validation_images = 4

[loss.huber]
delta = 5.0

[train]
steps = 2
batch_size = 4
"""


def test_the_plugin_of_the_readme_trains(tmp_path: Path, monkeypatch) -> None:
    (code,) = re.findall(r"```python\n(# huber_loss\.py.*?)```", README, flags=re.DOTALL)
    site = tmp_path / "site"
    info = site / "huber_loss-0.1.dist-info"
    info.mkdir(parents=True)
    (site / "huber_loss.py").write_text(code)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: huber-loss\nVersion: 0.1\nRequires-Dist: coordcore>=0.1,<0.2\n"
    )
    (info / "entry_points.txt").write_text("[coordcore.v1]\nhuber = huber_loss\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "readme.toml").write_text(MANIFEST)
    coordcore("run", "readme.toml", cwd=tmp_path)
    first = json.loads((tmp_path / "runs/readme/metrics.jsonl").read_text().splitlines()[0])
    assert first["huber/loss"] > 0


def test_the_readme_holds_the_commands_that_ci_runs() -> None:
    commands = re.findall(r"<!-- (?:demo|test) command -->\n```sh\n(.*?)\n```", README)
    assert [command.split(" && ")[-1] for command in commands] == [
        ".venv/bin/coordcore run docs/examples/shapes.toml",
        ".venv-test/bin/tox -p 2",
    ]
