"""What is kept of a generation: each chosen token's probability, and the coordinate distributions. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from coordcore_detection.decode.grammar import Constraint

Array = np.ndarray[Any, np.dtype[Any]]

LOOP_TOKENS = 48
"""A loop is only called one when it has filled so many tokens: `0, 0, 0, 0` in one box is none."""

LONGEST_LOOP = 192
_LOOK_EVERY = 16


@attrs.frozen(kw_only=True, eq=False)
class Recording:
    """A batch of answers. B rows, T steps, n coordinates, K bins.

    tokens: [B, T] int64. log_probability: [B, T] float32, of each token over the whole vocabulary, before any
    constraint. coordinate: [B, T] int64, which of the n coordinates a token is, -1 for text. bins: [n] int64.
    logits: [n, K] float32 in bin order, before any constraint. log_sum: [n] float32, log-sum-exp over the whole
    vocabulary. looped, cut: [B] bool, answers that were ended for repeating themselves, or for a limit.
    """

    tokens: Array
    log_probability: Array
    coordinate: Array
    bins: Tensor
    logits: Tensor
    log_sum: Tensor
    looped: Array
    cut: Array


class Recorder(LogitsProcessor):
    """Sees the scores of every step, keeps what `Recording` holds, and leads the constraint, if there is one.

    Keeps the scores [B, V] of one step only: the token chosen from them is known in the next.
    """

    def __init__(
        self,
        coord_ids: Tensor,
        bin_of: Array,
        end_tokens: Array,
        *,
        rows: int,
        prompt: int,
        repeats: int,
        max_objects: int,
        read: Callable[[list[int]], list[int]],
        constraint: Constraint | None,
    ) -> None:
        """prompt: tokens of the padded prompt. repeats: how often a chunk of tokens may follow itself.

        max_objects: with which an answer without a constraint is stopped where a further one begins. read: the tokens
        of an answer that goes on -> how many coordinates each of its objects has.
        """
        self._ids = coord_ids
        self._bin_of = bin_of
        self._end_tokens = end_tokens
        self._prompt = prompt
        self._repeats = repeats
        self._max_objects = max_objects
        self._read = read
        self._constraint = constraint
        self._scores: Tensor | None = None
        self._tokens: list[Array] = []
        self._log_probability: list[Tensor] = []
        self._coordinates: list[tuple[Tensor, Tensor]] = []
        self._count = np.zeros(rows, dtype=np.int64)
        self._look_at = np.full(rows, 2 * max_objects + 1, dtype=np.int64)  # no object has fewer coordinates than two
        self.full = np.zeros(rows, dtype=bool)
        self._ended = np.zeros(rows, dtype=bool)
        self.looped = np.zeros(rows, dtype=bool)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._scores is not None:
            self._take(input_ids[:, -1])
        self._scores = scores
        return scores if self._constraint is None else self._constraint.allow(scores)

    def _take(self, chosen: Tensor) -> None:
        """Keep what there is to know of the tokens chosen from the last scores."""
        scores = self._scores
        assert scores is not None
        log_sum = scores.logsumexp(-1)
        self._log_probability.append(scores.gather(1, chosen[:, None])[:, 0] - log_sum)
        tokens = chosen.cpu().numpy()
        self._tokens.append(tokens)
        rows = np.flatnonzero(self._bin_of[tokens] >= 0)
        if len(rows):
            at = torch.from_numpy(rows).to(scores.device)
            self._coordinates.append((scores[at[:, None], self._ids], log_sum[at]))
            self._count[rows] += 1
        if self._constraint is not None:
            self._constraint.advance(tokens)
        else:
            for row in rows[self._count[rows] >= self._look_at[rows]].tolist():
                self._look(row)
        self._ended |= (tokens[:, None] == self._end_tokens).any(1)
        if len(self._tokens) % _LOOK_EVERY == 0:
            seen = np.stack(self._tokens[-self._repeats * LONGEST_LOOP :])
            self.looped |= loops(seen, self._repeats) & ~self._ended  # behind the end there is only padding
            if self._constraint is not None:
                self._constraint.closing = self.looped

    def _look(self, row: int) -> None:
        """Whether an answer has come to more objects than it may have; if not, when it can have come to them."""
        objects = self._read([int(step[row]) for step in self._tokens])
        left = self._max_objects - len(objects)
        self.full[row] = left <= 0 and self._count[row] > sum(objects[: self._max_objects])
        self._look_at[row] = self._count[row] + 2 * max(left, 0) + 1

    def finish(self, sequences: Tensor) -> Recording:
        """What was recorded. sequences: [B, prompt + T], what `generate` returned."""
        if len(self._tokens) < sequences.shape[1] - self._prompt:
            self._take(sequences[:, -1])
        steps = np.stack(self._tokens)  # [T, B], the order in which the coordinates were kept
        bins = self._bin_of[steps].astype(np.int64)
        coordinate = np.full(steps.shape, -1, dtype=np.int64)
        coordinate[bins >= 0] = np.arange((bins >= 0).sum())
        none = torch.empty(0, len(self._ids), device=self._ids.device)
        cut = self.full if self._constraint is None else self._constraint.cut.cpu().numpy()
        return Recording(
            tokens=steps.T,
            log_probability=torch.stack(self._log_probability, dim=1).cpu().numpy(),
            coordinate=coordinate.T,
            bins=torch.from_numpy(bins[bins >= 0]).to(self._ids.device),
            logits=torch.cat([none, *(logits for logits, _ in self._coordinates)]),
            log_sum=torch.cat([none[:, 0], *(log_sum for _, log_sum in self._coordinates)]),
            looped=self.looped,
            cut=cut,
        )


class Journal:
    """Keeps what `Recording` holds of rows that are written at different speeds, token by token."""

    def __init__(self, coord_ids: Tensor, bin_of: Array, rows: int, repeats: int, end_token: int) -> None:
        """repeats: as for `Recorder`. end_token: what stands behind an answer that is shorter than others."""
        self._ids = coord_ids
        self._bin_of = bin_of
        self._repeats = repeats
        self._end_token = end_token
        self._tokens: list[list[int]] = [[] for _ in range(rows)]
        self._places: list[tuple[Sequence[int], Sequence[int]]] = []
        self._log_probability: list[Tensor] = []
        self._coordinates: list[tuple[Tensor, Tensor]] = []
        self._coordinate_places: list[tuple[int, int]] = []

    def say(self, row: int, token: int) -> int:
        """Add a token to an answer; its place there. `write` then tells its scores."""
        self._tokens[row].append(token)
        return len(self._tokens[row]) - 1

    def write(
        self, rows: Sequence[int], steps: Sequence[int], tokens: Sequence[int], scores: Tensor, chosen: Tensor
    ) -> None:
        """The scores [R, V] from which tokens (on the device: `chosen`) were chosen for these places in answers."""
        log_sum = scores.logsumexp(-1)
        self._log_probability.append(scores.gather(1, chosen[:, None])[:, 0] - log_sum)
        self._places.append((rows, steps))
        numbers = [number for number, token in enumerate(tokens) if self._bin_of[token] >= 0]
        if numbers:
            at = torch.tensor(numbers, device=scores.device)
            self._coordinates.append((scores[at[:, None], self._ids], log_sum[at]))
            self._coordinate_places += [(rows[number], steps[number]) for number in numbers]

    def loops(self, row: int) -> bool:
        """Whether an answer has come to say the same over and over; looked at now and then."""
        tokens = self._tokens[row]
        if len(tokens) % _LOOK_EVERY:
            return False
        seen = np.array(tokens[-self._repeats * LONGEST_LOOP :])
        return bool(loops(seen[:, None], self._repeats)[0])

    def finish(self, *, looped: Array, cut: Array) -> Recording:
        """What was written."""
        shape = (len(self._tokens), max(map(len, self._tokens)))
        tokens = np.full(shape, self._end_token, dtype=np.int64)
        for row, written in enumerate(self._tokens):
            tokens[row, : len(written)] = written
        log_probability = np.zeros(shape, dtype=np.float32)
        for (rows, steps), values in zip(self._places, self._log_probability, strict=True):
            log_probability[rows, steps] = values.cpu().numpy()
        coordinate = np.full(shape, -1, dtype=np.int64)
        for number, place in enumerate(self._coordinate_places):
            coordinate[place] = number
        bins = np.array([self._bin_of[tokens[place]] for place in self._coordinate_places], dtype=np.int64)
        none = torch.empty(0, len(self._ids), device=self._ids.device)
        return Recording(
            tokens=tokens,
            log_probability=log_probability,
            coordinate=coordinate,
            bins=torch.from_numpy(bins).to(self._ids.device),
            logits=torch.cat([none, *(logits for logits, _ in self._coordinates)]),
            log_sum=torch.cat([none[:, 0], *(log_sum for _, log_sum in self._coordinates)]),
            looped=looped,
            cut=cut,
        )


class StopLoops(StoppingCriteria):
    """Stops the rows of a free generation that repeat themselves or come to too many objects."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __call__(self, input_ids: Tensor, scores: Any, **_kwargs: Any) -> Tensor:
        stop = self._recorder.looped | self._recorder.full
        return torch.from_numpy(stop).to(input_ids.device)


