"""Where everything is kept that can be made again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from coordcore.errors import InputError
from coordcore.files import cache_folder, own_cache_folder


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


@pytest.mark.parametrize("umask", [0, 0o002, 0o077])
def test_it_is_made_for_its_user_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, umask: int) -> None:
    monkeypatch.setenv("COORDCORE_CACHE", str(tmp_path / "cache"))
    before = os.umask(umask)
    try:
        assert own_cache_folder() == own_cache_folder() == tmp_path / "cache"
    finally:
        os.umask(before)
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777, 0o702])
def test_one_that_others_can_write_to_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int) -> None:
    monkeypatch.setenv("COORDCORE_CACHE", str(tmp_path))
    tmp_path.chmod(mode)
    with pytest.raises(InputError, match=rf"others can write to the cache folder; chmod go-w {tmp_path}, or name"):
        own_cache_folder()
    tmp_path.chmod(mode & ~0o022)
    assert own_cache_folder() == tmp_path


def test_somebody_else_s_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COORDCORE_CACHE", str(tmp_path))
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(InputError, match=f"belongs to user {mine}; make it your own"):
        own_cache_folder()


def test_one_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COORDCORE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match=r"file/cache: the cache folder cannot be made: not a directory"):
        own_cache_folder()
