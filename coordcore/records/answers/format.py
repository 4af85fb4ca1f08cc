"""Answer formats as descriptions: the pieces that an answer is made of.

A piece is literal text, a label, or coordinates. Nothing else knows how an answer is written: not the writer, not the
parsers, not the grammar of constrained decoding.
"""

from __future__ import annotations

from collections.abc import Mapping

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


Layout = tuple[str | Label | Coords, ...]


@attrs.frozen(kw_only=True, eq=False)
class Format:
    """An answer: `opening`, the objects with `between` (never empty) from each to the next, `closing`.

    An object: `before`, then `label` (what it is) and the one of `places` for its kind of geometry (where it is) with
    `amid` between them, in this order or the other, `after`.
    json: written so that the tolerant reader of lists in JSON reads it.
    """

    name: str
    opening: str = ""
    before: str = ""
    label: Layout
    amid: str = ""
    places: Mapping[str, Layout]
    after: str = ""
    between: str
    closing: str = ""
    json: bool = False

    def layout(self, kind: str, geometry_first: bool = False) -> Layout:
        """An object of one kind: literal texts, and between them the label and the coordinates."""
        first, second = (self.places[kind], self.label) if geometry_first else (self.label, self.places[kind])
        pieces = (self.before, *first, self.amid, *second, self.after)
        found: list[str | Label | Coords] = []
        for piece in pieces:
            if isinstance(piece, str) and found and isinstance(found[-1], str):
                found[-1] += piece
            elif piece != "":
                found.append(piece)
        return tuple(found)


COORDJSON = Format(
    name="coordjson",
    opening='{"objects": [',
    before="{",
    label=(f'"{DESC}": ', Label()),
    amid=", ",
    places={kind: (f'"{kind}": [', Coords(kind, between=", "), "]") for kind in KINDS},
    after="}",
    between=", ",
    closing="]}",
    json=True,
)
"""`{"objects": [{"desc": "red circle", "bbox_2d": [<|coord_12|>, ...]}]}`, with the spaces that `json.dumps` writes."""
