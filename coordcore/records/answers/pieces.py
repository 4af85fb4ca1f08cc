"""Reads answers in any format by its pieces: object by object, each as it is described, or not at all."""

from __future__ import annotations

import re
from functools import lru_cache

from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.records.answers.format import Coords, Format, Label
from coordcore.records.answers.parse import Answer, AnswerObject, Unread, quoted
from coordcore.records.geometry import misordered


def parse_pieces(text: str, form: Format, coords: CoordFormat = DEFAULT_COORDS) -> Answer:
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
        read = _object(text, position, position + len(written), form, coords, f"objects[{index}]")
        position += len(written) + len(form.between)
        if isinstance(read, Unread):
            unread.append(read)
        else:
            objects.append(read)
    return Answer(objects=tuple(objects), unread=tuple(unread))


def _object(text: str, start: int, end: int, form: Format, coords: CoordFormat, at: str) -> AnswerObject | Unread:
    tries = ((kind, pattern.fullmatch(text, start, end)) for kind, pattern in _patterns(form, coords))
    kind, found = next(((kind, found) for kind, found in tries if found), ("", None))
    tokens = [] if found is None else list(re.finditer(coords.pattern(), found["coords"]))
    if found is None or any(token[0] not in coords.bin_of for token in coords.arranged(tokens)):
        return Unread(at=at, reason=f"not of the format {form.name}: {quoted(text[start:end])}")
    before = found.start("coords")
    bins = coords.arranged([coords.bin_of[token[0]] for token in tokens])
    if kind == "bbox_2d" and (order := misordered(bins)):
        return Unread(at=f"{at}.{kind}", reason=order)
    return AnswerObject(
        at=at,
        desc=found["label"],
        kind=kind,
        bins=bins,
        desc_span=found.span("label"),
        coord_spans=tuple((before + token.start(), before + token.end()) for token in coords.arranged(tokens)),
    )


@lru_cache
def _patterns(form: Format, coords: CoordFormat) -> list[tuple[str, re.Pattern[str]]]:
    """What an object may look like, with its kind."""
    layouts = [(kind, form.layout(kind, first)) for kind in form.places for first in (False, True)]
    return [
        (kind, re.compile("".join(_pattern(piece, coords.pattern()) for piece in layout))) for kind, layout in layouts
    ]


def _pattern(piece: str | Label | Coords, token: str) -> str:
    if isinstance(piece, str):
        return re.escape(piece)
    if isinstance(piece, Label):
        return "(?P<label>[^" + re.escape(piece.without or "") + r"\x00-\x1f]+)"
    further = re.escape(piece.between) + token
    return f"(?P<coords>{token}" + (
        f"(?:{further}){{3}})" if piece.kind == "bbox_2d" else f"{further}(?:{further}{further}){{2,}})"
    )
