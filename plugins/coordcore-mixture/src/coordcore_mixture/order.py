"""In which order an epoch goes through its sources, and a source through its records: arithmetic, nothing is kept.

Legend: N records in an epoch, counts[s] of them from source s.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from math import gcd

_GOLDEN = 0.6180339887498949  # (sqrt(5) - 1) / 2: steps of this share of a circle never come close to where they were


def place(index: int, counts: Sequence[int]) -> tuple[int, int]:
    """Which source the record `index` of an epoch is from, and which of that source's in this epoch.

    The k-th record of a source of n stands at the share (2k + 1) / 2n of the epoch, ties in the order of the sources.
    Any beginning of the epoch then holds of S sources each its share, to within (S + 1) / 2 records.
    """
    total, slack = sum(counts), len(counts) + 3
    for source, count in enumerate(counts):
        # About count / total of what lies before, off by a rounding for each of the other sources.
        first = max(0, count * (2 * index - slack) // (2 * total) - 1)
        end = min(count, count * (2 * index + slack) // (2 * total) + 2)
        found = bisect_left(range(end), index, lo=first, key=partial(_index, counts, source))
        if found < end and _index(counts, source, found) == index:
            return source, found
    raise IndexError(f"record {index} of an epoch of {total}")


def _index(counts: Sequence[int], source: int, k: int) -> int:
    """Where the k-th record of a source stands in the epoch: how many stand before it."""
    return k + sum(
        # Of another source those j stand before for which (2j + 1) / count < (2k + 1) / counts[source].
        (((2 * k + 1) * count - (other > source)) // counts[source] + 1) // 2
        for other, count in enumerate(counts)
        if other != source
    )


def shuffled(number: int, length: int, key: str) -> int:
    """Which of `length` records the draw `number` takes, counted over all epochs.

    Each pass over the source takes every record once. Draws that follow each other lie far apart, so that any stretch
    of them is spread evenly over a source that is sorted. Where a pass begins follows from `key`.
    """
    turn, step = divmod(number, length)
    stride = max(1, round(length * _GOLDEN))
    while gcd(stride, length) > 1:
        stride += 1
    begin = int.from_bytes(sha256(f"{key} {turn}".encode()).digest()[:8])
    return (begin + step * stride) % length
