"""Greedy decoding under a grammar, several tokens a pass: what probably follows is guessed and checked. Needs torch.

Most of an answer is its format, of which the grammar leaves little choice. One pass of the model sees the last token of
each row and the guesses behind it, and gives the scores at each of these places. They are gone through as if they had
come one after the other: the best allowed token is taken, and while it is the one that was guessed, the next scores
hold too. So an answer has the tokens that one at a time would have given, but for scores that are equal up to rounding;
with a tolerance, a corner may also stand in the cache as it was guessed while the answer says what is right. What was
guessed wrongly stays in the cache, where nothing looks at it any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

from coordcore_detection.decode.grammar import Constraint, Grammar
from coordcore_detection.predict.corners import Corners
from coordcore_detection.predict.recording import Journal, Recording

Array = np.ndarray[Any, np.dtype[Any]]

MOST = 24
"""Tokens that are guessed at a time; the scores of all of them are in memory. A box of CoordJSON has about as many."""

_COORDINATE = -2


class NotAheadError(Exception):
    """This model keeps more of what it has read than one entry a token, or sees no mask: tokens come one at a time."""


class Guesses:
    """What followed a token in a state of the grammar the last time: a text, or some coordinate, all of them alike.

    Behind a token that is new there, such as a label, what followed another one.
    """

    def __init__(self, grammar: Grammar, known: Sequence[int] = ()) -> None:
        """known: the tokens of an answer, to begin with."""
        self._grammar = grammar
        self._done = len(grammar.slot) - 1
        self._next: dict[tuple[int, int], int] = {}
        self._last: dict[int, int] = {}
        state, before = grammar.start, -1
        for token in known:
            self.learn(state, before, token)
            state, before = int(grammar.table[state, token]), token
            if state < 0:
                break

    def copy(self) -> Guesses:
        """Another that learns on its own."""
        other = Guesses(self._grammar)
        other._next, other._last = dict(self._next), dict(self._last)
        return other

    def learn(self, state: int, before: int, token: int) -> None:
        self._next[state, self._alike(before)] = self._last[state] = self._alike(token)

    def after(self, state: int, before: int, most: int, corners: Mapping[int, int]) -> list[int]:
        """At most so many tokens that may follow `before`, which led to `state`.

        corners: slot -> the coordinate that probably stands there next; others are not guessed.
        """
        found: list[int] = []
        left = dict(corners)
        while len(found) < most and state != self._done:
            token = self._next.get((state, self._alike(before)), self._last.get(state, _COORDINATE))
            if token == _COORDINATE:
                token = left.pop(int(self._grammar.slot[state]), -1)
            if token < 0 or self._grammar.table[state, token] < 0:
                break
            found.append(token)
            state, before = int(self._grammar.table[state, token]), token
        return found

    def _alike(self, token: int) -> int:
        return _COORDINATE if token >= 0 and self._grammar.bin_of[token] >= 0 else token


@attrs.define
class _Begun:
    """What a model made of the prompts. scores: [B, V] float32, of the first token. places: [..., B, 1], where the last
    token of each prompt stands."""

    scores: Tensor
    cache: Any
    mask: Tensor
    places: Tensor


class _Keep(LogitsProcessor):
    def __call__(self, _input_ids: Tensor, scores: Tensor) -> Tensor:
        self.scores = scores
        return scores


def write_ahead(
    model: Any,
    inputs: Any,
    constraint: Constraint,
    guesses: Sequence[Guesses],
    journal: Journal,
    end_tokens: Sequence[int],
    corners: Corners,
) -> Recording:
    """Answer the prompts `inputs` as `constraint` allows; `guesses`, of each row, and `corners` learn on the way.

    Raises NotAheadError, before anything is written, for a model that cannot be asked so.
    """
    begun = _begin(model, inputs, end_tokens)
    cached = np.arange(len(begun.mask))  # which rows the cache holds
    answers = _Answers(constraint, guesses, corners, journal, end_tokens, rows=len(cached))
    answers.begin(begun.scores)
    while answers.going.any():
        if 2 * answers.going.sum() <= len(cached):
            kept = np.flatnonzero(answers.going[cached])
            _keep_rows(begun, torch.from_numpy(kept).to(begun.mask.device))
            cached = cached[kept]
        places = np.flatnonzero(answers.going[cached])
        rows = cached[places]
        drafts = answers.drafts(rows.tolist())
        ids = np.full((len(cached), 1 + max(map(len, drafts))), end_tokens[0], dtype=np.int64)
        seen = np.zeros_like(ids)
        for place, row, draft in zip(places, rows, drafts, strict=True):
            ids[place, : 1 + len(draft)] = [answers.last[row], *draft]
            seen[place, : 1 + len(draft)] = 1
        output = _pass(model, begun, ids, seen, answers.count[cached], states=corners.sees_states)
        seen[places] = answers.check(rows.tolist(), drafts, output.logits, places)
        on = np.flatnonzero(answers.going[rows])
        corners.look(
            rows[on], places[on], seen[places[on]].sum(1) - 1, dict(zip(places.tolist(), drafts, strict=True)), output
        )
        _settle(begun, seen)
    return journal.finish(looped=constraint.closing, cut=constraint.cut.cpu().numpy())


class _Answers:
    """The answers of a batch as far as they are written. [B] each: last, their last tokens; count, how many they have;
    going, which go on."""

    def __init__(
        self,
        constraint: Constraint,
        guesses: Sequence[Guesses],
        corners: Corners,
        journal: Journal,
        end_tokens: Sequence[int],
        *,
        rows: int,
    ) -> None:
        self._constraint = constraint
        self._guesses = guesses
        self._corners = corners
        self._journal = journal
        self._end_tokens = end_tokens
        self.last = np.full(rows, -1, dtype=np.int64)
        self.count = np.zeros(rows, dtype=np.int64)
        self.going = np.ones(rows, dtype=bool)

    def begin(self, scores: Tensor) -> None:
        """scores: [B, V], of the first tokens."""
        chosen = self._constraint.allow(scores).argmax(-1)
        tokens = chosen.tolist()
        steps = [self._take(row, token) for row, token in enumerate(tokens)]
        self._journal.write(range(len(tokens)), steps, tokens, scores, chosen)

    def drafts(self, rows: Sequence[int]) -> list[list[int]]:
        """What probably follows in each of these rows."""
        places = self._constraint.places
        return [
            self._guesses[row].after(
                places[row].state,
                int(self.last[row]),
                min(MOST, places[row].remaining - 1),
                self._corners.next_of(row),
            )
            for row in rows
        ]

    def check(self, rows: Sequence[int], drafts: Sequence[Sequence[int]], logits: Tensor, places: Array) -> Array:
        """Go on in `rows` with the best tokens allowed behind a pass, as long as a draft's come true.

        logits: [C, T, V] of the pass, `places` [R] of which are of `rows`. Returns [R, T]: 1 for the pass's tokens that
        are part of the answers, which are the last ones before it and what was guessed right.
        """
        lengths = [1 + len(draft) for draft in drafts]
        of, before = np.repeat(places, lengths), np.concatenate([np.arange(length) for length in lengths])
        behind = torch.from_numpy(np.stack([of, before])).to(logits.device)
        scores = logits[behind[0], behind[1]].float()
        checked = self._constraint.ahead(rows, drafts, exact=self._corners.exact)
        chosen = checked.allow(scores).argmax(-1)
        best: list[int] = chosen.tolist()
        seen = np.zeros((len(rows), logits.shape[1]), dtype=np.int64)
        counted: list[int] = []  # which of `best` count
        steps: list[int] = []  # and where they stand in the answers
        owners: list[int] = []
        first = 0
        for number, (row, draft) in enumerate(zip(rows, drafts, strict=True)):
            for step, token in enumerate(best[first : first + lengths[number]]):
                # Behind a corner that was guessed near enough, what was looked at as allowed may not be.
                if not self._constraint.is_in_order(row, token):
                    break
                seen[number, step] = 1
                closing = self._constraint.closing[row]
                steps.append(self._take(row, token))
                counted.append(first + step)
                owners.append(row)
                # A row that is to end has other tokens allowed than were looked at.
                if not self.going[row] or step == len(draft) or self._constraint.closing[row] != closing:
                    break
                if not self._corners.fits(row, draft[step], token):
                    break
            first += lengths[number]
        at = torch.tensor(counted, device=logits.device)
        self._journal.write(owners, steps, [best[entry] for entry in counted], scores[at], chosen[at])
        self._constraint.note_cut(checked, counted, owners)
        return seen

    def _take(self, row: int, token: int) -> int:
        """Write a token down; its place in the answer."""
        constraint = self._constraint
        state = constraint.places[row].state
        self._guesses[row].learn(state, int(self.last[row]), token)
        self._corners.written(row, int(constraint.grammar.slot[state]), token)
        constraint.go_on(row, token)
        step = self._journal.say(row, token)
        self.last[row], self.count[row] = token, step + 1
        self.going[row] = constraint.places[row].remaining > 0 and token not in self._end_tokens
        if self.going[row] and self._journal.loops(row):
            constraint.closing[row] = True
        return step


def _begin(model: Any, inputs: Any, end_tokens: Sequence[int]) -> _Begun:
    """Let the model read the prompts, as `generate` does. Raises NotAheadError."""
    keep, config = _Keep(), GenerationConfig(
        do_sample=False, max_new_tokens=1, eos_token_id=list(end_tokens), pad_token_id=end_tokens[0],
        return_dict_in_generate=True,
    )  # fmt: skip
    with _positions(model) as found, only(model, config):
        made = model.generate(**inputs, generation_config=config, logits_processor=LogitsProcessorList([keep]))
    cache, text = made.past_key_values, model.config.get_text_config()
    layers = getattr(cache, "layers", [])
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        raise NotAheadError("the cache holds more than keys and values of every token")
    if getattr(text, "_attn_implementation", None) not in ("eager", "sdpa"):
        raise NotAheadError("this attention is not told which entries of the cache count")
    if not found or found[0] is None or "attention_mask" not in inputs:
        raise NotAheadError("the model is not told where its tokens stand")
    mask = inputs["attention_mask"]
    if cache.get_seq_length() != mask.shape[1]:
        raise NotAheadError("the cache does not hold an entry for each token of the prompt")
    return _Begun(scores=keep.scores, cache=cache, mask=mask, places=found[0][..., -1:])


@contextmanager
def only(model: Any, config: Any) -> Iterator[None]:
    """Let nothing but `config` decide: transformers fills gaps from the model's own, such as a repetition penalty."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own


