"""The how-to of surgeries: the package on the page passes the kit, trains, and is merged without the model."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
import support  # noqa: F401 - puts the fakes on the path
import written_plugins
from safetensors.torch import load_file

from coordcore.testing import checks_for, logged, train_briefly

PAGE = Path(__file__).parents[2] / "docs/how-to/write-a-surgery.md"


def test_the_package_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = dict(re.findall(r"```python\n# src/head_lowrank/(\w+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL))
    assert list(files) == ["lowrank.py", "plugin.py"]
    with written_plugins.installed(tmp_path / "site", "head_lowrank", files):
        [component] = import_module("head_lowrank.plugin").coordcore_surgeries()
        for check in checks_for("surgery"):
            if check.__name__ != "check_imports_no_torch":  # in a process of its own, which lacks the page's package
                check(component)
        run = train_briefly(
            tmp_path, loss=["text_ce", "fake_bins"], surgery="head_lowrank", tuner={"type": "lora"}, train={"steps": 3}
        )
    assert "merged in memory" not in capsys.readouterr().out
    losses = logged(run, "loss")
    assert losses[-1] < losses[0]
    assert "lm_head.weight" in load_file(run / "merged" / "model.safetensors")
