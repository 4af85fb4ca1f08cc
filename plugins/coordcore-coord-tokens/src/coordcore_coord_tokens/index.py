"""The index of a file: where its lines or rows start, 8 bytes each, kept in a cache and mapped into memory."""

from __future__ import annotations

import io
import mmap
import os
import struct
import uuid
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain
from pathlib import Path

from coordcore.records.source import LONGEST
from coordcore_coord_tokens.files import Stamp

BLOCK = 1 << 20
# Magic (which also tells the byte order), the stamp, the number of lines, the CRC-32 of the offsets, nothing.
_HEADER = struct.Struct("=8Q")
_MAGIC = int.from_bytes(b"coordix1", "big")


class UnindexedError(Exception):
    """Why rows of a file cannot be told apart. number: of the row where that shows, from 1; None for the whole file."""

    def __init__(self, number: int | None, message: str) -> None:
        super().__init__(number, message)
        self.number = number
        self.message = message


def line_ends(
    descriptor: int, size: int, limit: int | None, advance: Callable[[int], None] = lambda _: None
) -> Iterator[array[int]]:
    """Where lines end, block by block; the first starts at 0. The last one may lack its line break.

    Reads `size` bytes, or less where `limit` lines take less; `advance` is told how many as they are read.
    Raises OSError, UnindexedError for a line longer than any record, and EOFError when the file is shorter than `size`.
    """
    start, wanted, count = 0, BLOCK, 0
    while start < size and (limit is None or count < limit):
        asked = min(wanted, size - start)
        block = os.pread(descriptor, asked, start)
        if len(block) < asked:
            raise EOFError
        lines = list(io.BytesIO(block))
        if start + asked < size and not block.endswith(b"\n"):
            lines.pop()
        if not lines:
            if wanted >= LONGEST:
                message = "every line holds one record, so line breaks are missing here"
                raise UnindexedError(count + 1, f"longer than {LONGEST >> 20} MiB; {message}")
            wanted *= 2
            continue
        if limit is not None:
            del lines[limit - count :]
        ends = array("Q", accumulate(map(len, lines), initial=start))[1:]
        advance(ends[-1] - start)
        start, wanted, count = ends[-1], BLOCK, count + len(lines)
        yield ends


def joined(blocks: Iterable[array[int]]) -> array[int]:
    """The offsets in memory, where there is no cache to map them from."""
    offsets = array("Q", [0])
    for block in blocks:
        offsets.extend(block)
    return offsets


def save_index(file: Path, stamp: Stamp, blocks: Iterable[array[int]]) -> None:
    """Write the index of a file in the state `stamp`: whole, or not at all. Raises OSError, and what `blocks` does."""
    scratch = file.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("xb") as out:
            out.write(bytes(_HEADER.size))
            count, check = -1, 0
            for block in chain([array("Q", [0])], blocks):
                out.write(block)
                count, check = count + len(block), zlib.crc32(block, check)
            out.seek(0)
            out.write(_HEADER.pack(_MAGIC, *_stamped(stamp), count, check, 0))
        scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)


def load_index(file: Path, stamp: Stamp) -> Sequence[int] | None:
    """The offsets in an index, mapped; None when there is none, or it is damaged or of another state of the file."""
    try:
        with file.open("rb") as data:
            magic, *stamped, count, check, _ = _HEADER.unpack(data.read(_HEADER.size))
            found = 0
            while block := data.read(BLOCK):
                found = zlib.crc32(block, found)
            whole = data.tell() == _HEADER.size + 8 * (count + 1)
            if (magic, tuple(stamped), check, whole) != (_MAGIC, _stamped(stamp), found, True):
                return None
            mapped = mmap.mmap(data.fileno(), 0, access=mmap.ACCESS_READ)
            return memoryview(mapped)[_HEADER.size :].cast("Q")
    except (OSError, struct.error):
        return None


def _stamped(stamp: Stamp) -> tuple[int, ...]:
    return stamp.size, stamp.modified % 2**64, stamp.changed % 2**64, stamp.inode