@contextmanager
def _positions(model: Any) -> Iterator[list[Tensor | None]]:
    """The `position_ids` of each call of the model within this context."""
    found: list[Tensor | None] = []
    hook = model.register_forward_pre_hook(
        lambda _module, _args, kwargs: found.append(kwargs.get("position_ids")), with_kwargs=True
    )
    try:
        yield found
    finally:
        hook.remove()


def _pass(model: Any, begun: _Begun, ids: Array, seen: Array, count: Array, *, states: bool) -> Any:
    """The model's output behind each of `ids`, [B, T]. seen: which of them count. count: tokens of each answer so far.
    states: whether it tells its hidden states too.
    """
    device = begun.mask.device
    mask = torch.cat([begun.mask, torch.from_numpy(seen).to(begun.mask)], dim=1)
    steps = torch.from_numpy(count[:, None] + np.arange(ids.shape[1])).to(begun.places)
    return model(
        input_ids=torch.from_numpy(ids).to(device),
        attention_mask=mask,
        position_ids=begun.places + steps,
        past_key_values=begun.cache,
        use_cache=True,
        **({"output_hidden_states": True} if states else {}),
    )


def _settle(begun: _Begun, seen: Array) -> None:
    """Go on behind the last pass. seen: [B, T], which of its tokens are part of the answers."""
    used = int(np.flatnonzero(seen.any(0)).max(initial=-1)) + 1
    if used < seen.shape[1]:
        begun.cache.crop(used - seen.shape[1])
    begun.mask = torch.cat([begun.mask, torch.from_numpy(seen[:, :used]).to(begun.mask)], dim=1)


def _keep_rows(begun: _Begun, kept: Tensor) -> None:
    """Forget the other rows."""
    begun.cache.batch_select_indices(kept)
    begun.mask = begun.mask[kept]
    begun.places = begun.places[..., kept, :]
