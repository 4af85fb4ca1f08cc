"""An answer format as text that servers take: a regular expression, or a grammar with tokens. Torch-free.

They say what the automaton of this process says, but for two things: no label may hold what a coord token begins with,
for a server does not see which token wrote a character; and x2 may be below x1, for neither can compare numbers. A
regular expression sees no tokens at all, so that coordinates may be spelled letter by letter, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import attrs

from coordcore.coords import CoordFormat
from coordcore.records.answers.format import Coords, Format, Label, Layouts, Places
from coordcore.records.geometry import COUNTS
from coordcore_detection.decode.automaton import Fields

_SPECIAL = frozenset("\\.+*?()|[]{}^$")
_LAST, _BEYOND_SURROGATES = 0xD7FF, "\ue000-\U0010ffff"
_HEX = "[0-9a-fA-F]"


def answer_pattern(
    form: Format, coords: CoordFormat, geometry: Sequence[str] | None = None, fields: Fields = "any"
) -> str:
    """A regular expression for the whole of an answer of `form`, in what those of all engines have in common.

    geometry: the kinds an object may have, all of the format's when None. fields: the order of description and geometry
    in an object. A format of plain numbers has those of the bins.
    """
    written = map(str, range(coords.bins)) if form.numbers else coords.written
    return _answer(_REGULAR, form, coords, any_of(written), geometry, fields)


def answer_grammar(
    form: Format,
    coords: CoordFormat,
    ids: Sequence[int],
    geometry: Sequence[str] | None = None,
    fields: Fields = "any",
) -> str:
    """The same as a grammar in EBNF, as xgrammar reads it.

    ids: of the coord tokens, by bin; a coordinate is one of them. A format of plain numbers needs none.
    """
    coord = any_of(map(str, range(coords.bins)), _EBNF) if form.numbers else f"Token({', '.join(map(str, ids))})"
    return f"root ::= {_answer(_EBNF, form, coords, 'coord', geometry, fields)}\ncoord ::= {coord}\n"


def literal(text: str) -> str:
    """A regular expression for just this text."""
    return "".join(f"\\{c}" if c in _SPECIAL else "\\n" if c == "\n" else "\\t" if c == "\t" else c for c in text)


def quoted(text: str) -> str:
    """The same in EBNF."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"' if text else ""


@attrs.frozen(kw_only=True)
class _Syntax:
    """How patterns are written. literal: just a text. begin: a group. between: what follows one another."""

    literal: Callable[[str], str]
    begin: str
    between: str

    def row(self, *patterns: str) -> str:
        return self.between.join(pattern for pattern in patterns if pattern)

    def group(self, pattern: str, times: str) -> str:
        return f"{self.begin}{pattern}){times}"

    def either(self, patterns: Iterable[str]) -> str:
        """None of them may be there where one of them is empty."""
        given = list(dict.fromkeys(patterns))
        found = [pattern for pattern in given if pattern]
        if len(found) == len(given) == 1:
            return found[0]
        return self.group("|".join(found), "?" if len(found) < len(given) else "") if found else ""


_REGULAR = _Syntax(literal=literal, begin="(?:", between="")
_EBNF = _Syntax(literal=quoted, begin="(", between=" ")


def any_of(texts: Iterable[str], syntax: _Syntax = _REGULAR) -> str:
    """A pattern of one of these texts, short where they have beginnings and ends in common."""
    behind: dict[str, list[str]] = {}
    for text in dict.fromkeys(texts):
        behind.setdefault(text[:1], []).append(text[1:])
    letters: dict[str, list[str]] = {}  # what may follow a letter -> all the letters of which it is true
    for letter, rest in behind.items():
        if letter:
            letters.setdefault(any_of(rest, syntax), []).append(letter)
    found = [""] if "" in behind else []
    return syntax.either([*found, *(syntax.row(_letters(many, syntax), rest) for rest, many in letters.items())])


def _letters(letters: Sequence[str], syntax: _Syntax) -> str:
    if len(letters) == 1:
        return syntax.literal(letters[0])
    if "".join(letters) in "0123456789":
        return f"[{letters[0]}-{letters[-1]}]"
    return f"[{''.join(f'{chr(92)}{c}' if c in _SPECIAL or c == '-' else c for c in letters)}]"


