"""Reads answers in any format by its pieces: object by object, each as it is described, or not at all."""

from __future__ import annotations

import re
from functools import lru_cache

from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.records.answers.format import Coords, Format, Label, Places
from coordcore.records.answers.parse import Answer, AnswerObject, Unread, answered, quoted
from coordcore.records.geometry import COUNTS, misordered


def parse_pieces(text: str, form: Format, coords: CoordFormat = DEFAULT_COORDS) -> Answer:
    """Read an answer in `form`, which is not JSON. What stands where an object belongs and is none is passed over."""
    begin, end = answered(text)
    # White space around an answer is no part of it, but for spaces where a label may begin or end with one.
    spaces = " \r\n\t" if begin or form.opening + form.before else "\r\n"
    begin = end - len(text[begin:end].lstrip(spaces))
    end = begin + len(text[begin:end].rstrip(" \r\n\t" if form.after + form.closing else "\r\n"))
    if begin >= end:
        if not text and not form.opening + form.nothing + form.closing:
            return Answer(objects=(), unread=())
        reason = "thoughts, and no answer behind them" if text.strip() else "empty answer"
        return Answer(objects=(), unread=(Unread(at="", reason=reason),))
    if text[begin:end].strip() == form.opening + form.nothing + form.closing:
        return Answer(objects=(), unread=())
    if not text.startswith(form.opening, begin):
        return Answer(objects=(), unread=(Unread(at="", reason=f"does not begin with {quoted(form.opening)}"),))
    objects: list[AnswerObject] = []
    unread: list[Unread] = []
    start, whole = begin + len(form.opening), text.endswith(form.closing, begin, end)
    stop = end - len(form.closing) if whole else end
    for separator in [*_split(form).finditer(text, start, stop), None]:
        behind = stop if separator is None else separator.start()
        if start < behind or separator is not None:
            found, faults = _objects(text, start, behind, form, coords, len(objects) + len(unread))
            objects += found
            unread += faults
        start = stop if separator is None else separator.end()
    if not whole:
        unread.append(Unread(at="objects", reason="cut off: the list does not end"))
    return Answer(objects=tuple(objects), unread=tuple(unread))


def _objects(
    text: str, start: int, end: int, form: Format, coords: CoordFormat, index: int
) -> tuple[list[AnswerObject], list[Unread]]:
    """The objects of one label, and what of its places is none. index: of the first of them in the answer."""
    nothing = Unread(at=f"objects[{index}]", reason=f"not of the format {form.name}: {quoted(text[start:end])}")
    for kind, place, frame in _patterns(form, coords):
        found = frame.fullmatch(text, start, end)
        if found is None or not place.match(text, *found.span("places")):
            continue
        label, (position, last) = found["label"], found.span("places")
        objects: list[AnswerObject] = []
        unread: list[Unread] = []
        while True:
            at = f"objects[{index + len(objects) + len(unread)}]"
            written = place.match(text, position, last)
            if written is None:
                unread.append(Unread(at=f"{at}.{kind}", reason=f"not a {kind}: {quoted(text[position:last])}"))
                break
            tokens = coords.arranged(list(re.finditer(coords.pattern(), written[0])))
            bins = tuple(coords.bin_of.get(token[0], -1) for token in tokens)
            order = misordered(bins) if kind == "bbox_2d" and -1 not in bins else None
            if -1 in bins:
                wrong = quoted(tokens[bins.index(-1)][0])
                unread.append(Unread(at=f"{at}.{kind}", reason=f"{wrong} is no coord token"))
            elif order:
                unread.append(Unread(at=f"{at}.{kind}", reason=order))
            else:
                spans = tuple((written.start() + item.start(), written.start() + item.end()) for item in tokens)
                objects.append(
                    AnswerObject(
                        at=at, desc=label, kind=kind, bins=bins, desc_span=found.span("label"), coord_spans=spans
                    )
                )
            position = written.end()
            if position == last:
                break
            if form.again is None:
                return [], [nothing]
            position += len(form.again) if text.startswith(form.again, position) else 0
        return objects, unread
    return [], [nothing]


@lru_cache
def _split(form: Format) -> re.Pattern[str]:
    """Where one object ends and the next begins: a label may hold what stands between objects, but not what follows."""
    if form.before and form.between.strip():
        return re.compile(rf"{re.escape(form.between.strip())}\s*(?={re.escape(form.before)})")
    between = re.escape(form.between)
    return re.compile(rf"\r?{between}" if form.between == "\n" else between + f"(?={re.escape(form.before)})")


@lru_cache
def _patterns(form: Format, coords: CoordFormat) -> list[tuple[str, re.Pattern[str], re.Pattern[str]]]:
    """For each kind and order what one place looks like, and an object around its places, which may be damaged."""
    token = coords.pattern()
    found = []
    for kind in form.places:
        for layout in dict.fromkeys(form.layout(kind, first) for first in (False, True)):
            (piece,) = (piece for piece in layout if isinstance(piece, Places))
            place = "".join(_pattern(part, token) for part in piece.place)
            # Behind a label whatever stands is looked into, place by place; before one, it begins where they end.
            behind = form.again is not None and any(isinstance(part, Label) for part in layout[: layout.index(piece)])
            again = f"(?:{re.escape(piece.again)}{place})*" if form.again is not None else ""
            places = "(?P<places>.+)" if behind else f"(?P<places>{place}{again})"
            frame = "".join(places if isinstance(part, Places) else _pattern(part, token) for part in layout)
            found.append((kind, re.compile(place), re.compile(frame, re.DOTALL)))
    return found


def _pattern(piece: str | Label | Coords, token: str) -> str:
    if isinstance(piece, str):
        return re.escape(piece)
    if isinstance(piece, Label):
        return "(?P<label>[^" + re.escape(piece.without or "") + r"\x00-\x1f]+)"
    further = re.escape(piece.between) + token
    count = COUNTS[piece.kind]
    return f"{token}(?:{further}){{{count - 1}}}" if count else f"{token}{further}(?:{further}{further}){{2,}}"
