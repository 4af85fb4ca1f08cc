"""Reads answers in any format by its pieces: object by object, each as it is described, or not at all."""

from __future__ import annotations

import re
from functools import lru_cache

from coordcore.coords import token_to_int
from coordcore.records.answers.format import Coords, Format, Label
from coordcore.records.answers.parse import Answer, AnswerObject, Unread, quoted
from coordcore.records.geometry import misordered

_COORD = re.compile(r"<\|coord_(?:0|[1-9][0-9]{0,2})\|>")


def parse_pieces(text: str, form: Format) -> Answer:
    """Read an answer in `form`, which is not JSON. What stands where an object belongs and is none is passed over."""
    if not text.startswith(form.opening):
        return Answer(objects=(), unread=(Unread(at="", reason=f"does not begin with {quoted(form.opening)}"),))
    objects: list[AnswerObject] = []
    unread: list[Unread] = []
    body = text[len(form.opening) :].removesuffix(form.closing)
    if not text.endswith(form.closing):
        unread.append(Unread(at="objects", reason="cut off: the list does not end"))
    position = len(form.opening)
    for index, written in enumerate(body.split(form.between) if body else []):
        read = _object(text, position, position + len(written), form, f"objects[{index}]")
        position += len(written) + len(form.between)
        if isinstance(read, Unread):
            unread.append(read)
        else:
            objects.append(read)
    return Answer(objects=tuple(objects), unread=tuple(unread))


def _object(text: str, start: int, end: int, form: Format, at: str) -> AnswerObject | Unread:
    tries = ((kind, pattern.fullmatch(text, start, end)) for kind, pattern in _patterns(form))
    kind, found = next(((kind, found) for kind, found in tries if found), ("", None))
    if found is None:
        return Unread(at=at, reason=f"not of the format {form.name}: {quoted(text[start:end])}")
    tokens = list(_COORD.finditer(text, *found.span("coords")))
    bins = tuple(token_to_int(token[0]) for token in tokens)
    if kind == "bbox_2d" and (order := misordered(bins)):
        return Unread(at=f"{at}.{kind}", reason=order)
    return AnswerObject(
        at=at,
        desc=found["label"],
        kind=kind,
        bins=bins,
        desc_span=found.span("label"),
        coord_spans=tuple(token.span() for token in tokens),
    )


@lru_cache
def _patterns(form: Format) -> list[tuple[str, re.Pattern[str]]]:
    """What an object may look like, with its kind."""
    layouts = [(kind, form.layout(kind, first)) for kind in form.places for first in (False, True)]
    return [(kind, re.compile("".join(map(_pattern, layout)))) for kind, layout in layouts]


def _pattern(piece: str | Label | Coords) -> str:
    if isinstance(piece, str):
        return re.escape(piece)
    if isinstance(piece, Label):
        return "(?P<label>[^" + re.escape(piece.without or "") + r"\x00-\x1f]+)"
    further = re.escape(piece.between) + _COORD.pattern
    return f"(?P<coords>{_COORD.pattern}" + (
        f"(?:{further}){{3}})" if piece.kind == "bbox_2d" else f"{further}(?:{further}{further}){{2,}})"
    )
