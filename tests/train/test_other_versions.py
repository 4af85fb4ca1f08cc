"""A run that goes on with another version of a plugin says so."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coordcore_train.run.session import other_versions

TEXT = '[resolved]\ncoordcore = "1"\nplugins = {{ mine = "{}", "its.own" = "3" }}\n'


def folder(path: Path, text: str, *, last: bool = True) -> Any:
    manifest = path / "manifest.resolved.toml"
    manifest.write_text(text)
    return SimpleNamespace(path=path, manifest=manifest, last_checkpoint=lambda: path if last else None)


def test_another_version_is_named(tmp_path: Path) -> None:
    said = other_versions(folder(tmp_path, TEXT.format("0.1")), TEXT.format("0.2"))
    assert "with other versions than its last part had (mine was 0.1, is 0.2): " in said


@pytest.mark.parametrize("text", [TEXT.format("0.2"), "", "not toml", "[resolved]\nplugins = 3\n"])
def test_nothing_is_said_where_nothing_is_known_to_differ(tmp_path: Path, text: str) -> None:
    assert other_versions(folder(tmp_path, text), TEXT.format("0.2")) == ""


def test_a_run_without_a_checkpoint_begins_with_what_there_is(tmp_path: Path) -> None:
    assert other_versions(folder(tmp_path, TEXT.format("0.1"), last=False), TEXT.format("0.2")) == ""
