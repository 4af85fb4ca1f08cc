"""Reads answers in any format by its pieces: object by object, each as it is described, or not at all."""

from __future__ import annotations

import re
from functools import lru_cache

from coordcore.coords import token_to_int
from coordcore.records.answers.format import ByKind, Coords, Format, Pair, Piece
from coordcore.records.answers.parse import Answer, AnswerObject, Span, Unread, quoted
from coordcore.records.geometry import misordered

_COORD = re.compile(r"<\|coord_(?:0|[1-9][0-9]{0,2})\|>")
_COUNT = {"bbox_2d": "{3}", "poly": "{5,}"}
"""Coordinates behind the first."""


def parse_pieces(text: str, form: Format) -> Answer:
    """Read an answer in `form`, which is not JSON. What stands where an object belongs and is none is passed over."""
    if not text.startswith(form.opening):
        return Answer(objects=(), unread=(Unread(at="", reason=f"does not begin with {quoted(form.opening)}"),))
    pattern, roles = _compiled(form)
    objects: list[AnswerObject] = []
    unread: list[Unread] = []
    end = len(text)
    if text.endswith(form.closing):
        end -= len(form.closing)
    else:
        unread.append(Unread(at="objects", reason="cut off: the list does not end"))
    position = len(form.opening)
    index = 0
    while position < end or (index and position == end):
        stop = text.find(form.between, position, end)
        stop = end if stop < 0 else stop
        at = f"objects[{index}]"
        found = pattern.fullmatch(text, position, stop)
        if found is None:
            unread.append(Unread(at=at, reason=f"not of the format {form.name}: {quoted(text[position:stop])}"))
        else:
            read = _object(found, roles, at)
            (objects if isinstance(read, AnswerObject) else unread).append(read)  # type: ignore[arg-type]
        index += 1
        position = stop + len(form.between)
    return Answer(objects=tuple(objects), unread=tuple(unread))


def _object(found: re.Match[str], roles: tuple[str, ...], at: str) -> AnswerObject | Unread:
    desc, desc_span, kind = "", (0, 0), ""
    spans: tuple[Span, ...] = ()
    for group, role in enumerate(roles, start=1):
        if found[group] is None:
            continue
        if role == "label":
            desc, desc_span = found[group], found.span(group)
        else:
            kind = role
            spans = tuple(token.span() for token in _COORD.finditer(found.string, *found.span(group)))
    bins = tuple(token_to_int(found.string[slice(*span)]) for span in spans)
    if kind == "poly" and len(bins) % 2:
        return Unread(at=f"{at}.{kind}", reason=f"{len(bins)} coordinates; a poly has an even number, at least 6")
    if kind == "bbox_2d" and (wrong := misordered(bins)):
        return Unread(at=f"{at}.{kind}", reason=wrong)
    return AnswerObject(at=at, desc=desc, kind=kind, bins=bins, desc_span=desc_span, coord_spans=spans)


@lru_cache
def _compiled(form: Format) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """The pattern of an object, and what its groups are: "label", or the kind of geometry."""
    roles: list[str] = []
    return re.compile(_pattern(form.object, roles), re.DOTALL), tuple(roles)


def _pattern(piece: Piece, roles: list[str]) -> str:
    if isinstance(piece, str):
        return re.escape(piece)
    if isinstance(piece, tuple):
        return "".join(_pattern(part, roles) for part in piece)
    if isinstance(piece, Pair):
        between = re.escape(piece.between)
        one = _pattern(piece.label, roles) + between + _pattern(piece.geometry, roles)
        other = _pattern(piece.geometry, roles) + between + _pattern(piece.label, roles)
        return f"(?:{one}|{other})"
    if isinstance(piece, ByKind):
        return "(?:" + "|".join(_pattern(option, roles) for option in piece.pieces) + ")"
    if isinstance(piece, Coords):
        roles.append(piece.kind)
        return f"({_COORD.pattern}(?:{re.escape(piece.between)}{_COORD.pattern}){_COUNT[piece.kind]})"
    roles.append("label")
    return "([^" + re.escape(piece.without or "") + r"\x00-\x1f]+)"
