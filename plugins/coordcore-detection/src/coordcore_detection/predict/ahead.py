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
    """What followed a token in a state of the grammar the last time: a text, or some coordinate, all of them alike."""

    def __init__(self, grammar: Grammar, known: Sequence[int] = ()) -> None:
        """known: the tokens of an answer, to begin with."""
        self._grammar = grammar
        self._done = len(grammar.slot) - 1
        self._next: dict[tuple[int, int], int] = {}
        state, before = grammar.start, -1
        for token in known:
            self.learn(state, before, token)
            state, before = int(grammar.table[state, token]), token
            if state < 0:
                break

    def copy(self) -> Guesses:
        """Another that learns on its own."""
        other = Guesses(self._grammar)
        other._next = dict(self._next)
        return other

    def learn(self, state: int, before: int, token: int) -> None:
        self._next[state, self._alike(before)] = self._alike(token)

    def after(self, state: int, before: int, most: int, corners: Mapping[int, int]) -> list[int]:
        """At most so many tokens that may follow `before`, which led to `state`.

        corners: slot -> the coordinate that probably stands there next; others are not guessed.
        """
        found: list[int] = []
        left = dict(corners)
        while len(found) < most and state != self._done:
            token = self._next.get((state, self._alike(before)), _COORDINATE)
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


class _Keep(LogitsProcessor):  # type: ignore[misc]
    def __call__(self, _input_ids: Tensor, scores: Tensor) -> Tensor:
        self.scores = scores
        return scores


def write_ahead(
    model: Any,
    inputs: Any,
    constraint: Constraint,
    guesses: Guesses,
    journal: Journal,
    end_tokens: Sequence[int],
    corners: Corners,
) -> Recording:
    """Answer the prompts `inputs` as `constraint` allows; `guesses` and `corners` learn on the way.

    Raises NotAheadError, before anything is written, for a model that cannot be asked so.
    """
    begun = _begin(model, inputs, end_tokens)
    rows = np.arange(len(begun.mask))
    cached = rows  # which rows the cache holds
    last = np.full(len(rows), -1, dtype=np.int64)
    count = np.zeros(len(rows), dtype=np.int64)
    going = np.ones(len(rows), dtype=bool)

    def take(at: Array, tokens: Array) -> Array:
        """Write tokens down in the rows `at`; [R], their places in the answers."""
        for row, token in zip(at.tolist(), tokens.tolist(), strict=True):
            guesses.learn(int(constraint.state[row]), int(last[row]), token)
        corners.written(at, constraint.grammar.slot[constraint.state[at]], tokens)
        constraint.advance(tokens, at)
        steps = journal.say(at, tokens)
        last[at], count[at] = tokens, count[at] + 1
        going[at] = (constraint.remaining[at] > 0) & ~np.isin(tokens, end_tokens)
        constraint.closing[at] |= journal.loops(at) & going[at]
        return steps

    first = constraint.allow(begun.scores).argmax(-1)
    journal.write(rows, take(rows, first.cpu().numpy()), begun.scores, first)
    while going.any():
        if 2 * going.sum() <= len(cached):
            kept = np.flatnonzero(going[cached])
            _keep_rows(begun, torch.from_numpy(kept).to(begun.mask.device))
            cached = cached[kept]
        drafts = [
            guesses.after(
                int(constraint.state[row]),
                int(last[row]),
                min(MOST, int(constraint.remaining[row]) - 1),
                corners.next_of(int(row)),
            )
            if going[row]
            else []
            for row in cached
        ]
        width = 1 + max(map(len, drafts))
        ids = np.full((len(cached), width), end_tokens[0], dtype=np.int64)
        seen = np.zeros((len(cached), width), dtype=np.int64)
        for place, (row, draft) in enumerate(zip(cached, drafts, strict=True)):
            if going[row]:
                ids[place, : 1 + len(draft)] = [last[row], *draft]
                seen[place, : 1 + len(draft)] = 1
        output = _pass(model, begun, ids, seen, count[cached], states=corners.sees_states)
        logits = output.logits
        seen[:, 1:] = 0
        places = np.flatnonzero(going[cached])
        checked, of, before = constraint.ahead(cached[places], [drafts[place] for place in places])
        at_device = torch.from_numpy(np.stack([places[of], before])).to(logits.device)
        scores = logits[at_device[0], at_device[1]].float()
        chosen = checked.allow(scores).argmax(-1)
        best = chosen.cpu().numpy()
        written: list[tuple[Array, Array]] = []  # places of the pass whose token counts, and where that stands
        right = np.ones(len(places), dtype=bool)  # of which rows what was guessed is right so far
        for step in range(width):
            entries = np.flatnonzero((before == step) & right[of])
            at = cached[places[of[entries]]]
            # Behind a corner that was guessed near enough, what was looked at as allowed may not be.
            in_order = constraint.is_in_order(best[entries], at)
            right[of[entries]], seen[places[of[entries[~in_order]]], step] = in_order, 0
            entries, at = entries[in_order], at[in_order]
            closing = constraint.closing[at]
            written.append((entries, take(at, best[entries])))
            right[of[entries]] = [
                bool(going[row]) and len(drafts[place]) > step and corners.fits(row, drafts[place][step], token)
                for place, row, token in zip(
                    places[of[entries]].tolist(), at.tolist(), best[entries].tolist(), strict=True
                )
            ]
            right[of[entries]] &= constraint.closing[at] == closing  # else what is allowed has changed
            if not right.any():
                break
            seen[places[right], step + 1] = 1
        entries, steps = (np.concatenate(items) for items in zip(*written, strict=True))
        counted = torch.from_numpy(entries).to(logits.device)
        journal.write(cached[places[of[entries]]], steps, scores[counted], chosen[counted])
        constraint.note_cut(checked, entries, cached[places[of[entries]]])
        places = np.flatnonzero(going[cached])
        corners.look(cached[places], places, seen[places].sum(1) - 1, drafts, output)
        _settle(begun, seen)
    return journal.finish(looped=constraint.closing, cut=constraint.cut.cpu().numpy())


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
