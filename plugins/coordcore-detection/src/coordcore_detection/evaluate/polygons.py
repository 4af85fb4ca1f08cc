"""How far outlines overlap: the exact areas of any two polygons and of what they share. Torch-free.

Between two neighbouring x at which a corner lies or two sides cross, all sides are straight and apart. There an area is
the width times the heights in the middle, and sums of these are exact but for rounding, whatever the polygons' shape.
Inside is where an outline winds around (the nonzero rule): of one whose sides cross, all of its parts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CELLS = 1_000_000  # numbers in memory at a time


def areas(a: Floats, b: Floats) -> tuple[float, float, float]:
    """The areas of two polygons ([n, 2] and [m, 2] corners), and that of what both enclose."""
    sides = np.concatenate([np.hstack([item, np.roll(item, -1, axis=0)]) for item in (a, b)])
    first = np.arange(len(sides)) < len(a)
    upright = sides[:, 0] == sides[:, 2]
    sides, first = sides[~upright], first[~upright]
    edges = np.unique(np.concatenate([sides[:, 0], sides[:, 2], *_crossings(sides)]))
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    slope = (sides[:, 3] - sides[:, 1]) / (sides[:, 2] - sides[:, 0])
    low, high = sides[:, [0, 2]].min(1), sides[:, [0, 2]].max(1)
    turn = np.sign(sides[:, 2] - sides[:, 0]).astype(np.int64)
    total = np.zeros(3)
    step = max(1, _CELLS // max(1, len(sides)))
    for begin in range(0, len(middle), step):
        at = middle[begin : begin + step, None]
        there = (low < at) & (at < high)
        height = np.where(there, sides[:, 1] + (at - sides[:, 0]) * slope, np.inf)
        order = np.argsort(height, axis=1)
        height = np.take_along_axis(height, order, axis=1)
        gap = np.diff(np.where(np.isfinite(height), height, 0.0), axis=1)
        inside = [
            np.cumsum(np.take_along_axis(there * own * turn, order, axis=1), axis=1)[:, :-1] != 0
            for own in (first, ~first)
        ]
        for index, covered in enumerate((inside[0], inside[1], inside[0] & inside[1])):
            total[index] += width[begin : begin + step] @ (gap * covered).sum(1)
    own, other, both = total.tolist()
    return own, other, both


def has_area(outline: Floats) -> bool:
    """Whether a polygon ([n, 2] corners) encloses anything: not one whose corners lie on a line, but for rounding."""
    least = 1e-9 * float(np.ptp(outline, axis=0).prod())
    x, y = (outline - outline[0]).T
    # What is wound around more one way than the other has area; the rest takes the square of the corners' number.
    if abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2 > least:
        return True
    return areas(outline, outline)[0] > least


def _crossings(sides: Floats) -> Iterator[Floats]:
    """The x at which sides ([n, 4] x1, y1, x2, y2) cross, a bounded number of pairs at a time."""
    start, way = sides[:, :2], sides[:, 2:] - sides[:, :2]
    step = max(1, _CELLS // max(1, len(sides)))
    for begin in range(0, len(sides), step):
        here = slice(begin, begin + step)
        apart = start[None] - start[here, None]
        slant = _cross(way[here, None], way[None])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # parallel sides do not cross
            along, across = _cross(apart, way[None]) / slant, _cross(apart, way[here, None]) / slant
        crosses = (along > 0) & (along < 1) & (across > 0) & (across < 1)
        yield (start[here, None, 0] + along * way[here, None, 0])[crosses]


def _cross(a: Floats, b: Floats) -> Floats:
    result: Floats = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return result


def holds(outline: Floats, x: float, y: float) -> bool:
    """Whether a point lies in a polygon, or on its outline."""
    x1, y1 = (outline - (x, y)).T
    x2, y2 = np.roll(x1, -1), np.roll(y1, -1)
    side = x1 * y2 - x2 * y1
    if ((side == 0) & (np.minimum(x1, x2) <= 0) & (np.maximum(x1, x2) >= 0) & (y1 * y2 <= 0)).any():
        return True
    return bool(((y1 <= 0) & (y2 > 0) & (side > 0)).sum() != ((y1 > 0) & (y2 <= 0) & (side < 0)).sum())
