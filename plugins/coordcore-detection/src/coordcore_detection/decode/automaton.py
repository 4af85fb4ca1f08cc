"""An answer format as a deterministic automaton over bytes and coordinate slots. Torch-free.

What is written is said by `coordcore.records.answers.format`; here its pieces become states and steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal

import attrs
import numpy as np

from coordcore.coords import Order
from coordcore.records.answers.format import COORDJSON, Format, Label, Places
from coordcore.records.geometry import COUNTS

Array = np.ndarray[Any, np.dtype[Any]]

Fields = Literal["any", "desc_first", "geometry_first"]
Geometry = Literal["bbox_2d", "poly", "point", "quad"]

X1, Y1, X2, Y2, POLY_START, POLY = range(6)
"""Slots: where a coordinate stands. POLY_START is the first of a polygon or quad, POLY any later one. A point has the
first two of a box, with which it begins in some formats."""

COORD = 256
"""Symbol of slot 0; below it are bytes."""

_MARKED = COORD + 6
"""From here on: the symbol, this much lower, where it begins a further object, and stands for nothing else."""


@attrs.frozen(kw_only=True, eq=False)
class Automaton:
    """States and what leads from one to another. State 0 is the beginning.

    steps: [S, 256 + 6] int16, state and symbol (a byte, or COORD + slot) -> state, -1 where the format ends.
    last_steps: the same, but neither an object nor, in a format that groups them, a place follows the one that is being
    written.
    ends: the states in which the answer is complete.
    """

    steps: Array
    last_steps: Array
    ends: tuple[int, ...]


@lru_cache
def answer_automaton(
    geometry: tuple[str, ...] | None = None,
    fields: Fields = "any",
    form: Format = COORDJSON,
    order: Order = "xy",
) -> Automaton:
    """The automaton of `form`, such as `{"objects": [{"desc": "red circle", "bbox_2d": [<|coord_12|>, ...]}, ...]}`.

    geometry: the kinds an object may have, all of the format's when None. fields: the order of description and geometry
    in an object. A description has at least one character and is valid UTF-8; a geometry has as many coordinates as
    `geometry.COUNTS` says.
    order: of x and y in a box or point.
    """
    orders = {"any": (False, True), "desc_first": (False,), "geometry_first": (True,)}[fields]
    layouts = dict.fromkeys(form.layout(kind, first) for kind in geometry or form.places for first in orders)
    written = _either(
        *(_seq(*(_piece(piece, order, form.again is not None) for piece in layout)) for layout in layouts)
    )
    several = _seq(written, _many(_seq(_text(form.between, further=True), written)))
    whole = _seq(_text(form.opening), _either(several, _text(form.nothing)), _text(form.closing))
    return _deterministic(whole)


def _piece(piece: str | Label | Places, order: Order, grouped: bool) -> _Pattern:
    if isinstance(piece, str):
        return _text(piece)
    if isinstance(piece, Label):
        return _description(piece)
    if not grouped:
        return _place(piece, order)
    again = (_text(piece.again, further=True), _place(piece, order)) if piece.again else (_place(piece, order, True),)
    return _seq(_place(piece, order), _many(_seq(*again)))


def _place(places: Places, order: Order, further: bool = False) -> _Pattern:
    """further: it is not the first of its label, and nothing stands before it that says so."""
    patterns = []
    for piece in places.place:
        if isinstance(piece, str):
            patterns.append(_text(piece, further=further))
        elif piece.kind == "poly":
            patterns.append(_poly(_text(piece.between), further))
        elif piece.kind == "quad":
            patterns.append(_slots(_text(piece.between), POLY_START, *[POLY] * 7, further=further))
        else:
            slots = (X1, Y1, X2, Y2) if order == "xy" else (Y1, X1, Y2, X2)
            patterns.append(_slots(_text(piece.between), *slots[: COUNTS[piece.kind]], further=further))
        further = False
    return _seq(*patterns)


# --- patterns: each adds its edges behind a state and gives the state behind them -----------------------------------


class _Edges:
    """A non-deterministic automaton: for each state its labelled edges, and those that need no symbol."""

    def __init__(self) -> None:
        self.labelled: list[list[tuple[tuple[int, ...], int]]] = []
        self.silent: list[list[int]] = []

    def state(self) -> int:
        self.labelled.append([])
        self.silent.append([])
        return len(self.labelled) - 1


_Pattern = Callable[[_Edges, int], int]


def _symbol(*symbols: int) -> _Pattern:
    def add(edges: _Edges, at: int) -> int:
        to = edges.state()
        edges.labelled[at].append((symbols, to))
        return to

    return add


def _bytes(*ranges: tuple[int, int]) -> _Pattern:
    return _symbol(*(byte for low, high in ranges for byte in range(low, high + 1)))


def _seq(*patterns: _Pattern) -> _Pattern:
    def add(edges: _Edges, at: int) -> int:
        for pattern in patterns:
            at = pattern(edges, at)
        return at

    return add


def _text(text: str, *, further: bool = False) -> _Pattern:
    """further: a further object begins with it."""
    first, rest = text.encode()[:1], text.encode()[1:]
    return _seq(*(_symbol(_MARKED + byte if further else byte) for byte in first), *(_symbol(byte) for byte in rest))


def _either(*patterns: _Pattern) -> _Pattern:
    def add(edges: _Edges, at: int) -> int:
        to = edges.state()
        for pattern in patterns:
            edges.silent[pattern(edges, at)].append(to)
        return to

    return add


def _many(pattern: _Pattern) -> _Pattern:
    def add(edges: _Edges, at: int) -> int:
        loop = edges.state()
        edges.silent[at].append(loop)
        edges.silent[pattern(edges, loop)].append(loop)
        return loop

    return add


# --- the pieces of the format ---------------------------------------------------------------------------------------

_TAIL = _bytes((0x80, 0xBF))
_BEYOND_ASCII = (  # RFC 3629, section 4
    _seq(_bytes((0xC2, 0xDF)), _TAIL),
    _seq(_bytes((0xE0, 0xE0)), _bytes((0xA0, 0xBF)), _TAIL),
    _seq(_bytes((0xE1, 0xEC), (0xEE, 0xEF)), _TAIL, _TAIL),
    _seq(_bytes((0xED, 0xED)), _bytes((0x80, 0x9F)), _TAIL),
    _seq(_bytes((0xF0, 0xF0)), _bytes((0x90, 0xBF)), _TAIL, _TAIL),
    _seq(_bytes((0xF1, 0xF3)), _TAIL, _TAIL, _TAIL),
    _seq(_bytes((0xF4, 0xF4)), _bytes((0x80, 0x8F)), _TAIL, _TAIL),
)


def _of(letters: str) -> _Pattern:
    return _symbol(*letters.encode())


_HEX = _of("0123456789abcdefABCDEF")
_D = _of("dD")
# A lone surrogate, \ud83d without its second half, is JSON but no text.
_CODE_UNIT = _either(_seq(_of("0123456789abcefABCEF"), _HEX, _HEX, _HEX), _seq(_D, _of("01234567"), _HEX, _HEX))
_PAIR = _seq(_D, _of("89abAB"), _HEX, _HEX, _text("\\u"), _D, _of("cdefCDEF"), _HEX, _HEX)
_ESCAPE = _seq(_text("\\"), _either(_of('"\\/bfnrt'), _seq(_text("u"), _either(_CODE_UNIT, _PAIR))))


def _description(label: Label) -> _Pattern:
    """A JSON string in its quotes, or plain text; of one character at least."""
    without = '"\\' if label.without is None else label.without
    plain = [code for code in range(0x20, 0x80) if chr(code) not in without]
    character = _either(_symbol(*plain), *_BEYOND_ASCII, *([_ESCAPE] if label.without is None else []))
    quote = _text('"' if label.without is None else "")
    return _seq(quote, character, _many(character), quote)


def _slots(between: _Pattern, first: int, *others: int, further: bool = False) -> _Pattern:
    begin = _symbol(COORD + first + (_MARKED if further else 0))
    return _seq(begin, *(_seq(between, _symbol(COORD + slot)) for slot in others))


def _poly(between: _Pattern, further: bool = False) -> _Pattern:
    point = _seq(between, _slots(between, POLY, POLY))
    return _seq(_slots(between, POLY_START, POLY, further=further), point, point, _many(point))


# --- to a deterministic, minimal automaton --------------------------------------------------------------------------


def _deterministic(pattern: _Pattern) -> Automaton:
    """The subset construction, then Moore's partition refinement."""
    edges = _Edges()
    final = pattern(edges, edges.state())
    numbers = {_closure(edges, [0]): 0}
    rows: list[list[int]] = []
    waiting = list(numbers)
    for subset in waiting:
        targets: dict[int, list[int]] = {}
        for state in subset:
            for symbols, to in edges.labelled[state]:
                for symbol in symbols:
                    targets.setdefault(symbol, []).append(to)
        row = [-1] * (2 * _MARKED)
        for symbol, states in targets.items():
            found = _closure(edges, states)
            if found not in numbers:
                numbers[found] = len(numbers)
                waiting.append(found)
            row[symbol] = numbers[found]
        rows.append(row)
    return _minimal(np.array(rows), np.array([final in subset for subset in waiting]))


def _closure(edges: _Edges, states: Sequence[int]) -> frozenset[int]:
    found, waiting = set(states), list(states)
    while waiting:
        for to in edges.silent[waiting.pop()]:
            if to not in found:
                found.add(to)
                waiting.append(to)
    return frozenset(found)


def _minimal(table: Array, final: Array) -> Automaton:
    block = final.astype(np.int64)
    while True:
        # Index -1, no step, reads the appended -1.
        signature = np.concatenate([block[:, None], np.append(block, -1)[table]], axis=1)
        numbers: dict[bytes, int] = {}
        refined = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in signature])
        if len(numbers) == block.max() + 1:
            break
        block = refined
    first = np.unique(refined, return_index=True)[1]  # numbered as they are met: the beginning is state 0
    steps = np.append(refined, -1)[table[first]].astype(np.int16)
    last_steps, further = steps[:, :_MARKED], steps[:, _MARKED:]
    if ((last_steps >= 0) & (further >= 0)).any():
        raise ValueError("the format is ambiguous: what begins a further object can also go on with the last one")
    free = np.where(further >= 0, further, last_steps)
    return Automaton(steps=free, last_steps=last_steps, ends=tuple(np.flatnonzero(final[first]).tolist()))
