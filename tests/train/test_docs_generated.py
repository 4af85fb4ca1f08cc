"""The generated parts of the reference pages are what the code gives."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

import generate


@pytest.mark.parametrize("file", generate.FILES, ids=lambda item: item.name)
def test_the_generated_parts_are_up_to_date(file: Path) -> None:
    text = file.read_text()

    assert generate.regenerate(text) == text, "run: python docs/generate.py"
