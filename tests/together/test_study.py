"""The manifests of docs/studies/losses.py say what their names say, and nothing is wrong with them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import tomli_w

from conftest import ROOT
from coordcore import kinds
from coordcore.check import check
from coordcore.manifest import load


def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("losses", ROOT / "docs/studies/losses.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STUDY = study()


@pytest.mark.parametrize("name", STUDY.LOSSES)
def test_a_manifest(tmp_path: Path, name: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(STUDY.manifest(STUDY.LOSSES[name], seed=1, steps=7)))
    loaded = load(path)
    assert check(loaded) == []
    used = {one.component.name: one.config for one in loaded.manifest.of(kinds.LOSS)}
    assert used["text_ce"].coord_positions == (name == STUDY.PLAIN)
    assert ("coord_soft_ce_w1" in used) == (name != STUDY.PLAIN)


def test_a_loss_has_the_weights_that_its_name_says(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(STUDY.manifest(STUDY.LOSSES["soft CE + W1, σ = 10"], seed=1, steps=7)))
    (config,) = (one.config for one in load(path).manifest.of(kinds.LOSS) if one.component.name == "coord_soft_ce_w1")
    weights = (config.ce_weight, config.soft_ce_weight, config.w1_weight, config.gate_weight, config.sigma)
    assert weights == (0.0, 1.0, 1.0, 1.0, 10.0)


def test_an_interval_is_students() -> None:
    mean, half = STUDY.interval([0.1, 0.2, 0.3])
    assert (mean, half) == (pytest.approx(0.2), pytest.approx(4.303 * 0.1 / 3**0.5))
