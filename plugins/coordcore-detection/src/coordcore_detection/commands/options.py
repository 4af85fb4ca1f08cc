"""Choices that several commands of this plugin offer. Torch-free."""

from __future__ import annotations

from enum import StrEnum

from coordcore.errors import printable, shortened


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


def told(text: str) -> str:
    """A line as a terminal may have it: labels, names and messages in it come out of files."""
    return printable(shortened(text, 4_000))
