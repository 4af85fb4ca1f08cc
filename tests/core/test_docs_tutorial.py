"""The tutorial's files are those of the package that `tox -e thirdparty` builds, installs and tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tests/thirdparty/coordcore-huber"
PAGE = (ROOT / "docs/tutorial/first-loss-plugin.md").read_text(encoding="utf-8")


def shown() -> dict[str, str]:
    """File name -> its text, as the page has it."""
    return dict(re.findall(r"^\*\*`(\S+)`\*\*\n\n```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))


def test_the_page_shows_the_files_of_the_package_word_for_word() -> None:
    files = [*PACKAGE.glob("*.*"), *PACKAGE.glob("src/**/*.py"), *PACKAGE.glob("tests/*.py")]
    assert shown() == {str(file.relative_to(PACKAGE)): file.read_text(encoding="utf-8") for file in files}


def test_the_line_of_the_message_is_that_of_the_key() -> None:
    lines = (PACKAGE / "run.toml").read_text(encoding="utf-8").splitlines()
    [message] = re.findall(r"^run\.toml:(\d+): loss\.coord_huber\.delta:", PAGE, re.MULTILINE)
    assert lines[int(message) - 1].startswith("delta = ")
