"""An answer format as a regular expression, for servers that let only such answers be written. Torch-free.

It says what the automaton of this process says, but for two things that a server cannot see: which of its characters a
token wrote, so that no label may hold what a coord token begins with; and numbers, so that x2 may be below x1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coordcore.coords import CoordFormat
from coordcore.records.answers.format import Coords, Format, Label, Layouts, Places
from coordcore.records.geometry import COUNTS
from coordcore_detection.decode.automaton import Fields

_SPECIAL = frozenset("\\.+*?()|[]{}^$")
_LAST, _BEYOND_SURROGATES = 0xD7FF, "\ue000-\U0010ffff"
_HEX = "[0-9a-fA-F]"
# A lone surrogate, \ud83d without its second half, is JSON but no text.
_ESCAPE = (
    rf'\\(?:["\\/bfnrt]|u(?:[0-9abcefABCEF]{_HEX}{{3}}|[dD][0-7]{_HEX}{{2}}'
    rf"|[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}))"
)


def answer_pattern(
    form: Format, coords: CoordFormat, geometry: Sequence[str] | None = None, fields: Fields = "any"
) -> str:
    """A pattern of the whole of an answer of `form`, in what regular expressions of all engines have in common.

    geometry: the kinds an object may have, all of the format's when None. fields: the order of description and geometry
    in an object. A format of plain numbers has those of the bins.
    """
    orders = {"any": (False, True), "desc_first": (False,), "geometry_first": (True,)}[fields]
    kinds = [kind for kind in geometry or form.places if kind in form.places]
    layouts = dict.fromkeys(form.layout(kind, first) for kind in kinds for first in orders)
    written = [str(k) for k in range(coords.bins)] if form.numbers else list(coords.written)
    start = "" if form.numbers else written[0][: 2 if written[0][1] == written[-1][1] else 1]
    one = _either(_object(layout, any_of(written), start, form.again is not None) for layout in layouts)
    objects = f"{one}(?:{literal(form.between)}{one})*"
    return literal(form.opening) + _either([objects, literal(form.nothing)]) + literal(form.closing)


def literal(text: str) -> str:
    """A pattern of just this text."""
    return "".join(f"\\{c}" if c in _SPECIAL else "\\n" if c == "\n" else "\\t" if c == "\t" else c for c in text)


def any_of(texts: Iterable[str]) -> str:
    """A pattern of one of these texts, short where they have beginnings and ends in common."""
    behind: dict[str, list[str]] = {}
    for text in dict.fromkeys(texts):
        behind.setdefault(text[:1], []).append(text[1:])
    letters: dict[str, list[str]] = {}  # what may follow a letter -> all the letters of which it is true
    for letter, rest in behind.items():
        if letter:
            letters.setdefault(any_of(rest), []).append(letter)
    found = ([""] if "" in behind else []) + [_letters(many) + rest for rest, many in letters.items()]
    return _either(found)


def _letters(letters: Sequence[str]) -> str:
    if len(letters) == 1:
        return literal(letters[0])
    if "".join(letters) in "0123456789":
        return f"[{letters[0]}-{letters[-1]}]"
    return f"[{''.join(f'{chr(92)}{c}' if c in _SPECIAL or c == '-' else c for c in letters)}]"


def _either(patterns: Iterable[str]) -> str:
    """None of them may be there where one of them is empty."""
    given = list(dict.fromkeys(patterns))
    found = [pattern for pattern in given if pattern]
    if len(found) == len(given) == 1:
        return found[0]
    return (f"(?:{'|'.join(found)})" if found else "") + ("?" if 0 < len(found) < len(given) else "")


def _object(layout: Layouts, coord: str, start: str, grouped: bool) -> str:
    found = []
    for piece in layout:
        if isinstance(piece, str):
            found.append(literal(piece))
        elif isinstance(piece, Label):
            found.append(_label(piece, start))
        else:
            place = _place(piece, coord)
            found.append(f"{place}(?:{literal(piece.again)}{place})*" if grouped else place)
    return "".join(found)


def _place(places: Places, coord: str) -> str:
    return "".join(literal(piece) if isinstance(piece, str) else _coords(piece, coord) for piece in places.place)


def _coords(piece: Coords, coord: str) -> str:
    """As many as the kind has; a polygon has three points at least."""
    between = literal(piece.between)
    if count := COUNTS[piece.kind]:
        return f"{coord}(?:{between}{coord}){{{count - 1}}}"
    return f"{coord}{between}{coord}(?:{between}{coord}{between}{coord}){{2,}}"


def _label(label: Label, start: str) -> str:
    """A JSON string in its quotes, or plain text; of one character at least. start: what it cannot hold."""
    without = '"\\' if label.without is None else label.without
    escape, quote = ([_ESCAPE], '"') if label.without is None else ([], "")
    if len(start) < 2 or start[0] in without or start[1] in without:
        return f"{quote}{_either([_class(without + start[:1]), *escape])}+{quote}"
    # Its first letter is followed by itself, by another letter than the second, or by the end.
    first, second = literal(start[0]), literal(start[1])
    other = _either([_class(without + start), *escape])
    return f"{quote}(?:(?:{first}*{other}|{second})+{first}*|{first}+){quote}"


def _class(without: str) -> str:
    """Any character but control characters and these."""
    spans, begin = [], 0x20
    for code in [*sorted({ord(c) for c in without if 0x20 <= ord(c) <= _LAST}), _LAST + 1]:
        if begin < code:
            ends = dict.fromkeys((begin, code - 1))
            spans.append("-".join(f"\\{chr(k)}" if chr(k) in "\\]^-[" else chr(k) for k in ends))
        begin = code + 1
    return f"[{''.join(spans)}{_BEYOND_SURROGATES}]"
