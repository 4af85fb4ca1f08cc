"""The boxes of masks: of COCO's run lengths, plain or as text, without a picture of the mask; of a PNG by its size."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from coordcore_data.convert.core import Box
from coordcore_data.convert.text import UnreadableError, number

_BROKEN = "RLE mask that cannot be read"
_EMPTY = "RLE mask of no pixel"
_LARGEST = 1 << 31
_LONGEST = 7
"""Letters of a run in COCO's text: 5 bits each, more than any image has pixels."""


def rle_box(mask: dict[str, Any], width: float | None, height: float | None) -> Box:
    """The box around COCO's `{"size": [height, width], "counts": ...}`, on pixel edges, in whole numbers throughout.

    The counts are runs of pixels outside and inside in turn, down the columns from the left. width, height: of the
    image, None where nobody has said. Raises UnreadableError.
    """
    rows, columns = _size(mask.get("size"))
    if (width, height) != (columns, rows) and None not in (width, height):
        raise UnreadableError("RLE mask of another size than its image", f"{columns} x {rows}")
    given = mask.get("counts")
    runs = _from_text(given) if isinstance(given, str) else _numbers(given)
    if min(runs, default=0) < 0 or sum(runs) > rows * columns:
        raise UnreadableError(_BROKEN, "runs that do not fit into its size")
    left, top, right, bottom = columns, rows, 0, 0
    start = 0
    for index, run in enumerate(runs):
        if index % 2 and run:
            (x1, y1), (x2, y2) = divmod(start, rows), divmod(start + run - 1, rows)
            left, right = min(left, x1), max(right, x2 + 1)
            # A run over the foot of a column is at the head of the next.
            top, bottom = min(top, y1 if x1 == x2 else 0), max(bottom, y2 + 1 if x1 == x2 else rows)
        start += run
    if right <= left:
        raise UnreadableError(_EMPTY)
    return float(left), float(top), float(right), float(bottom)


def _size(given: Any) -> tuple[int, int]:
    sizes = _numbers(given)
    if len(sizes) != 2 or min(sizes) < 1 or max(sizes) > _LARGEST:
        raise UnreadableError(_BROKEN, "its size is not that of an image")
    return sizes[0], sizes[1]


def _numbers(given: Any) -> list[int]:
    try:
        found = [number(value) for value in given]
    except (TypeError, ValueError) as error:
        raise UnreadableError(_BROKEN, "no list of numbers") from error
    if not all(type(value) is int or (type(value) is float and value.is_integer()) for value in found):
        raise UnreadableError(_BROKEN, "no list of whole numbers")
    return [int(value) for value in found]


def _from_text(text: str) -> list[int]:
    """The runs of COCO's text: 5 bits a letter from "0" on, low bits first, a sixth where more follow, the top one the
    sign. From the fourth run on it is the difference to the run two before that is written."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift >= 5 * _LONGEST:
            raise UnreadableError(_BROKEN, "counts that are no text of COCO's")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise UnreadableError(_BROKEN, "counts that are cut off")
    return runs


def png_size(text: str) -> tuple[int, int] | None:
    """Width and height of a PNG that is written in base64, None of anything else."""
    try:
        head = base64.b64decode(text[:32], validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(head) < 24 or not head.startswith(b"\x89PNG\r\n\x1a\n") or head[12:16] != b"IHDR":
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
