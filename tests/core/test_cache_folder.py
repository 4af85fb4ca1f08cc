"""Where everything is kept that can be made again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from coordcore.files import cache_folder


def test_the_environment_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDCORE_CACHE", "/some/where")

    assert cache_folder() == Path("/some/where")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep their caches elsewhere")
def test_else_it_lies_in_the_user_s_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("COORDCORE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert cache_folder() == tmp_path / "coordcore"
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COORDCORE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)

    with pytest.raises(OSError, match="Not a directory"):
        cache_folder().mkdir(parents=True)
