"""Every test starts in an empty folder, with no plugin blocked and a cache of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `fakes`


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COORDCORE_BLOCK", raising=False)
    monkeypatch.setenv("COORDCORE_CACHE", str(tmp_path / ".cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / ".hub"))


@pytest.fixture
def usual_files() -> None:
    """What the manifests of tests name: a base and a file of boxes."""
    Path("base").mkdir()
    Path("boxes.jsonl").touch()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how large the core is."""
    from test_house import code_lines_of

    sizes = ", ".join(f"{part} {code_lines_of(part)}" for part in ("the contract", "the floor"))
    terminalreporter.write_line(f"lines of code in the core: {sizes}")
