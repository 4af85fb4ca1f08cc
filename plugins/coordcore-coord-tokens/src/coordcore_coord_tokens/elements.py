"""The rows of a file that is one JSON array: where each ends, found without reading any of them, and its own bytes."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from coordcore.records.record import RecordError
from coordcore.records.source import LONGEST
from coordcore_coord_tokens.index import BLOCK, UnindexedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WHITE = b" \t\r\n"
_FRONT = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\[[ \t\r\n]*")
_COMMA = re.compile(rb"[ \t\r\n]*,[ \t\r\n]*")
_HEAD, _SEEN = 1 << 16, 40
_QUOTE, _OPENING, _CLOSING, _BACKSLASH = b'"[]\\'
_FOLDED = 0xDF
"""Takes one bit from a brace, which makes it the bracket of its side; no other byte becomes one."""


def is_array(descriptor: int) -> bool:
    """Whether a file begins as a JSON array does, with a byte order mark before it or not.

    Raises OSError, and UnindexedError where nothing but blanks is seen.
    """
    head = os.pread(descriptor, _HEAD, 0)
    if len(head) == _HEAD and not head.strip(_WHITE):
        raise UnindexedError(None, f"begins with {_HEAD >> 10} KiB of blanks or more; remove them")
    return _FRONT.match(head) is not None


class Depth:
    """How deep in brackets a text is that comes block by block. 1 is between the rows of an array."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._quoted = self._escaped = False

    def ends(self, block: bytes) -> tuple[NDArray[Any], int | None]:
        """Behind which bytes of the next block a row ends, and behind which one the array does, None if it goes on.

        Brackets are not told from braces, nor is anything else looked at that a row is read for.
        """
        import numpy as np

        if self._escaped:
            block = b"_" + block[1:]
        self._escaped = _backslashes_before(block, len(block)) % 2 == 1
        letters = np.frombuffer(block, dtype=np.uint8)
        folded = letters & _FOLDED
        marks = np.flatnonzero((letters == _QUOTE) | (folded == _OPENING) | (folded == _CLOSING))
        quote = letters[marks] == _QUOTE
        brackets = ~quote
        escaped = quote & (marks > 0) & (letters[marks - 1] == _BACKSLASH)
        for index in np.flatnonzero(escaped & (letters[np.maximum(marks - 2, 0)] == _BACKSLASH)).tolist():
            escaped[index] = _backslashes_before(block, int(marks[index])) % 2 == 1
        quoted = np.cumsum(quote & ~escaped) + self._quoted
        self._quoted = bool(quoted[-1] % 2) if len(quoted) else self._quoted
        places = marks[brackets & (quoted % 2 == 0)]
        opens = folded[places] == _OPENING
        depths = self._depth + np.cumsum(np.where(opens, 1, -1))
        self._depth = int(depths[-1]) if len(depths) else self._depth
        over = np.flatnonzero(depths <= 0)
        if len(over):
            places, opens, depths = places[: over[0] + 1], opens[: over[0] + 1], depths[: over[0] + 1]
        return places[(depths == 1) & ~opens] + 1, int(places[-1]) + 1 if len(over) else None


def _backslashes_before(block: bytes, place: int) -> int:
    count = 0
    while count < place and block[place - count - 1] == _BACKSLASH:
        count += 1
    return count


def element_ends(
    descriptor: int, size: int, limit: int | None, advance: Callable[[int], None] = lambda _: None
) -> Iterator[array[int]]:
    """Where the rows of an array end, block by block, as `index.line_ends` says where lines do.

    What stands between two rows belongs to the second. Raises OSError, EOFError when the file is shorter than `size`,
    and UnindexedError for an array that does not end, or behind whose last row something else stands.
    """
    depth = Depth(0)
    start, last, count = 0, 0, 0
    while start < size and (limit is None or count < limit):
        block = os.pread(descriptor, asked := min(BLOCK, size - start), start)
        if len(block) < asked:
            raise EOFError
        found, closed = depth.ends(block)
        ends = array("Q", (found + start).tolist()[: None if limit is None else limit - count])
        advance(asked)
        if ends:
            last, count = ends[-1], count + len(ends)
            yield ends
        if closed is not None:
            if limit is None or count < limit:
                _require_end(descriptor, (last, start + closed, size), count)
            return
        start += asked
        if start - last > LONGEST:
            message = f"longer than {LONGEST >> 20} MiB; is a quote or a bracket missing in it?"
            raise UnindexedError(count + 1, message)
    if limit is None or count < limit:
        rest = os.pread(descriptor, size - last, last)
        if count and not rest.strip(_WHITE + b","):
            raise UnindexedError(None, f"the array does not end behind its row {count - 1}; copy the file anew, whole")
        message = "the file ends within this row; copy it anew, whole, or look for a missing quote or bracket"
        raise UnindexedError(count + 1, message)


def _require_end(descriptor: int, places: tuple[int, int, int], count: int) -> None:
    """Raise UnindexedError unless nothing but the array's end stands behind its last row.

    places: where that row ends, where the array does, and where the file does.
    """
    last, closed, size = places
    rest = os.pread(descriptor, closed - last, last)
    if count == 0:
        rest = _FRONT.sub(b"", rest, count=1)
    rest = rest.strip(_WHITE)
    if count and rest.startswith(b",") and not rest[1:-1].strip(_WHITE):
        raise UnindexedError(None, f"a comma behind row {count - 1}, the last of the array; remove it")
    if rest != b"]":
        raise UnindexedError(count + 1, no_object(rest.removesuffix(b"]").lstrip(_WHITE + (b"," if count else b""))))
    while closed < size:
        block = os.pread(descriptor, min(BLOCK, size - closed), closed)
        if not block:
            raise EOFError
        if behind := block.lstrip(_WHITE):
            place = closed + len(block) - len(behind)
            message = f"{_seen(os.pread(descriptor, _SEEN, place))} behind the end of the array, at byte {place}"
            raise UnindexedError(None, f"{message}; write one array of all rows, or one row a line")
        closed += len(block)


def row_in(piece: bytes, number: int) -> bytes:
    """The row in what stands from the end of one to the end of the next. number: the row's, from 1.

    Raises RecordError unless one comma, or the beginning of the array, stands before it, and it is an object.
    """
    front = (_COMMA if number > 1 else _FRONT).match(piece)
    if front is None:
        message = f"no comma between row {number - 2} and this one; write it" if number > 1 else "no array begins here"
        raise RecordError("", message)
    row = piece[front.end() :]
    if not row.startswith((b"{", b"[")):  # of a list, the reader of rows says what it is
        raise RecordError("", no_object(row))
    return row


def no_object(text: bytes) -> str:
    return f"expected object, got {_seen(text)}"


def _seen(text: bytes) -> str:
    return repr(text[:_SEEN].decode("utf-8", "replace"))
