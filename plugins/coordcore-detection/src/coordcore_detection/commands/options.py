"""Choices that several commands offer. Torch-free."""

from __future__ import annotations

from enum import StrEnum


class SpaceName(StrEnum):
    """What the numbers of the records are."""

    BIN = "bin"
    PIXEL = "pixel"
    NORM1 = "norm1"


class OutsideName(StrEnum):
    """What becomes of a corner outside its image."""

    ERROR = "error"
    CLIP = "clip"


class Score(StrEnum):
    """What a box's score is made of."""

    GEOMETRIC_MEAN = "geometric_mean"
    MIN = "min"
    COORD_MASS = "coord_mass"
    ENTROPY = "entropy"
    NEAR = "near"
