"""Reads answers in any format by its pieces: object by object, each as it is described, or not at all."""

from __future__ import annotations

import re
from functools import lru_cache

from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.records.answers.format import Coords, Format, Label, Places
from coordcore.records.answers.parse import Answer, AnswerObject, Unread, answered, quoted
from coordcore.records.geometry import COUNTS, misordered


def parse_pieces(text: str, form: Format, coords: CoordFormat = DEFAULT_COORDS, cut: bool = False) -> Answer:
    """Read an answer in `form`, which is not JSON. What stands where an object belongs and is none is passed over.

    cut: a limit ended the text, and perhaps in the middle of a label or a polygon, whose ends nothing marks.
    """
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
    if cut and objects and _goes_on(objects[-1], len(text)):
        unread.append(Unread(at=objects.pop().at, reason="cut off, and may have gone on"))
    if not whole:
        unread.append(Unread(at="objects", reason="cut off: the list does not end"))
    return Answer(objects=tuple(objects), unread=tuple(unread))


def _goes_on(last: AnswerObject, end: int) -> bool:
    """Whether more of an object may stand behind the end of a text: further letters, or points of a polygon."""
    open_ended = [last.desc_span, *(last.coord_spans if COUNTS[last.kind] is None else ())]
    return any(span[1] == end for span in open_ended)


def _objects(
    text: str, start: int, end: int, form: Format, coords: CoordFormat, index: int
) -> tuple[list[AnswerObject], list[Unread]]:
    """The objects of one label, and what of its places is none. index: of the first of them in the answer.

    What is left of a damaged box can look like a point: they are of the kind of which most places can be read.
    """
    nothing = Unread(at=f"objects[{index}]", reason=f"not of the format {form.name}: {quoted(text[start:end])}")
    most, best, again = 0, (list[AnswerObject](), [nothing]), form.again or ""
    for kind, place, apart, frame in _patterns(form, coords):
        if not (found := frame.fullmatch(text, start, end)):
            continue
        (position, last), whole = found.span("places"), 0
        objects, unread = list[AnswerObject](), list[Unread]()
        while True:
            at = f"objects[{index + len(objects) + len(unread)}]"
            written = place.match(text, position, end)
            behind = written.end() if written else text.find(again, position, last) if apart else -1
            said = text[position : last if behind < 0 else behind]
            tokens = coords.arranged([*_token(coords).finditer(said if written else "")])
            bins = tuple(coords.bin_of.get(token[0], -1) for token in tokens)
            order = misordered(bins) if written and kind == "bbox_2d" and -1 not in bins else None
            if written is None:
                unread.append(Unread(at=f"{at}.{kind}", reason=f"not a {kind}: {quoted(said)}"))
            elif -1 in bins:
                wrong = quoted(tokens[bins.index(-1)][0])
                unread.append(Unread(at=f"{at}.{kind}", reason=f"{wrong} is no coord token"))
            elif order:
                unread.append(Unread(at=f"{at}.{kind}", reason=order))
            else:
                label, span = found["label"], found.span("label")
                spans = tuple((position + item.start(), position + item.end()) for item in tokens)
                objects.append(AnswerObject(at=at, desc=label, kind=kind, bins=bins, desc_span=span, coord_spans=spans))
            whole, position = whole + bool(written), position + len(said)
            if position == last:
                break
            position += len(again) if text.startswith(again, position) else 0
        if whole > most:
            most, best = whole, (objects, unread)
    return best


@lru_cache
def _token(coords: CoordFormat) -> re.Pattern[str]:
    return re.compile(coords.pattern())


@lru_cache
def _split(form: Format) -> re.Pattern[str]:
    """Where one object ends and the next begins: a label may hold what stands between objects, but not what follows."""
    if form.before and form.between.strip():
        return re.compile(rf"{re.escape(form.between.strip())}\s*(?={re.escape(form.before)})")
    between = re.escape(form.between)
    return re.compile(rf"\r?{between}" if form.between == "\n" else between + f"(?={re.escape(form.before)})")


@lru_cache
def _patterns(form: Format, coords: CoordFormat) -> list[tuple[str, re.Pattern[str], bool, re.Pattern[str]]]:
    """For each kind and order what one place looks like, whether `again` tells where the next begins, because it stands
    in none, and an object around its places, which may be damaged."""
    token, again = coords.pattern(), re.escape(form.again or "")
    found = []
    for kind, parts in form.places.items():
        said = [part.between if isinstance(part, Coords) else str(part) for part in parts]
        apart = again != "" and not any(again in re.escape(text) for text in said)
        for layout in dict.fromkeys(form.layout(kind, first) for first in (False, True)):
            (at,) = (number for number, piece in enumerate(layout) if isinstance(piece, Places))
            place = "".join(_pattern(part, token) for part in parts)
            around = [piece for piece in layout if not isinstance(piece, Places)]
            head, tail = ("".join(_pattern(piece, token) for piece in some) for some in (around[:at], around[at:]))
            # Behind a label whatever stands is looked into, place by place; before one, it begins where they end.
            if form.again is None or not any(isinstance(part, Label) for part in layout[:at]):
                frame = f"{head}(?P<places>{place}{'' if form.again is None else f'(?:{again}{place})*'}){tail}"
            else:  # perhaps cut off in its last place, which nothing ends
                frame = f"{head}(?P<places>.+?)(?:{tail})?"
                place += f"(?={again}|{tail})" if again and tail else ""
            found.append((kind, re.compile(place), apart, re.compile(frame, re.DOTALL)))
    return found


def _pattern(piece: str | Label | Coords, token: str) -> str:
    if isinstance(piece, str):
        return re.escape(piece)
    if isinstance(piece, Label):
        return "(?P<label>[^" + re.escape(piece.without or "") + r"\x00-\x1f]+)"
    further, count = re.escape(piece.between) + token, COUNTS[piece.kind]
    # Half a pair behind a polygon is what is left of a damaged one.
    return f"{token}(?:{further}){{{count - 1}}}" if count else f"{token}{further}(?:{further * 2}){{2,}}(?!{further})"
