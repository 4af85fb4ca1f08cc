"""`coordcore heads` refuses what it cannot work with, in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coordcore.cli import app


def heads(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["heads", *(str(argument) for argument in arguments)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "is not a coordcore run folder"),
        (("--examples", 0), "--examples"),
        (("--rank", 0), "--rank"),
        (("--seed", -1), "--seed"),
        (("--batch-size", 0), "--batch-size"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: tuple[object, ...], message: str) -> None:
    result = heads(tmp_path, "--device", "cpu", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert [heads(tmp_path / name, "--device", "cpu").exit_code for name in ("file", "missing")] == [2, 2]
