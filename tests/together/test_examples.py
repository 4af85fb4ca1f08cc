"""The example manifests pass `coordcore check`, and the guard that they rely on holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import ROOT, coordcore

EXAMPLES = sorted((ROOT / "docs/examples").glob("*.toml"))


@pytest.mark.parametrize("manifest", EXAMPLES, ids=lambda path: path.name)
def test_example_checks(manifest: Path) -> None:
    assert coordcore("check", str(manifest), cwd=ROOT).endswith("no problems found\n")


def test_coord_tokens_without_a_coord_loss_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.toml").write_text(
        f'extends = "{ROOT}/docs/examples/shapes.toml"\ndrop = ["loss.coord_soft_ce_w1"]\n'
    )
    output = coordcore("check", "plain.toml", cwd=tmp_path, expect=2)
    assert "data.shapes: coord tokens need a loss that supervises them" in output
    assert "loss.coord_soft_ce_w1" in output
