"""Run-length masks of COCO: the box around their pixels, without decoding one.

`counts` are lengths of runs down the columns of an image of `size` [height, width], of pixels outside and inside by
turns, outside first. As text they are packed in characters from code 48 on, five bits each, the lowest first, with a
sixth bit for "more follows"; from the fourth run on, less the run two before (cocoapi, maskApi.c).
"""

from __future__ import annotations

from typing import Any, TypeGuard

from coordcore_data.convert.core import Box

_LONGEST = 13
"""Characters of a number of 64 bits."""


def mask_box(mask: dict[str, Any]) -> Box | None:
    """x1, y1, x2, y2 on pixel edges; None for a mask that is empty or cannot be read."""
    try:
        height, width = mask["size"]
        counts = mask["counts"]
    except (KeyError, TypeError, ValueError):
        return None
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    if not _are_whole(runs) or not _are_whole([height, width]) or sum(runs) != height * width:
        return None
    columns: list[int] = []
    rows: list[int] = []
    start = 0
    for index, run in enumerate(runs):
        if index % 2 and run:
            first, last = divmod(start, height), divmod(start + run - 1, height)
            columns += first[0], last[0]
            rows += (first[1], last[1]) if first[0] == last[0] else (0, height - 1)
        start += run
    return (min(columns), min(rows), max(columns) + 1, max(rows) + 1) if columns else None


def _are_whole(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _unpacked(text: str) -> list[int] | None:
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift >= 5 * _LONGEST:
            return None
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return None if shift else runs
