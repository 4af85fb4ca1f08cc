"""The two ways in which a file holds its rows: one a line, or as one JSON array. Where they end, and how each is named.

Numbers of rows count from 1 here, whatever the user is told.
"""

from __future__ import annotations

import io
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import attrs

from coordcore import Problem
from coordcore_coord_tokens.elements import Depth, element_ends, is_array, row_in
from coordcore_coord_tokens.files import shown
from coordcore_coord_tokens.index import UnindexedError, line_ends

_GZIP = b"\x1f\x8b"


class Layout(Protocol):
    """How a file holds its rows.

    suffix: of the index of such a file. noun, first: what a row is called by its number, and the first one's. cure: how
    rows get into a file that has none.
    """

    suffix: str
    noun: str
    first: int
    cure: str

    def ends(
        self, descriptor: int, size: int, limit: int | None, advance: Callable[[int], None] = ...
    ) -> Iterator[array[int]]:
        """Where rows end, as `index.line_ends` gives it."""
        ...

    def pieces(self, data: bytes, number: int) -> Iterable[bytes]:
        """What stands from each end of a row to the next. number: of the first row in `data`."""
        ...

    def row(self, piece: bytes, number: int) -> bytes:
        """The row in such a piece. Raises RecordError for what stands beside it."""
        ...

    def where(self, name: str, number: int) -> str:
        """How messages name a row of the file that they call `name`."""
        ...

    def problem(self, path: Path, message: str, number: int | None = None, place: str = "") -> Problem:
        """What is wrong with a row, or with the file."""
        ...


@attrs.frozen
class OnLines:
    """A row on each line: "train.jsonl:17"."""

    suffix = "index"
    noun = "line"
    first = 1
    cure = "write one a line"

    def ends(
        self, descriptor: int, size: int, limit: int | None, advance: Callable[[int], None] = lambda _: None
    ) -> Iterator[array[int]]:
        return line_ends(descriptor, size, limit, advance)

    def pieces(self, data: bytes, number: int) -> Iterable[bytes]:
        return io.BytesIO(data)

    def row(self, piece: bytes, number: int) -> bytes:
        return piece

    def where(self, name: str, number: int) -> str:
        return f"{name}:{number}"

    def problem(self, path: Path, message: str, number: int | None = None, place: str = "") -> Problem:
        return Problem(path=place, message=message, file=shown(path), line=number)


@attrs.frozen
class InArray:
    """One JSON array of all rows, with line breaks or without: "train.json[16]", counted from 0 as in paths."""

    suffix = "array.index"
    noun = "row"
    first = 0
    cure = "write them into the array"

    def ends(
        self, descriptor: int, size: int, limit: int | None, advance: Callable[[int], None] = lambda _: None
    ) -> Iterator[array[int]]:
        return element_ends(descriptor, size, limit, advance)

    def pieces(self, data: bytes, number: int) -> Iterable[bytes]:
        ends, _ = Depth(0 if number == 1 else 1).ends(data)
        start = 0
        for end in ends.tolist():
            yield data[start:end]
            start = end

    def row(self, piece: bytes, number: int) -> bytes:
        return row_in(piece, number)

    def where(self, name: str, number: int) -> str:
        return f"{name}[{number - 1}]"

    def problem(self, path: Path, message: str, number: int | None = None, place: str = "") -> Problem:
        return RowProblem(path=place, message=message, file=shown(path), line=number)


@attrs.frozen(kw_only=True)
class RowProblem(Problem):
    """What is wrong with a row of an array. line: the number of the row, by which problems are put in order."""

    def __str__(self) -> str:
        file = self.file if self.line is None else InArray().where(self.file or "", self.line)
        return str(Problem(path=self.path, message=self.message, file=file))


ON_LINES, IN_ARRAY = OnLines(), InArray()


def layout_of(descriptor: int, *, arrays: bool) -> Layout:
    """How an open file holds its rows. arrays: whether it may be an array.

    Raises OSError, and UnindexedError for a file that is compressed, or of which its first blanks hide what it is.
    """
    if os.pread(descriptor, len(_GZIP), 0) == _GZIP:
        raise UnindexedError(None, "is compressed with gzip; unpack it, as `gunzip` does, and name that file")
    return IN_ARRAY if arrays and is_array(descriptor) else ON_LINES
