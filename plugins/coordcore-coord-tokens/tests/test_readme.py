"""The README's examples do what it says."""

from __future__ import annotations

import doctest
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_readme(folder: Path) -> None:
    done = doctest.testfile(str(README), module_relative=False)
    assert (done.failed, done.attempted > 0) == (0, True)
