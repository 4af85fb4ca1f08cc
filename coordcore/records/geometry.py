"""Geometries as plain numbers: their kinds, what encloses them, whether corners are in order, how far boxes overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

Number = TypeVar("Number", int, float)

COUNTS: Mapping[str, int | None] = {"bbox_2d": 4, "poly": None, "point": 2, "quad": 8}
"""Each kind of geometry, and how many numbers it has, x first; None for a polygon, which has any even number from 6 on.

Of a box these are its upper left and its lower right corner, of a quad, such as a rotated box, all four in `clockwise`
order.
"""

KINDS = tuple(COUNTS)


def has_count(kind: str, count: int) -> bool:
    """Whether a geometry of a kind can have so many numbers."""
    return count == COUNTS[kind] if COUNTS[kind] else count >= 6 and count % 2 == 0


def bounds(points: Sequence[Number]) -> tuple[Number, Number, Number, Number]:
    """x1, y1, x2, y2 of the smallest box around x, y, x, y, ..."""
    xs, ys = points[::2], points[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def bounds_inside(poly: Sequence[float], width: float, height: float) -> tuple[float, float, float, float] | None:
    """x1, y1, x2, y2 of the box around the part of a polygon that lies within 0..width, 0..height; None without one.

    That part is limited by corners of the polygon, by corners of the image, and where an edge of the one crosses one
    of the other. The box of the whole polygon, cut, would be larger: a slanted side leaves the image where it likes.
    """
    ends = list(zip(poly[::2], poly[1::2], strict=True))
    edges = list(zip(ends, ends[1:] + ends[:1], strict=True))
    found = [(x, y) for x, y in ends if 0 <= x <= width and 0 <= y <= height]
    for (x1, y1), (x2, y2) in edges:
        for limit in (0.0, width):
            if (x1 < limit) != (x2 < limit) and 0 <= (y := y1 + (limit - x1) / (x2 - x1) * (y2 - y1)) <= height:
                found.append((limit, y))
        for limit in (0.0, height):
            if (y1 < limit) != (y2 < limit) and 0 <= (x := x1 + (limit - y1) / (y2 - y1) * (x2 - x1)) <= width:
                found.append((x, limit))
    found += [corner for corner in ((0.0, 0.0), (width, 0.0), (0.0, height), (width, height)) if _winds(edges, *corner)]
    if not found:
        return None
    x1, y1, x2, y2 = bounds([value for point in found for value in point])
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _winds(edges: Sequence[tuple[tuple[float, float], tuple[float, float]]], x: float, y: float) -> int:
    """How often the edges of a polygon turn around x, y: 0 outside of it (Sunday 2001)."""
    turns = 0
    for (x1, y1), (x2, y2) in edges:
        if (y1 <= y) != (y2 <= y):
            side = (x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)
            turns += (side > 0) - (side < 0) if (side > 0) == (y1 <= y) else 0
    return turns


def misordered(box: Sequence[float]) -> str:
    """ "x2 = 100 < x1 = 300" for a box whose second corner lies before its first, "" for any other."""
    x1, y1, x2, y2 = box
    if x2 < x1:
        return f"x2 = {x2} < x1 = {x1}"
    return f"y2 = {y2} < y1 = {y1}" if y2 < y1 else ""


def clockwise(
    quad: Sequence[Number], width: float = 1, height: float = 1, *, edge: tuple[float, float] = (inf, inf)
) -> tuple[Number, ...] | None:
    """The corners of a quad in the order that is trained; None where its sides cross.

    They go around clockwise as one sees it (y points down), from the corner where x + y is least in pixels, the upper
    of two such. width, height: what the numbers are to be multiplied with for that. edge: the largest x and y of the
    image; which corner is first follows from where they are once the quad is clipped to it.
    """
    a, b, c, d = corners = list(zip(quad[::2], quad[1::2], strict=True))
    if _cross(a, b, c, d) or _cross(b, c, d, a):
        return None
    if _turn(a, b, c) + _turn(a, c, d) < 0:  # twice the area
        corners.reverse()
    # Of equal sums, rounding errors shall not decide.
    seen = [(min(max(x, 0), edge[0]), min(max(y, 0), edge[1])) for x, y in corners]
    sums = [round(x * width + y * height, 6) for x, y in seen]
    first = min(range(4), key=lambda place: (sums[place], seen[place][1]))
    return tuple(value for corner in corners[first:] + corners[:first] for value in corner)


def _cross(a: Sequence[float], b: Sequence[float], c: Sequence[float], d: Sequence[float]) -> bool:
    """Whether the lines from a to b and from c to d cross between their ends."""
    return _turn(a, b, c) * _turn(a, b, d) < 0 and _turn(c, d, a) * _turn(c, d, b) < 0


def _turn(a: Sequence[float], b: Sequence[float], c: Sequence[float]) -> float:
    """Above 0 where the way from a over b to c turns clockwise, as one sees it."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def overlaps(truth: Floats, crowd: Bools, predicted: Floats) -> Floats:
    """IoU of each of the [n, 4] boxes with its counterpart, or the share of `predicted` inside a crowd region: [n]."""
    import numpy as np  # a record is read without it

    # pycocotools computes with x, y, w, h; to agree with it where an IoU falls on a threshold, so does this.
    size_t, size_p = truth[:, 2:] - truth[:, :2], predicted[:, 2:] - predicted[:, :2]
    low = np.maximum(truth[:, :2], predicted[:, :2])
    high = np.minimum(truth[:, :2] + size_t, predicted[:, :2] + size_p)
    shared = np.clip(high - low, 0.0, None).prod(1)
    area_p = size_p.prod(1)
    whole = np.where(crowd, area_p, size_t.prod(1) + area_p - shared)
    result: Floats = np.divide(shared, whole, out=np.zeros(len(whole)), where=shared > 0)
    return result
