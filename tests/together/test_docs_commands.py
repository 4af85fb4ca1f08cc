"""The reference page of the plugins' commands is what they offer."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

import generate


def test_the_page_of_the_plugins_commands_is_up_to_date() -> None:
    (file,) = generate.WITH_ALL_PLUGINS
    text = file.read_text(encoding="utf-8")

    assert generate.regenerate(text) == text, "run: python docs/generate.py"