class StopRepeats(StoppingCriteria):
    """Stops the rows of a generation that is not recorded and repeats itself. looped: [B] bool, which ones."""

    def __init__(self, prompt: int, repeats: int, rows: int) -> None:
        self._prompt, self._repeats = prompt, repeats
        self.looped = np.zeros(rows, dtype=bool)

    def __call__(self, input_ids: Tensor, scores: Any, **_kwargs: Any) -> Tensor:
        written = input_ids[:, self._prompt :]
        if written.shape[1] and written.shape[1] % _LOOK_EVERY == 0:
            seen = written[:, -self._repeats * LONGEST_LOOP :].T.cpu().numpy()
            self.looped |= loops(seen, self._repeats)
        return torch.from_numpy(self.looped).to(input_ids.device)


def loops(tokens: Array, repeats: int) -> Array:
    """Which rows of `tokens` ([T, B]) end in a chunk of tokens repeated at least `repeats` times: [B] bool.

    The repetitions must fill `LOOP_TOKENS` tokens. Chunks of up to `LONGEST_LOOP` tokens are looked for.
    """
    steps, rows = tokens.shape
    found = np.zeros(rows, dtype=bool)
    if steps < LOOP_TOKENS:
        return found
    chunks = np.arange(1, min(LONGEST_LOOP, steps // repeats) + 1)
    # Most lengths are none in any row, as the last token shows.
    for chunk in chunks[(tokens[-1 - chunks] == tokens[-1]).any(1)].tolist():
        span = max(repeats * chunk, LOOP_TOKENS)
        tail = tokens[-span:]
        found |= (tail[chunk:] == tail[:-chunk]).all(0)
    return found
