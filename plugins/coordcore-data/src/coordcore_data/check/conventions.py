"""Which conventions bins can come from, told by whole pixels: each convention gives those to some bins and never to
others where an image has fewer pixels than there are bins."""

from __future__ import annotations

import numpy as np

from coordcore.quantisation import QUANTISATIONS, Quantisation
from coordcore_data.check.sample import Array, Sample, in_order
from coordcore_data.convert.core import BoxOrder

_ENOUGH = 200
"""Coordinates."""

_UPPER = [False, False, True, True]


def contradicted(sample: Sample, order: BoxOrder) -> tuple[Quantisation, list[str], float] | None:
    """The convention that is said or declared, or the default, when the bins are not its own but another's.

    With the names of those others, and the share of the coordinates that the first one would not write. None where
    that cannot be told: bins of unrounded pixels, and of large images, can come from any convention.
    """
    ours = sample.spec
    last = min(spec.bins for spec in (ours, *QUANTISATIONS.values())) - 1
    boxes, sizes = in_order(sample.boxes, order), np.tile(sample.sizes, 2)
    tells = (sizes > 1) & (sizes < 700) & (boxes % 1 == 0) & (boxes >= 0) & (boxes <= last)
    # Only sizes that are known, and whole boxes: a corner tells nothing of how the other was rounded.
    boxes, sizes = boxes[tells.all(1)], sizes[tells.all(1)]
    if boxes.size < _ENOUGH:
        return None
    shares = {name: _share(boxes, sizes, spec) for name, spec in {**QUANTISATIONS, ours.name: ours}.items()}
    others = [name for name, share in shares.items() if share >= 0.995]
    if not others or ours.name in others or shares[ours.name] > 0.9:
        return None
    return ours, others, 1 - shares[ours.name]


def _share(boxes: Array, sizes: Array, spec: Quantisation) -> float:
    """The share of the coordinates that `spec` gives to some whole pixel."""
    near = np.floor(spec.decode(boxes, sizes))
    reached = np.zeros(boxes.shape, dtype=bool)
    for step in (-1, 0, 1, 2):
        pixels = np.clip(near + step, 0, sizes)
        reached |= spec.encode(pixels, sizes, upper=_UPPER) == boxes
    return float(reached.mean())
