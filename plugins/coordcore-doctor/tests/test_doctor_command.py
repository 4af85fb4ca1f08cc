"""`coordcore doctor` from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from doctor_support import doctor_plugin, write_manifest
from PIL import Image
from typer.testing import CliRunner

from coordcore.cli import app
from coordcore_doctor.examine import CHECKS
from coordcore_train.testing.tiny import tiny_qwen3vl


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("plugin")
    with doctor_plugin(folder):
        yield folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen3vl(tmp_path_factory.mktemp("tiny") / "base")


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def test_a_healthy_run_and_its_sheet(base: Path, tmp_path: Path) -> None:
    done = call(write_manifest(tmp_path, base), "--draw", tmp_path / "sheet.png", "--samples", 4)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-2:] == [f"{len(CHECKS)} ok", f"{tmp_path / 'sheet.png'}: 4 images"]
    assert Image.open(tmp_path / "sheet.png").width > 1000


def test_an_error_is_exit_code_2(base: Path, tmp_path: Path) -> None:
    done = call(write_manifest(tmp_path, base), "--set", "train.optim=adamm", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert (done.exit_code, findings["optimizer name"]["state"]) == (2, "error")
    assert done.stderr.endswith("optimizer name: the run would fail or go wrong\n")
    assert findings["output head"]["state"] == "ok"  # everything else is still looked at


def test_a_manifest_that_cannot_be_read(base: Path, tmp_path: Path) -> None:
    done = call(write_manifest(tmp_path, base), "--set", "train.optimm=1")
    assert (done.exit_code, "unknown key" in done.stderr) == (2, True)


def test_a_sheet_is_not_overwritten(base: Path, tmp_path: Path) -> None:
    (tmp_path / "sheet.png").touch()
    done = call(write_manifest(tmp_path, base), "--draw", tmp_path / "sheet.png")
    assert (
        done.exit_code,
        done.stderr.strip().endswith("exists; replace it with --overwrite, or name another file"),
    ) == (2, True)


def test_python_without_assertions_finds_the_same(base: Path, tmp_path: Path, plugin: Path) -> None:
    """A hook on the head that the surgery does not declare: building the trainer is what shows it."""
    manifest = write_manifest(tmp_path, base, surgery={"doctor_rows": {"declared": False}})
    here = call(manifest, "--json", "--samples", 4)
    path = os.pathsep.join([str(plugin), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    there = subprocess.run(
        [sys.executable, "-O", "-m", "coordcore", "doctor", str(manifest), "--json", "--samples", "4"],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (there.returncode, json.loads(there.stdout)) == (here.exit_code, json.loads(here.stdout))
    states = {finding["name"]: finding["state"] for finding in json.loads(there.stdout)["findings"]}
    assert (states["surgeries"], states["output head"]) == ("error", "not checked")


def test_what_was_seen_steers_no_terminal() -> None:
    from rich.console import Console

    from coordcore_doctor.findings import error
    from coordcore_doctor.table import table

    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115 - the console's own
    console.print(table([error("base", "a\x1b]0;mine\x07b" + "x" * 9_000, "c\x1b[2Jd")]))
    text = console.export_text()
    assert "\x1b" not in text
    assert r"\x1b]0;mine\x07b" in text
    assert r"c\x1b[2Jd" in text
    assert len(text) < 12_000
