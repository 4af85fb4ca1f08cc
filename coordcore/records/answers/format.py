"""Answer formats as descriptions: the pieces that an answer is made of.

A piece is literal text, a label, coordinates, pieces in a row (a tuple), or a choice between pieces. Nothing else
knows how an answer is written: not the writer, not the parsers, not the grammar of constrained decoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias, Union

import attrs

from coordcore.records.geometry import KINDS

DESC = "desc"
"""The key under which CoordJSON writes a description."""


@attrs.frozen
class Label:
    """The description of an object. without: characters that it cannot hold, beside control characters.

    None is for a JSON string in its quotes, which can hold anything.
    """

    without: str | None = None


@attrs.frozen
class Coords:
    """The coordinates of a geometry, one coord token each: four of a "bbox_2d", six or more in pairs of a "poly"."""

    kind: str
    between: str


@attrs.frozen
class Pair:
    """What an object is and where it is, in the one order or the other."""

    label: Piece
    geometry: Piece
    between: str


@attrs.frozen
class ByKind:
    """One of several pieces: that whose `Coords` are of the object's kind."""

    pieces: tuple[Piece, ...]


Piece: TypeAlias = Union[str, tuple["Piece", ...], Label, Coords, Pair, ByKind]  # noqa: UP007 - refers to itself
Layout = tuple[str | Label | Coords, ...]


@attrs.frozen(kw_only=True, eq=False)
class Format:
    """An answer: `opening`, the objects with `between` (never empty) from each to the next, `closing`.

    json: written so that the tolerant reader of lists in JSON reads it.
    """

    name: str
    opening: str = ""
    object: Piece
    between: str
    closing: str = ""
    json: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of geometry that can be written."""
        return tuple(kinds_of(self.object))

    @lru_cache  # noqa: B019 - formats are few, and live as long as the process
    def layout(self, kind: str, geometry_first: bool = False) -> Layout:
        """An object of one kind with its choices made: literal texts, and between them the label and the coordinates.

        geometry_first: the order of `Pair`.
        """
        found: list[str | Label | Coords] = []
        for piece in _flat(self.object, kind, geometry_first):
            if isinstance(piece, str) and found and isinstance(found[-1], str):
                found[-1] += piece
            else:
                found.append(piece)
        return tuple(found)

    def geometry(self, kind: str) -> Layout:
        """The part of an object that says where it is."""
        return tuple(_flat(_geometry(self.object), kind, False))


def _flat(piece: Piece, kind: str, geometry_first: bool) -> Iterator[str | Label | Coords]:
    if isinstance(piece, Pair):
        parts: tuple[Piece, ...] = (piece.label, piece.between, piece.geometry)
        piece = parts[::-1] if geometry_first else parts
    elif isinstance(piece, ByKind):
        piece = tuple(option for option in piece.pieces if kind in kinds_of(option))
    if isinstance(piece, tuple):
        for part in piece:
            yield from _flat(part, kind, geometry_first)
    elif isinstance(piece, str | Label | Coords):
        yield piece


def kinds_of(piece: Piece) -> Iterator[str]:
    """The kinds of geometry that occur in a piece."""
    if isinstance(piece, Coords):
        yield piece.kind
    for part in _parts(piece):
        yield from kinds_of(part)


def _geometry(piece: Piece) -> Piece:
    if isinstance(piece, Pair):
        return piece.geometry
    return next((found for part in _parts(piece) if (found := _geometry(part))), "")


def _parts(piece: Piece) -> tuple[Piece, ...]:
    if isinstance(piece, tuple):
        return piece
    if isinstance(piece, Pair):
        return piece.label, piece.geometry
    return piece.pieces if isinstance(piece, ByKind) else ()


COORDJSON = Format(
    name="coordjson",
    opening='{"objects": [',
    object=(
        "{",
        Pair(
            label=(f'"{DESC}": ', Label()),
            geometry=ByKind(tuple((f'"{kind}": [', Coords(kind, between=", "), "]") for kind in KINDS)),
            between=", ",
        ),
        "}",
    ),
    between=", ",
    closing="]}",
    json=True,
)
"""`{"objects": [{"desc": "red circle", "bbox_2d": [<|coord_12|>, ...]}]}`, with the spaces that `json.dumps` writes."""
