"""Boxes and polygons as plain numbers: what encloses them, whether corners are in order, how far boxes overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

Number = TypeVar("Number", int, float)

KINDS = ("bbox_2d", "poly")
"""The kinds of geometry: x1, y1, x2, y2 of a box, or x1, y1, x2, y2, ... of a polygon's points."""


def bounds(points: Sequence[Number]) -> tuple[Number, Number, Number, Number]:
    """x1, y1, x2, y2 of the smallest box around x, y, x, y, ..."""
    xs, ys = points[::2], points[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def misordered(box: Sequence[float]) -> str:
    """ "x2 = 100 < x1 = 300" for a box whose second corner lies before its first, "" for any other."""
    x1, y1, x2, y2 = box
    if x2 < x1:
        return f"x2 = {x2} < x1 = {x1}"
    return f"y2 = {y2} < y1 = {y1}" if y2 < y1 else ""


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
