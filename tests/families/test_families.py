"""Families from base to answers. A few that differ most; `--all` runs every one (some 12 minutes on one core)."""

from __future__ import annotations

import pytest
from checkpoints import DETAILS, FAMILIES
from run import PAGE, SHOWN, conform

FEW = ("qwen2_5_vl", "internvl", "gemma4")
"""Sizes by a helper and windows; tiles; byte fallback, a scaled embedding and capped logits."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "family" in metafunc.fixturenames:
        metafunc.parametrize("family", FAMILIES if metafunc.config.getoption("--all") else FEW)


def test_a_family_from_base_to_answers(family: str) -> None:
    found = conform(family)

    assert {stage: item["seen"] for stage, item in found.items() if not item["ok"]} == {}
    assert found.keys() == SHOWN.keys()


def test_the_page_tells_of_every_family() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert DETAILS.keys() == FAMILIES.keys()
    assert [name for name in FAMILIES if f"| `{name}` |" not in text] == []
