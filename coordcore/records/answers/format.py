"""Answer formats as descriptions: the pieces that an answer is made of.

A piece is literal text, a label, or coordinates. Nothing else knows how an answer is written: not the writer, not the
parsers, not the grammar of constrained decoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

import attrs

from coordcore.errors import InputError
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
class Places:
    """One place or, where a format groups objects, all those of one label, with `again` from each to the next."""

    place: tuple[str | Coords, ...]
    again: str


class _Described(Protocol):
    @property
    def desc(self) -> str: ...

    @property
    def kind(self) -> str: ...


T = TypeVar("T", bound=_Described)

Layout = tuple[str | Label | Coords, ...]
Layouts = tuple[str | Label | Places, ...]


@attrs.frozen(kw_only=True, eq=False)
class Format:
    """An answer: `opening`, the objects with `between` (never empty) from each to the next or `nothing`, `closing`.

    An object: `before`, then `label` (what it is) and the one of `places` for its kind of geometry (where it is) with
    `amid` between them, in this order or the other, `after`.
    again: in a format that says a label once for all its places of a kind, what stands between these; it may be empty.
    geometry_first: the order of label and geometry where the format fixes it.
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
    again: str | None = None
    nothing: str = ""
    closing: str = ""
    geometry_first: bool | None = None
    json: bool = False

    @property
    def literals(self) -> str:
        """What an answer holds beside labels and coordinates, each piece on a line."""
        pieces = [*self.label, *(piece for place in self.places.values() for piece in place)]
        own = (self.opening, self.before, self.amid, self.after, self.between, self.again, self.closing)
        return "\n".join([*filter(None, own), *(piece for piece in pieces if isinstance(piece, str))])

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it. Only what is not the default is in it."""
        fields = {field.name: (getattr(self, field.name), field.default) for field in attrs.fields(Format)}
        return {name: _plain(value) for name, (value, default) in fields.items() if value != default}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str) -> Format:
        """What `as_dict` gave. Raises InputError naming `source` for anything else."""
        try:
            places = {kind: _layout(place) for kind, place in data["places"].items()}
            form = cls(**{**data, "label": _layout(data["label"]), "places": places})
            form.require()
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise InputError(f"{source}: is no answer format: {error}; write the checkpoint anew") from error
        return form

    def require(self) -> None:
        """Raise ValueError for a description that describes no format."""
        for name in ("name", "opening", "before", "amid", "after", "between", "nothing", "closing"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be text, got {getattr(self, name)!r}")
        if not isinstance(self.json, bool):
            raise ValueError(f"json must be true or false, got {self.json!r}")
        if not self.between:
            raise ValueError("between must not be empty")
        if [type(piece) for piece in self.label].count(Label) != 1:
            raise ValueError("label must hold one Label")
        if not self.places.keys() <= set(KINDS) or not self.places:
            raise ValueError(f"places must be of the kinds {', '.join(KINDS)}, got {', '.join(self.places)}")
        for kind, place in self.places.items():
            if [piece.kind for piece in place if isinstance(piece, Coords)] != [kind]:
                raise ValueError(f"places.{kind} must hold the Coords of a {kind}, once")

    def layout(self, kind: str, geometry_first: bool = False) -> Layouts:
        """An object of one kind: literal texts, and between them the label and the places."""
        first = geometry_first if self.geometry_first is None else self.geometry_first
        places = (Places(self.places[kind], self.again or ""),)  # type: ignore[arg-type]
        fields = (*places, self.amid, *self.label) if first else (*self.label, self.amid, *places)
        found: list[str | Label | Places] = []
        for piece in (self.before, *fields, self.after):
            if isinstance(piece, str) and found and isinstance(found[-1], str):
                found[-1] += piece
            elif piece != "":
                found.append(piece)  # type: ignore[arg-type]
        return tuple(found)

    def grouped(self, objects: Iterable[T]) -> list[list[T]]:
        """Objects with a `desc` and a `kind` as they stand together in an answer: all of one label, or each alone."""
        if self.again is None:
            return [[item] for item in objects]
        groups: dict[tuple[str, str], list[T]] = {}
        for item in objects:
            groups.setdefault((item.desc, item.kind), []).append(item)
        return list(groups.values())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return attrs.asdict(value) if isinstance(value, Label | Coords) else value


def _layout(pieces: Iterable[Any]) -> Layout:
    """The pieces of a layout from what `_plain` made of them."""
    return tuple(
        piece if isinstance(piece, str) else Coords(**piece) if "kind" in piece else Label(**piece) for piece in pieces
    )


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
