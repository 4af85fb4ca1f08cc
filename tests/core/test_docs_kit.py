"""The page about the conformance kit lists every check with its docstring."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from coordcore.kinds import KINDS
from coordcore.testing.checks import COMMON, checks_for

PAGE = (Path(__file__).parents[2] / "docs/how-to/test-a-plugin.md").read_text(encoding="utf-8")


def test_every_check_stands_on_the_page() -> None:
    listed = re.findall(r"^\| ([\w ]+) \| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    checks = [("every component", item) for item in COMMON]
    checks += [(str(kind), item) for kind in KINDS for item in checks_for(kind)[len(COMMON) :]]
    assert listed == [(kind, item.__name__, inspect.getdoc(item)) for kind, item in checks]
