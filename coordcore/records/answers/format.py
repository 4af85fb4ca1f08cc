"""Answer formats as descriptions: the pieces that an answer is made of.

A piece is literal text, a label, or coordinates. Nothing else knows how an answer is written: not the writer, not the
parsers, not the grammar of constrained decoding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
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
    """The coordinates of a geometry of a kind, one coord token each, as many as `geometry.COUNTS` says."""

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
P = TypeVar("P")

_LONGEST = 200
"""Characters of a piece: the grammar has a state for each."""

Layouts = tuple[str | Label | Places, ...]


@attrs.frozen(kw_only=True, eq=False)
class Format:
    """An answer: `opening`, the objects with `between` (never empty) from each to the next or `nothing`, `closing`.

    An object: `before`, then `label` (what it is) and the one of `places` for its kind of geometry (where it is) with
    `amid` between them, in this order or the other, `after`.
    again: in a format that says a label once for all its places of a kind, what stands between these; it may be empty.
    geometry_first: the order of label and geometry where the format fixes it.
    json: written so that the tolerant reader of lists in JSON reads it.
    numbers: coordinates are plain numbers, bins of the run's quantisation, x first; there are no coord tokens.
    """

    name: str
    opening: str = ""
    before: str = ""
    label: tuple[str | Label, ...]
    amid: str = ""
    places: Mapping[str, tuple[str | Coords, ...]]
    after: str = ""
    between: str
    again: str | None = None
    nothing: str = ""
    closing: str = ""
    geometry_first: bool | None = None
    json: bool = False
    numbers: bool = False

    @property
    def literals(self) -> str:
        """What an answer holds beside labels and coordinates, each piece on a line."""
        pieces = [*self.label, *(piece for place in self.places.values() for piece in place)]
        own = (self.opening, self.before, self.amid, self.after, self.between, self.again, self.nothing, self.closing)
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
        """Raise ValueError for what describes no format, or one whose answers could be read in two ways."""
        for name in ("name", "opening", "before", "amid", "after", "between", "again", "nothing", "closing"):
            _require_text(name, "" if getattr(self, name) is None and name == "again" else getattr(self, name))
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", self.name):
            raise ValueError(f"name must be lower-case letters, digits and underscores, got {self.name!r}")
        flags = ("json", "numbers")
        for name, values in (*((name, (True, False)) for name in flags), ("geometry_first", (True, False, None))):
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if not self.between:
            raise ValueError("between must not be empty")
        if not self.opening + self.nothing + self.closing:
            raise ValueError("nothing must not be empty: an answer without objects would be no text")
        if self.again and self.between in self.again:
            raise ValueError(f"again must not hold between, {self.between!r}")
        label = _one(self.label, Label, "label must hold one Label, and texts")
        if label.without is not None:
            _require_text("label.without", label.without)
        if self.json is not (label.without is None):
            raise ValueError("a label in quotes, Label(), belongs to a format with json = true, and to no other")
        if not self.places.keys() <= set(KINDS) or not self.places:
            raise ValueError(f"places must be of the kinds {', '.join(KINDS)}, got {', '.join(self.places)}")
        for kind, place in self.places.items():
            coords = _one(place, Coords, f"places.{kind} must hold the Coords of a {kind}, once, and texts")
            _require_text(f"places.{kind}.between", coords.between)
            if coords.kind != kind:
                raise ValueError(f"places.{kind} must hold the Coords of a {kind}, once, and texts")
            if self.numbers and not (self.json and coords.between and self.again is None):
                raise ValueError("numbers = true belongs to a format with json = true, each object by itself")
        self._require_ends_of_labels(label)

    def _require_ends_of_labels(self, label: Label) -> None:
        """Raise ValueError where a label could hold what comes behind it: a label must end somewhere."""
        if label.without is None:
            return
        ends = [] if self.before else [self.between]
        for layout in {self.layout(kind, first) for kind in self.places for first in (False, True)}:
            behind = [*layout[[isinstance(piece, Label) for piece in layout].index(True) + 1 :], self.between][0]
            first = behind.place[0] if isinstance(behind, Places) else behind
            ends.append(first if isinstance(first, str) else "<")  # what every coord token begins with
        for end in ends:
            if not any(letter in label.without or letter < " " for letter in end):
                raise ValueError(f"a label could hold {end!r}, which stands behind it; labels must lack a letter of it")

    def layout(self, kind: str, geometry_first: bool = False) -> Layouts:
        """An object of one kind: literal texts, and between them the label and the places."""
        first = geometry_first if self.geometry_first is None else self.geometry_first
        places = (Places(self.places[kind], self.again or ""),)
        fields = (*places, self.amid, *self.label) if first else (*self.label, self.amid, *places)
        found: list[str | Label | Places] = []
        for piece in (self.before, *fields, self.after):
            if isinstance(piece, str) and found and isinstance(found[-1], str):
                found[-1] += piece
            elif piece != "":
                found.append(piece)
        return tuple(found)

    def grouped(self, objects: Iterable[T]) -> list[list[T]]:
        """Objects with a `desc` and a `kind` as they stand together in an answer: all of one label, or each alone."""
        if self.again is None:
            return [[item] for item in objects]
        groups: dict[tuple[str, str], list[T]] = {}
        for item in objects:
            groups.setdefault((item.desc, item.kind), []).append(item)
        return list(groups.values())


def _require_text(name: str, value: Any) -> None:
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError(f"{name} must be text of at most {_LONGEST} characters, got {str(value)[:40]!r}")


def _one(pieces: Sequence[Any], kind: type[P], reason: str) -> P:
    """The piece of a kind, where there is one, and everything else is text."""
    found = [piece for piece in pieces if isinstance(piece, kind)]
    for piece in pieces:
        if not isinstance(piece, kind):
            if not isinstance(piece, str):
                raise ValueError(reason)
            _require_text("a piece", piece)
    if len(found) != 1:
        raise ValueError(reason)
    return found[0]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return attrs.asdict(value) if isinstance(value, Label | Coords) else value


def _layout(pieces: Iterable[Any]) -> tuple[Any, ...]:
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
