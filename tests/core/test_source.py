"""Files that others wrote: what is not opened, how far a packed one is read, how long a line may be."""

from __future__ import annotations

import gzip
import os
from functools import partial
from pathlib import Path

import pytest

from coordcore.errors import InputError
from coordcore.records import source
from coordcore.records.source import all_lines, open_source


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_lines_are_numbered_packed_or_not(tmp_path: Path, pack: type[bytes]) -> None:
    (tmp_path / "a").write_bytes(pack(b"one\n\nthree"))

    assert list(all_lines(tmp_path / "a")) == [(1, b"one\n"), (2, b"\n"), (3, b"three")]


def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")

    with pytest.raises(InputError) as caught:
        list(all_lines(tmp_path / "a"))
    assert str(caught.value) == (
        f"{tmp_path}/a: cannot be read: is a pipe or a device; write what it gives into a file"
    )


def test_a_line_without_end_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "LONGEST", 4)
    (tmp_path / "a").write_text("abc\nabcd\n")
    lines = all_lines(tmp_path / "a")

    assert next(lines) == (1, b"abc\n")
    with pytest.raises(InputError, match=r"a:2: longer than 0 MiB; are its line breaks missing\?"):
        next(lines)


@pytest.mark.parametrize("size", [-1, 3, 2**20])
def test_what_unpacks_to_far_too_much_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(source, "SMALL", 2**16)
    (tmp_path / "a").write_bytes(gzip.compress(b" " * 2**24))

    with open_source(tmp_path / "a") as file, pytest.raises(InputError, match="more than 200 times its size"):
        list(iter(partial(file.read, size), b""))


def test_a_packed_file_is_read_whole(tmp_path: Path) -> None:
    held = os.urandom(2**18)
    (tmp_path / "a").write_bytes(gzip.compress(held))

    with open_source(tmp_path / "a") as file:
        assert file.read() == held


def test_a_damaged_packed_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(os.urandom(2**18))[:-20])

    with open_source(tmp_path / "a") as file, pytest.raises(InputError, match=r"a: damaged gzip file: .*copy it anew"):
        file.read()
