"""Boxes that a model learns to write without reading their corners, so that one pass can say all four. Torch-free.

In training some boxes are hidden: behind each of their corners the model reads the same token, whatever the corner is,
and is charged for the corners as ever. Decoding then puts that token wherever a corner is not known yet
(`coordcore predict --parallel`), and a pass over four of them says the whole box.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import attrs

from coordcore.coords import CoordVocab
from coordcore.records.example import Geometry

KIND = "bbox_2d"
"""The kind of geometry whose corners are hidden: other kinds hold any number of places."""


def stand_in(vocab: CoordVocab) -> int:
    """The id of the token that is read in the place of a hidden corner: of the middle of the image."""
    return vocab.ids[len(vocab.ids) // 2]


@attrs.frozen
class Hiding:
    """Which boxes are hidden. share: of them all. seed: of the run."""

    share: float
    seed: int

    def drawn(self, geometries: Sequence[Geometry], epoch: int, index: int) -> frozenset[int]:
        """The numbers of the geometries that are hidden in one epoch of the example with this index.

        A function of its arguments alone: the same for every layout of ranks and workers, and when a run goes on.
        """
        draw = random.Random(f"{self.seed}/{epoch}/{index}")
        shares = [(number, draw.random()) for number, item in enumerate(geometries) if item.kind == KIND]
        return frozenset(number for number, drawn in shares if drawn < self.share)
