"""Choices that several commands of this plugin offer. Torch-free."""

from __future__ import annotations

from enum import StrEnum


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