def _answer(
    syntax: _Syntax, form: Format, coords: CoordFormat, coord: str, geometry: Sequence[str] | None, fields: Fields
) -> str:
    """coord: the pattern of a coordinate."""
    orders = {"any": (False, True), "desc_first": (False,), "geometry_first": (True,)}[fields]
    kinds = [kind for kind in geometry or form.places if kind in form.places]
    layouts = dict.fromkeys(form.layout(kind, first) for kind in kinds for first in orders)
    first, last = coords.written[0], coords.written[-1]
    start = "" if form.numbers else first[: 2 if first[1] == last[1] else 1]
    one = syntax.either(_object(syntax, layout, coord, start, form.again is not None) for layout in layouts)
    objects = syntax.row(one, syntax.group(syntax.row(syntax.literal(form.between), one), "*"))
    whole = syntax.either([objects, syntax.literal(form.nothing)])
    return syntax.row(syntax.literal(form.opening), whole, syntax.literal(form.closing))


def _object(syntax: _Syntax, layout: Layouts, coord: str, start: str, grouped: bool) -> str:
    found = []
    for piece in layout:
        if isinstance(piece, str):
            found.append(syntax.literal(piece))
        elif isinstance(piece, Label):
            found.append(_label(syntax, piece, start))
        else:
            place = _place(syntax, piece, coord)
            found.append(place)
            if grouped:
                found.append(syntax.group(syntax.row(syntax.literal(piece.again), place), "*"))
    return syntax.row(*found)


def _place(syntax: _Syntax, places: Places, coord: str) -> str:
    pieces = (
        syntax.literal(piece) if isinstance(piece, str) else _coords(syntax, piece, coord) for piece in places.place
    )
    return syntax.row(*pieces)


def _coords(syntax: _Syntax, piece: Coords, coord: str) -> str:
    """As many as the kind has; a polygon has three points at least."""
    another = syntax.row(syntax.literal(piece.between), coord)
    if count := COUNTS[piece.kind]:
        return syntax.row(coord, syntax.group(another, f"{{{count - 1}}}"))
    return syntax.row(coord, another, syntax.group(syntax.row(another, another), "{2,}"))


def _label(syntax: _Syntax, label: Label, start: str) -> str:
    """A JSON string in its quotes, or plain text; of one character at least. start: what it cannot hold."""
    without = '"\\' if label.without is None else label.without
    escape = [_escape(syntax)] if label.without is None else []
    quote = syntax.literal('"' if label.without is None else "")
    if len(start) < 2 or start[0] in without or start[1] in without:
        return syntax.row(quote, syntax.group(syntax.either([_class(without + start[:1]), *escape]), "+"), quote)
    # Its first letter is followed by itself, by another letter than the second, or by the end.
    first, second = syntax.group(syntax.literal(start[0]), "*"), syntax.literal(start[1])
    other = syntax.row(first, syntax.either([_class(without + start), *escape]))
    several = syntax.row(syntax.group(f"{other}|{second}", "+"), first)
    return syntax.row(quote, syntax.either([several, syntax.group(syntax.literal(start[0]), "+")]), quote)


def _escape(syntax: _Syntax) -> str:
    """As JSON has it. A lone surrogate, \\ud83d without its second half, is JSON but no text."""
    unit = syntax.row("[0-9abcefABCEF]", _HEX, _HEX, _HEX)
    low = syntax.row("[dD]", "[0-7]", _HEX, _HEX)
    pair = syntax.row("[dD]", "[89abAB]", _HEX, _HEX, syntax.literal("\\u"), "[dD]", "[c-fC-F]", _HEX, _HEX)
    after = syntax.either(['["\\\\/bfnrt]', syntax.row(syntax.literal("u"), syntax.either([unit, low, pair]))])
    return syntax.row(syntax.literal("\\"), after)


def _class(without: str) -> str:
    """Any character but control characters and these."""
    spans, begin = [], 0x20
    for code in [*sorted({ord(c) for c in without if 0x20 <= ord(c) <= _LAST}), _LAST + 1]:
        if begin < code:
            ends = dict.fromkeys((begin, code - 1))
            spans.append("-".join(f"\\{chr(k)}" if chr(k) in "\\]^-[" else chr(k) for k in ends))
        begin = code + 1
    return f"[{''.join(spans)}{_BEYOND_SURROGATES}]"
