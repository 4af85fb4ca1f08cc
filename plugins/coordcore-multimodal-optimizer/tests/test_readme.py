"""The README's manifest and example run and print what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def _block(language: str) -> str:
    [block] = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    return str(block)


def test_the_manifest_gives_the_groups_that_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(_block("python"), "README.md", "exec"), {"toml": _block("toml")})
    assert capsys.readouterr().out == _block("text")
