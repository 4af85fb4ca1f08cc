"""Choices that several commands of this plugin offer. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from coordcore.errors import InputError, printable, shortened


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


SynonymFile = Annotated[
    Path | None,
    typer.Option("--synonyms", metavar="FILE", help='TOML of what else a label may be called: helmet = ["hard hat"].'),
]
"""A table of `coordcore_detection.evaluate.synonyms`."""


def told(text: str) -> str:
    """A line as a terminal may have it: labels, names and messages in it come out of files."""
    return printable(shortened(text, 4_000))


@contextmanager
def held_against(predictions: Path, records: Path) -> Iterator[None]:
    """Name the two files where what they hold does not go together."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{predictions} against {records}: {error}") from error
