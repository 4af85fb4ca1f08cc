"""Files that others wrote, opened and read line by line: no pipe, no gzip file that blows up, no endless line."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from coordcore.errors import InputError
from coordcore.files import require_regular

LONGEST = 1 << 26
"""Bytes that a line may have. A longer one is a file without line breaks, and would be held in memory whole."""

SMALL, RATIO = 1 << 28, 200
"""A packed file may unpack to so many bytes, or to so many times its own size where that is more."""

_BLOCK = 1 << 16


class _Unpacked(gzip.GzipFile):
    """What a gzip file holds, up to the limit. Reading raises InputError beyond it, and for a damaged file."""

    def read(self, size: int | None = None) -> bytes:
        try:
            data = super().read(min(size or _BLOCK, _BLOCK))  # never all at once
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{self.name}: damaged gzip file: {error}; copy it anew") from error
        if self.tell() > max(SMALL, RATIO * Path(self.name).stat().st_size):
            raise InputError(f"{self.name}: unpacks to more than {RATIO} times its size: not read")
        return data


def open_source(path: Path) -> BinaryIO:
    """The file for reading, or what it holds if it is a gzip file. Raises OSError; reading may raise InputError."""
    require_regular(path)
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return io.BufferedReader(_Unpacked(path), _BLOCK) if packed else path.open("rb")


def all_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line) of a file, unpacked if it is a gzip file. Raises InputError when it cannot be read."""
    try:
        with open_source(path) as file:
            for number, line in enumerate(iter(partial(file.readline, LONGEST + 1), b""), start=1):
                if len(line) > LONGEST:
                    raise InputError(f"{path}:{number}: longer than {LONGEST >> 20} MiB; are its line breaks missing?")
                yield number, line
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
