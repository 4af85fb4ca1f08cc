"""Constrained decoding: which tokens may come next, for every row of a batch, so that each answer is of the format.

The automaton of the format reads bytes, a tokenizer writes several of them at once, so a token may span symbols of the
format (`", "bbox_2d": [`) or be a part of a character. `compile_grammar` walks every token from every state, once; a
step of generation then reads whole rows of that table and never looks at single tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs
import numpy as np

from coordcore.coords import CoordVocab
from coordcore.errors import InputError
from coordcore.records.answers.format import COORDJSON, Format
from coordcore_detection.decode.automaton import (
    COORD,
    POLY_START,
    X1,
    X2,
    Y1,
    Y2,
    Automaton,
    Fields,
    answer_automaton,
)
from coordcore_detection.decode.tokens import TokenBytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

_NO_SLOT = -1
_FAR = np.iinfo(np.int16).max


@attrs.frozen(kw_only=True, eq=False)
class Grammar:
    """The format over the tokens of one vocabulary. S states, the last of them behind the end token; V tokens.

    table: [R, V] int16, the state that a token leads to, -1 for a token that may not stand there. Rows 0 .. S-1 are
    the states. last_row: [S], the row that counts when no further object may follow; most are the state's own.
    slot: [S], which coordinate belongs there, -1 for text. far: [S], the fewest tokens that complete the answer.
    bin_of: [V] int16, the bin of a coord token, -1 for any other. start: the state in which an answer begins.
    """

    table: Array
    last_row: Array
    slot: Array
    far: Array
    bin_of: Array
    start: int = 0


def bins_of_tokens(vocab: CoordVocab, size: int) -> Array:
    """[V] int16: the bin of a coord token, -1 for any other. size: V."""
    bins = np.full(size, -1, dtype=np.int16)
    bins[list(vocab.ids)] = np.arange(len(vocab.ids))
    return bins


def compile_grammar(
    tokens: TokenBytes,
    vocab: CoordVocab,
    *,
    size: int,
    end_tokens: Iterable[int],
    geometry: tuple[str, ...] | None = None,
    fields: Fields = "any",
    form: Format = COORDJSON,
) -> Grammar:
    """Walk every token from every state. About a second for 150,000 tokens.

    size: V, the width of the model's logits. Tokens without bytes, added tokens that the format itself does not write,
    and the rows behind the tokenizer's last token may not stand anywhere, coord tokens only where a coordinate belongs.
    Raises InputError when the vocabulary cannot write the format.
    """
    automaton = answer_automaton(geometry, fields, form, vocab.format.order)
    words = _Words.of(tokens, size, form.literals)
    slots, ids = _slots(automaton), np.array(vocab.ids)
    tables = [_walked(words, steps, slots, ids) for steps in (automaton.steps, automaton.last_steps)]
    states, start = [*range(len(automaton.steps))], 0
    if tokens.first or tokens.padded != "never":
        start = len(states)
        added = [*ids, *(index for index in tokens.added if index < size)]
        # Spaces between the pieces of an answer are read over in JSON only.
        states += _add_padded(tables, automaton, words, added if tokens.padded == "always" and form.json else [])
    done = len(states)
    free, last = (np.concatenate([table, np.full((1, size), done, np.int16)]) for table in tables)
    differ = np.flatnonzero((free != last).any(1))
    last_row = np.arange(done + 1)
    last_row[differ] = done + 1 + np.arange(len(differ))
    table = np.concatenate([free, last[differ]])
    ends = [number for number, state in enumerate(states) if state in automaton.ends]
    for token in end_tokens:
        table[[*ends, *last_row[ends]], token] = done
    far = _distances(table[: done + 1], ends)
    if far[start] == _FAR:
        raise InputError("the tokenizer lacks tokens that the answer format needs; ask for free decoding")
    slot = np.append(slots[states], _NO_SLOT)
    return Grammar(table=table, last_row=last_row, slot=slot, far=far, bin_of=bins_of_tokens(vocab, size), start=start)


def _walked(words: _Words, steps: Array, slots: Array, ids: Array) -> Array:
    """[S, V] int16: the state that each token leads to from each state of an automaton. ids: of the bins."""
    table = np.stack([words.walk(steps, state) for state in range(len(steps))])
    for state in np.flatnonzero(slots >= 0):
        table[state, ids] = steps[state, COORD + slots[state]]
    return table


def _add_padded(tables: list[Array], automaton: Automaton, words: _Words, added: Sequence[int]) -> list[int]:
    """Add states in which a token may begin with a space that the tokenizer puts there and the format does not write.

    Each is the twin of a state, whose number is in the list returned: of the first, in which an answer begins, and of
    those behind the tokens `added`, which lead to the twins instead.
    """
    behind = np.unique(tables[0][:, added])
    twins = [0, *behind[behind >= 0].tolist()]
    numbers = np.arange(-1, len(automaton.steps))  # -1, no state, stays what it is
    numbers[np.array(twins[1:], dtype=np.int64) + 1] = len(automaton.steps) + np.arange(1, len(twins))
    for index, steps in enumerate((automaton.steps, automaton.last_steps)):
        rows = [words.walk_padded(steps, state, tables[index][state]) for state in twins]
        tables[index] = np.concatenate([tables[index], np.stack(rows)])
        tables[index][:, added] = numbers[tables[index][:, added] + 1]
    return twins


@attrs.frozen(kw_only=True, eq=False)
class _Words:
    """The bytes of all tokens in one array. length 0: a token that writes nothing and may stand nowhere."""

    flat: Array
    start: Array
    length: Array

    @classmethod
    def of(cls, tokens: TokenBytes, size: int, literals: str) -> _Words:
        """literals: what a format writes of itself, in which added tokens may stand (`<|box_start|>`)."""
        words = [word or b"" for word in tokens.text[:size]]
        words += [b""] * (size - len(words))
        for index, token in tokens.added.items():
            if index < size and token in literals:
                words[index] = token.encode()
        length = np.array([len(word) for word in words])
        return cls(flat=np.frombuffer(b"".join(words), np.uint8), start=np.cumsum(length) - length, length=length)

    def walk(self, steps: Array, state: int) -> Array:
        """[V] int16: the state each token leads to from `state`, -1 where the automaton stops on the way."""
        reached = np.full(len(self.length), -1, dtype=np.int16)
        alive = np.flatnonzero(self.length)
        at = np.full(len(alive), state, dtype=np.int16)
        place = 0
        while len(alive):
            at = steps[at, self.flat[self.start[alive] + place]]
            place += 1
            ended = self.length[alive] == place
            reached[alive[ended]] = at[ended]
            on = (at >= 0) & ~ended
            alive, at = alive[on], at[on]
        return reached

    def walk_padded(self, steps: Array, state: int, plain: Array) -> Array:
        """As `walk`, which gave `plain`, where tokens may begin with one space more than the automaton reads."""
        spaced = self.length > 0
        spaced[spaced] = self.flat[self.start[spaced]] == ord(" ")
        shorter = _Words(flat=self.flat, start=self.start + spaced, length=(self.length - spaced) * spaced)
        reached = shorter.walk(steps, state)
        reached[spaced & (self.length == 1)] = state
        return np.where(reached >= 0, reached, plain)


def _slots(automaton: Automaton) -> Array:
    """[S]: the slot of each state of the automaton, _NO_SLOT for text."""
    takes = automaton.steps[:, COORD:] >= 0
    if (takes.sum(1) > 1).any():
        raise ValueError("the format is ambiguous: in one place, coordinates of two kinds may stand")
    return np.where(takes.any(1), takes.argmax(1), _NO_SLOT)


def _distances(table: Array, ends: list[int]) -> Array:
    """[S] int16: the fewest tokens from each state to one of `ends`, or to the state behind the end token."""
    far = np.full(len(table), _FAR, dtype=np.int16)
    far[[*ends, len(table) - 1]] = 0
    follows = [np.flatnonzero(np.bincount(row[row >= 0], minlength=len(table))) for row in table]
    while True:
        nearer = far.copy()
        for state, states in enumerate(follows):
            if len(states) and far[states].min() < _FAR:
                nearer[state] = min(far[state], far[states].min() + 1)
        if np.array_equal(nearer, far):
            return far
        far = nearer


class DeviceGrammar:
    """A grammar with its tables on the device of the scores."""

    def __init__(self, grammar: Grammar, device: torch.device | str) -> None:
        import torch

        self.grammar = grammar
        self.device = device
        self.table = torch.from_numpy(grammar.table).to(device)
        self.forbidden = self.table < 0
        self.far = torch.from_numpy(grammar.far).to(device)
        self.farthest = int(grammar.far[grammar.far < _FAR].max())
        bins = torch.from_numpy(grammar.bin_of).to(device)
        self.order = bins.masked_fill(bins < 0, torch.iinfo(bins.dtype).max)  # text is never below a bin

    def rows(self, numbers: Array) -> Tensor:
        """Row numbers, on the device."""
        import torch

        return torch.from_numpy(numbers).to(self.device)


class Place(NamedTuple):
    """Where an answer stands in a grammar. remaining: tokens that may still be written. objects: that have begun.
    x, y: the first corner of its last box, in bins."""

    state: int
    remaining: int
    objects: int = 0
    x: int = 0
    y: int = 0


class Constraint:
    """A batch on its way through a grammar.

    Where each answer stands is a few numbers on the host; the masks of whole vocabulary rows are made on the device.
    In each step: `allow` on the scores, then `advance` with the tokens that were chosen, or `go_on` with one of them.
    """

    def __init__(self, tables: DeviceGrammar, rows: int, *, budget: int, max_objects: int, ordered: bool) -> None:
        """budget: tokens that may be written. ordered: no x2 < x1, no y2 < y1.

        Raises InputError when not even an answer without objects fits the budget.
        """
        grammar = tables.grammar
        least = grammar.far[grammar.start]
        if budget < least:
            raise InputError(f"max_new_tokens must be at least {least} for an empty answer, got {budget}")
        self.tables = tables
        self.grammar = grammar
        self.max_objects = max_objects
        self.ordered = ordered
        self._set([Place(state=grammar.start, remaining=budget)] * rows, np.zeros(rows, dtype=bool))

    def _set(self, places: list[Place], closing: Array) -> None:
        import torch

        self.places = places
        self.closing = closing
        """[B]: answers that must end by the shortest way."""
        self.cut = torch.zeros(len(places), dtype=torch.bool, device=self.tables.device)
        """[B]: answers that were ended: without the limits they would have gone on."""
        self.limited = False
        """Whether a limit has had a say."""

    def ahead(self, rows: Sequence[int], drafts: Sequence[Sequence[int]], *, exact: bool) -> Constraint:
        """A constraint of its own for what may stand behind each token of `drafts`, of which each of `rows` has one.

        It has a row for every place: behind the last token of the first row, then behind the first token of its draft,
        and so on; then those of the second row. exact: a draft goes on only behind what is right, so that its first
        corners bound the second ones; else nothing does, and `is_in_order` is to be asked of what is taken.
        """
        places = []
        for row, draft in zip(rows, drafts, strict=True):
            places.append(self.places[row])
            for token in draft:
                places.append(self._behind(places[-1], token, exact=exact))
        made = copy.copy(self)
        made._set(places, np.repeat(self.closing[rows], [1 + len(draft) for draft in drafts]))
        return made

    def note_cut(self, checked: Constraint, numbers: Sequence[int], rows: Sequence[int]) -> None:
        """What `checked` found cut in the places of these numbers, which are of `rows` of this one."""
        if checked.limited:
            cut = checked.cut.tolist()
            self.cut[[row for row, number in zip(rows, numbers, strict=True) if cut[number]]] = True

    def is_in_order(self, row: int, token: int) -> bool:
        """Whether a token is no second corner before the first one that was written."""
        place, bin_ = self.places[row], self.grammar.bin_of[token]
        if not self.ordered or bin_ < 0:
            return True
        return bool(bin_ >= {X2: place.x, Y2: place.y}.get(int(self.grammar.slot[place.state]), 0))

    def advance(self, tokens: Array) -> None:
        """tokens: [B], the ones that were chosen."""
        for row, token in enumerate(tokens.tolist()):
            self.go_on(row, token)

    def go_on(self, row: int, token: int) -> None:
        """A token was chosen in one row."""
        self.places[row] = self._behind(self.places[row], token)

    def _behind(self, place: Place, token: int, *, exact: bool = True) -> Place:
        grammar, (state, remaining, objects, x, y) = self.grammar, place
        bin_ = int(grammar.bin_of[token])
        if bin_ >= 0:  # where a coordinate may stand, another format may allow text as well
            slot = grammar.slot[state]
            least = bin_ if exact else 0
            x, y = least if slot == X1 else x, least if slot == Y1 else y
            objects += slot in (X1, POLY_START)
        return Place(int(grammar.table[state, token]), remaining - 1, objects, x, y)

    def allow(self, scores: Tensor) -> Tensor:
        """A copy of `scores` [B, V] with minus infinity wherever a token may not stand."""
        import torch

        state, remaining, objects, x, y = np.array(self.places, dtype=np.int64).T
        forbidden = self.tables.forbidden.index_select(0, self.tables.rows(state))
        if self.ordered:
            slot = self.grammar.slot[state]
            lower = np.where(slot == X2, x, np.where(slot == Y2, y, 0))
            if lower.any():
                forbidden |= self.tables.order < self.tables.rows(lower.astype(np.int16))[:, None]
        allowed = torch.where(forbidden, -torch.inf, scores)
        limits = self._limits(state, remaining, objects)
        if not limits:
            return allowed
        self.limited = True
        for limit in limits:
            forbidden |= limit
        limited = torch.where(forbidden, -torch.inf, scores)
        self.cut |= limited.argmax(-1) != allowed.argmax(-1)
        return limited

    def _limits(self, state: Array, remaining: Array, objects: Array) -> list[Tensor]:
        """What else to forbid, [B, V] each: by the budget, by the objects, and where a loop was seen."""
        grammar, tables, limits = self.grammar, self.tables, []
        last = np.where(objects >= self.max_objects, grammar.last_row[state], state)
        if (last != state).any():
            limits.append(tables.forbidden[tables.rows(last)])
        # One token less is left behind the next one. Far from the end of the budget that forbids nothing.
        left = remaining - 1
        short = bool((left < tables.farthest).any())
        if short or self.closing.any():
            rows = tables.rows(state)
            behind = tables.far[tables.table[rows].long()]
            if short:
                limits.append(behind > tables.rows(left)[:, None])
            now = tables.far[rows][:, None]
            # A complete answer is closed by the end token, behind which nothing is left, and by no other.
            limits.append(tables.rows(self.closing)[:, None] & (behind >= now.clamp(min=1)))
        return limits
