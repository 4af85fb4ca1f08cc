"""Choices that several commands of this plugin offer. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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


def require_unused(context: typer.Context, names: Iterable[str], reason: str) -> None:
    """Raise InputError for an option that would be passed over without a word."""
    for name in names:
        if is_given(context, name):
            raise InputError(f"--{name.replace('_', '-')}: {reason}; leave it out")


def is_given(context: typer.Context, name: str) -> bool:
    """Whether the command line has an option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
