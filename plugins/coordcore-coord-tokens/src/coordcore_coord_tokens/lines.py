"""The lines of an indexed file, or the rows of its array, by their number."""

from __future__ import annotations

import os
import weakref
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

from coordcore import InputError
from coordcore_coord_tokens.files import Stamp, has_changed, open_regular, shown, unreadable
from coordcore_coord_tokens.index import joined, load_index
from coordcore_coord_tokens.layout import Layout

LOOK_AGAIN = 256
"""Lines after which it is looked again whether the file has changed."""


class Lines:
    """The lines of a file, read one by one. Every process opens the file once, and shares no position in it.

    layout: whether they are lines, or the rows of an array. offsets: where each starts, and where the last one ends.
    index: the file they are mapped from, None where they are held in memory. With one, pickling sends its name alone.
    """

    def __init__(self, path: Path, stamp: Stamp, layout: Layout, offsets: Sequence[int], index: Path | None) -> None:
        self.path = path
        self.stamp = stamp
        self.layout = layout
        self.offsets = offsets
        self.index = index
        self._descriptor: int | None = None
        self._unlooked = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, number: int) -> bytes:
        """A line with its line break, or a row. number: from 0.

        Raises InputError when the file cannot be read or is not what was indexed, and RecordError for a row that
        nothing parts from the one before.
        """
        start, end = self.offsets[number], self.offsets[number + 1]
        descriptor = self._descriptor
        if descriptor is None or self._unlooked >= LOOK_AGAIN:
            descriptor = self.look()
        self._unlooked += 1
        return self.layout.row(os.pread(descriptor, end - start, start), number + 1)

    def look(self) -> int:
        """The descriptor of the file, whose state is looked at. Raises InputError unless it is what was indexed."""
        if self._descriptor is None:
            try:
                self._descriptor, stamp = open_regular(self.path)
            except OSError as error:
                raise InputError(f"{shown(self.path)}: {unreadable(error)}") from error
            weakref.finalize(self, os.close, self._descriptor)
        else:
            stamp = Stamp.of(os.fstat(self._descriptor))
        if not stamp.same_content(self.stamp):
            raise has_changed(self.path)
        self._unlooked = 0
        return self._descriptor

    def __reduce__(self) -> tuple[Callable[..., Lines], tuple[object, ...]]:
        held = array("Q", self.offsets) if self.index is None else None
        return _unpickled, (self.path, self.stamp, self.layout, self.index, held, len(self))


def _unpickled(
    path: Path, stamp: Stamp, layout: Layout, index: Path | None, held: array[int] | None, count: int
) -> Lines:
    offsets: Sequence[int] | None = held if index is None else load_index(index, stamp)
    if offsets is not None:
        return Lines(path, stamp, layout, offsets, index)
    # The cache was emptied meanwhile, or the file was indexed anew.
    lines = Lines(path, stamp, layout, (), None)
    lines.offsets = joined(layout.ends(lines.look(), stamp.size, count))
    return lines
