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
