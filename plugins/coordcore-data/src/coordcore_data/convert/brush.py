"""Label Studio's brush masks: the box around what is painted, and its area, without a picture of the mask.

A mask is a list of bytes, of a stream of bits with the highest first, as rle-pack of @thi.ng/umbrella describes it:
32 bits, the number of words; 5, the bits of a word less one; four times 4, the bits of a length less one. Then runs:
one bit, whether one word is repeated; 2, which of the four; the length less one; the word, or as many words. The words
are red, green, blue and alpha of each pixel, row by row; what has alpha is painted, as in label-studio-converter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from coordcore_data.convert.core import Box
from coordcore_data.convert.text import UnreadableError

_BROKEN = "brush mask that cannot be read"
_CHANNELS = 4
_ALPHA = 3


def painted(given: Any, width: float | None, height: float | None) -> tuple[Box, float]:
    """The box around a brush mask, on pixel edges, and its area in pixels. width, height: of the image, which the mask
    does not say. Raises UnreadableError.
    """
    if width is None or height is None:
        raise UnreadableError("brush mask on an image of unknown size")
    columns, rows = int(width), int(height)
    if (columns, rows) != (width, height) or columns < 1 or rows < 1:
        raise UnreadableError(_BROKEN, f"an image of {width} x {height}")
    bits = _Bits(given)
    count = bits.read(32)
    if count != columns * rows * _CHANNELS:
        raise UnreadableError("brush mask of another size than its image", f"{count} values for {columns} x {rows}")
    left, top, right, bottom, area = columns, rows, 0, 0, 0
    for first, stop in _runs(bits, count):
        (y1, x1), (y2, x2) = divmod(first, columns), divmod(stop - 1, columns)
        top, bottom = min(top, y1), max(bottom, y2 + 1)
        # A run over the end of a row is at the beginning of the next.
        left, right = min(left, x1 if y1 == y2 else 0), max(right, x2 + 1 if y1 == y2 else columns)
        area += stop - first
    if not area:
        raise UnreadableError("brush mask of no pixel")
    return (float(left), float(top), float(right), float(bottom)), float(area)


def _runs(bits: _Bits, count: int) -> Iterator[tuple[int, int]]:
    """The painted pixels, as runs of them: the first, and the one behind the last."""
    width = bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(_CHANNELS)]
    at = 0
    while at < count:
        repeated = bits.read(1)
        stop = at + 1 + bits.read(sizes[bits.read(2)])
        if stop > count:
            raise UnreadableError(_BROKEN, "more values than it says")
        # The pixels of which the alpha is among the words from `at` to `stop`.
        first, last = (at - _ALPHA + _CHANNELS - 1) // _CHANNELS, (stop - 1 - _ALPHA) // _CHANNELS
        if repeated:
            if bits.read(width) and first <= last:
                yield first, last + 1
        else:
            start = bits.at
            bits.skip((stop - at) * width)
            for pixel in range(first, last + 1):
                if bits.peek(start + (pixel * _CHANNELS + _ALPHA - at) * width, width):
                    yield pixel, pixel + 1
        at = stop


class _Bits:
    """A stream of bits. at: the place of the next. Reading raises UnreadableError behind its end."""

    def __init__(self, given: Any) -> None:
        try:
            self.data = bytes(given) if isinstance(given, list) else b""
        except (TypeError, ValueError) as error:
            raise UnreadableError(_BROKEN, "no list of bytes") from error
        self.size, self.at = 8 * len(self.data), 0

    def read(self, size: int) -> int:
        at = self.at
        self.skip(size)
        return self.peek(at, size)

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > self.size:
            raise UnreadableError(_BROKEN, "cut off")

    def peek(self, at: int, size: int) -> int:
        """`size` bits, at most 32, from `at` on, which must be there."""
        first, stop = at // 8, (at + size + 7) // 8
        return int.from_bytes(self.data[first:stop], "big") >> (8 * stop - at - size) & ((1 << size) - 1)
