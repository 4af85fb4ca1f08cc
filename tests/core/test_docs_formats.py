"""The how-to of answer formats: the plugin on the page keeps the promises of its kind, and its texts are as it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from coordcore.components import Component
from coordcore.coords import ints_to_tokens
from coordcore.records.answers import Format, Located, answer_text, parse_answer
from coordcore.testing import checks_for

PAGE = (Path(__file__).parents[2] / "docs/how-to/answer-formats.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def component() -> Component:
    found = re.search(r"```python\n# src/format_arrows/plugin.py\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    namespace: dict[str, Any] = {"__name__": "format_arrows.plugin"}
    exec(compile(found[1], "plugin.py", "exec"), namespace)
    [offered] = namespace["coordcore_answer_formats"]()
    assert isinstance(offered, Component)
    return offered


@pytest.mark.parametrize("check", checks_for("format")[-3:], ids=lambda check: check.__name__)
def test_it_keeps_the_promises_of_its_kind(check: Callable[..., None], component: Component) -> None:
    check(component)


def test_its_text_is_the_one_that_its_first_line_shows(component: Component) -> None:
    form: Format = component.build(component.config(), None)
    text = answer_text([Located(desc="ring", kind="bbox_2d", bins=(1, 2, 3, 4))], form=form)
    assert text == "ring -> " + " ".join(ints_to_tokens([1, 2, 3, 4]))
    assert f"`{text}; ...`" in PAGE
    assert parse_answer("nothing", form).unread == ()


def test_every_piece_of_a_format_is_explained() -> None:
    table = PAGE[PAGE.index("| a piece of `Format` |") :]
    named = set(re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
    assert {field.name for field in attrs.fields(Format)} - {"name"} == named - {"Format"}
