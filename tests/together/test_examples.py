"""The example manifests pass `coordcore check`, and the guard that they rely on holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, coordcore

EXAMPLES = sorted((ROOT / "docs/examples").glob("*.toml"))


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
