"""The reference pages say what the code does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import attrs
import pytest
from attrs.validators import gt
from fakes import EntryPoint, component, found, offering
from typer.testing import CliRunner

from coordcore import COORD_SUPERVISION, kinds, option
from coordcore.cli import app
from coordcore.plugins import Plugins

DOCS = Path(__file__).parents[2] / "docs"
MANIFEST = (DOCS / "reference/manifest.md").read_text()


@attrs.frozen(kw_only=True)
class Records:
    train: Path = option(help="records")


@attrs.frozen(kw_only=True)
class SoftCE:
    sigma: float = option(default=2.0, validator=gt(0), help="width")


def plugins() -> Plugins:
    """Stand-ins for the plugins that the pages speak of."""
    return found(
        EntryPoint(distribution="data", plugin=offering(kinds.DATA, component("coord_jsonl", Records))),
        EntryPoint(
            distribution="loss",
            plugin=offering(
                kinds.LOSS, component("coord_soft_ce_w1", SoftCE, provides=lambda _config: [COORD_SUPERVISION])
            ),
        ),
    )


@pytest.fixture
def _files(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in re.findall(r"<!-- file: (\S+) -->\n```toml\n(.*?)```", MANIFEST, re.DOTALL):
        Path(name).write_text(text)
    monkeypatch.setattr("coordcore.manifest.loading.discover", lambda **_: plugins())


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize("name", ["shapes.toml", "longer.toml"])
def test_the_examples_of_the_page_load(name: str) -> None:
    from coordcore.manifest import load

    assert load(name).manifest.name == Path(name).stem


@pytest.mark.usefixtures("_files")
def test_the_messages_of_the_page_are_the_ones_printed() -> None:
    ((arguments, expected),) = re.findall(r"<!-- check: (.*?) -->\n```text\n(.*?)```", MANIFEST, re.DOTALL)

    assert CliRunner().invoke(app, ["check", *shlex.split(arguments)]).stderr == expected


def test_every_exit_code_is_on_the_page() -> None:
    from coordcore import cli

    page = (DOCS / "reference/cli.md").read_text()
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)]
    assert codes == [0, cli.FAILED, cli.WRONG_INPUT, cli.INTERRUPTED]


def test_every_status_is_on_the_page() -> None:
    from typing import get_args

    from coordcore.plugins import Status

    page = (DOCS / "reference/cli.md").read_text()
    assert [name for name in get_args(Status) if f"| {name} |" not in page] == []
