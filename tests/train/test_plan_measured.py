"""`coordcore plan` against training steps that are measured: small real models on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from plan_cases import CASES, base_of, measure, planned

WITHIN = 0.1
"""How far predicted activations may be off."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_of(tmp_path_factory.mktemp("plan") / "base")


@pytest.mark.parametrize("name", CASES)
def test_a_step_takes_what_was_predicted(name: str, base: Path, tmp_path: Path) -> None:
    sections = CASES[name]
    seen = measure(tmp_path / "real", base, **sections)
    told = planned(tmp_path, base, seen, **sections)

    assert (told.parameters, told.trained, told.weights) == (seen.parameters, seen.trained, seen.weights)
    assert (told.gradients, told.optimizer) == (seen.gradients, seen.optimizer)
    assert told.kept == pytest.approx(seen.kept, rel=WITHIN)
    assert told.bound >= seen.kept
    assert seen.masked == ("no mask" not in name)
