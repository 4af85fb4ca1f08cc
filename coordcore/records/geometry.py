"""Boxes of one image against each other. Torch-free; needs numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def overlaps(truth: Floats, crowd: Bools, predicted: Floats) -> Floats:
    """IoU of each of the [n, 4] boxes with its counterpart, or the share of `predicted` inside a crowd region: [n]."""
    # pycocotools computes with x, y, w, h; to agree with it where an IoU falls on a threshold, so does this.
    size_t, size_p = truth[:, 2:] - truth[:, :2], predicted[:, 2:] - predicted[:, :2]
    low = np.maximum(truth[:, :2], predicted[:, :2])
    high = np.minimum(truth[:, :2] + size_t, predicted[:, :2] + size_p)
    shared = np.clip(high - low, 0.0, None).prod(1)
    area_p = size_p.prod(1)
    whole = np.where(crowd, area_p, size_t.prod(1) + area_p - shared)
    result: Floats = np.divide(shared, whole, out=np.zeros(len(whole)), where=shared > 0)
    return result
