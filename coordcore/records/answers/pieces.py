"""Reads answers in any format by its pieces: object by object, each as it is described, or not at all."""

from __future__ import annotations

import re
from functools import lru_cache

from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.records.answers.format import Coords, Format, Label, Places
from coordcore.records.answers.parse import Answer, AnswerObject, Unread, answered, quoted
from coordcore.records.geometry import misordered


def parse_pieces(text: str, form: Format, coords: CoordFormat = DEFAULT_COORDS) -> Answer:
    """Read an answer in `form`, which is not JSON. What stands where an object belongs and is none is passed over."""
    begin, end = answered(text)
    if begin:  # templates put white space behind a thought
        begin = end - len(text[begin:end].lstrip())
    if text[begin:end].strip() == (form.opening + form.nothing + form.closing).strip():
        return Answer(objects=(), unread=())
    if begin == end:
        reason = "thoughts, and no answer behind them" if text.strip() else "empty answer"
        return Answer(objects=(), unread=(Unread(at="", reason=reason),))
    if not text.startswith(form.opening, begin):
        return Answer(objects=(), unread=(Unread(at="", reason=f"does not begin with {quoted(form.opening)}"),))
    objects: list[AnswerObject] = []
    unread: list[Unread] = []
    position = begin + len(form.opening)
    body = text[position:end].removesuffix(form.closing)
    if not text[:end].endswith(form.closing):
        unread.append(Unread(at="objects", reason="cut off: the list does not end"))
    for written in _split(form).split(body) if body else []:
        read = _objects(text, position, position + len(written), form, coords, len(objects) + len(unread))
        position += len(written) + len(form.between)
        if isinstance(read, Unread):
            unread.append(read)
        else:
            objects += read
    return Answer(objects=tuple(objects), unread=tuple(unread))


def _objects(
    text: str, start: int, end: int, form: Format, coords: CoordFormat, index: int
) -> list[AnswerObject] | Unread:
    """The objects of one label. index: of the first of them in the answer."""
    at = f"objects[{index}]"
    tries = ((kind, place, pattern.fullmatch(text, start, end)) for kind, place, pattern in _patterns(form, coords))
    kind, place, found = next(((kind, place, found) for kind, place, found in tries if found), ("", None, None))
    objects = []
    for number, written in enumerate(place.finditer(text, *found.span("places")) if found and place else ()):
        tokens = coords.arranged(list(re.finditer(coords.pattern(), written[0])))
        if any(token[0] not in coords.bin_of for token in tokens):
            found = None
            break
        bins = tuple(coords.bin_of[token[0]] for token in tokens)
        at = f"objects[{index + number}]"
        if kind == "bbox_2d" and (order := misordered(bins)):
            return Unread(at=f"{at}.{kind}", reason=order)
        objects.append(
            AnswerObject(
                at=at,
                desc=found["label"],  # type: ignore[index]
                kind=kind,
                bins=bins,
                desc_span=found.span("label"),  # type: ignore[union-attr]
                coord_spans=tuple((written.start() + one.start(), written.start() + one.end()) for one in tokens),
            )
        )
    if found is None:
        return Unread(at=at, reason=f"not of the format {form.name}: {quoted(text[start:end])}")
    return objects


@lru_cache
def _split(form: Format) -> re.Pattern[str]:
    """Where one object ends and the next begins: a label may hold what stands between objects, but not what follows."""
    return re.compile(re.escape(form.between) + f"(?={re.escape(form.before)})")


@lru_cache
def _patterns(form: Format, coords: CoordFormat) -> list[tuple[str, re.Pattern[str], re.Pattern[str]]]:
    """What an object may look like, with its kind, and what one place looks like."""
    token = coords.pattern()
    found = []
    for kind in form.places:
        places = {first: form.layout(kind, first) for first in (False, True)}
        for layout in dict.fromkeys(places.values()):
            (piece,) = (piece for piece in layout if isinstance(piece, Places))
            place = "".join(_pattern(part, token) for part in piece.place)
            again = f"(?:{re.escape(piece.again)}{place})*" if form.again is not None else ""
            whole = "".join(
                f"(?P<places>{place}{again})" if isinstance(part, Places) else _pattern(part, token) for part in layout
            )
            found.append((kind, re.compile(place), re.compile(whole)))
    return found


def _pattern(piece: str | Label | Coords, token: str) -> str:
    if isinstance(piece, str):
        return re.escape(piece)
    if isinstance(piece, Label):
        return "(?P<label>[^" + re.escape(piece.without or "") + r"\x00-\x1f]+)"
    further = re.escape(piece.between) + token
    return f"{token}(?:{further}){{3}}" if piece.kind == "bbox_2d" else f"{token}{further}(?:{further}{further}){{2,}}"
