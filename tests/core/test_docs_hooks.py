"""The page about the hooks says what their docstrings say."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from coordcore import hookspecs

PAGE = (Path(__file__).parents[2] / "docs/reference/hooks.md").read_text(encoding="utf-8")
SPECS = vars(hookspecs.hooks())


def documented() -> dict[str, tuple[str, str]]:
    """Hook -> its signature and its text, as the page has them."""
    sections = re.findall(
        r"^### `(\w+)`\n\n```python\n(.*?)\n```\n\n(.*?)(?=^##|^<!--|\Z)", PAGE, re.DOTALL | re.MULTILINE
    )
    return {name: (signature, text.strip()) for name, signature, text in sections}


def defined() -> dict[str, tuple[str, str]]:
    return {
        name: (f"def {name}{inspect.signature(spec)}".replace("'", ""), inspect.getdoc(spec) or "")
        for name, spec in SPECS.items()
    }


def test_every_hook_stands_on_the_page_with_its_signature_and_docstring() -> None:
    assert documented() == defined()


def test_the_page_names_the_entry_point_group() -> None:
    assert f'[project.entry-points."{hookspecs.GROUP}"]' in PAGE
