"""The corners of a box that probably follow: by heads, and by what a pass said behind a wrong guess. Needs torch.

What a pass says behind a wrong coordinate is nearly what it would have said behind the right one, where it is of the
other axis or not the first: how exactly the corners before were written matters little. There it is the better guess,
and before a box begins any coordinate is guessed, so that the pass that says its first corner says its second as well.
A model that has learned to say the corners of a box together (`[train] parallel_boxes`) says all of them so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from coordcore.coords import CoordVocab
from coordcore.errors import InputError
from coordcore_detection.decode.automaton import X1, X2, Y1, Y2
from coordcore_train.hidden import stand_in

Array = np.ndarray[Any, np.dtype[Any]]

ORDERS = {"xy": (X1, Y1, X2, Y2), "yx": (Y1, X1, Y2, X2)}
"""The slots of a box in the order in which it is written."""


class Proposer(Protocol):
    """Proposes the corners of the box that is being written.

    layers: of which of the model's hidden states, as `output_hidden_states` numbers them. digest: tells two apart.
    """

    @property
    def layers(self) -> Sequence[int]: ...

    @property
    def digest(self) -> str: ...

    def __call__(self, hidden: Tensor) -> Tensor:
        """[n, 3] int64: the bins of the second, third and fourth coordinate of a box, as it is written.

        hidden: [n, L, H], the states of `layers` at n places from which a coordinate of a box was predicted. Proposals
        for that one and those before it are not looked at.
        """
        ...


class Together:
    """In the place of heads, for a model that has learned to say the corners of a box together."""

    digest = ""


class Corners:
    """Of each row of a batch the corners that are guessed to be written next. Without a proposer, none."""

    def __init__(
        self,
        vocab: CoordVocab,
        coord_ids: Tensor,
        bin_of: Array,
        rows: int,
        proposer: Proposer | Together | None,
        tolerance: int,
    ) -> None:
        """coord_ids: [K], on the model's device. bin_of: [V]. tolerance: bins that a guess may be off."""
        self._guesses = proposer is not None
        self._together = isinstance(proposer, Together)
        self._heads = None if isinstance(proposer, Together) else proposer
        self._tolerance = tolerance
        self._ids = coord_ids
        self._tokens = np.array(vocab.ids)
        self._bin_of = bin_of
        self._order = ORDERS[vocab.format.order]
        self._corner = {slot: number for number, slot in enumerate(self._order)}
        self._any = dict.fromkeys(self._order if self._guesses else (), stand_in(vocab))
        self._last = np.full(rows, -1, dtype=np.int64)  # the corner that was written last, -1 for what is none
        self._next = [self._any] * rows

    @property
    def sees_states(self) -> bool:
        """Whether it asks for a model's hidden states."""
        return self._heads is not None

    @property
    def exact(self) -> bool:
        """Whether only the same token may stand for a guess."""
        return not self._tolerance

    def next_of(self, row: int) -> Mapping[int, int]:
        """Slot -> the token that is guessed to stand there next."""
        return self._next[row]

    def fits(self, row: int, guess: int, token: int) -> bool:
        """Whether a guess may stand where a row goes on with `token`: the same, or a corner within the tolerance. The
        first of a box, which no head has seen, only where the model has learned to go on behind any."""
        if guess == token or not self._tolerance or self._last[row] < (0 if self._together else 1):
            return guess == token
        bins = int(self._bin_of[guess]), int(self._bin_of[token])
        return min(bins) >= 0 and abs(bins[0] - bins[1]) <= self._tolerance

    def written(self, row: int, slot: int, token: int) -> None:
        """A row goes on with a token, in this slot."""
        if self._guesses:
            self._last[row] = self._corner.get(slot, -1) if self._bin_of[token] >= 0 else -1

    def look(self, rows: Array, places: Array, ends: Array, drafts: Mapping[int, Sequence[int]], output: Any) -> None:
        """See what follows in rows that go on behind a pass.

        places, ends: where in the pass their last tokens were predicted. drafts: by place, the guesses that were made.
        output: of the pass.
        """
        if not self._guesses:
            return
        if self._heads is not None and output.hidden_states is None:
            raise InputError("--parallel: this model does not tell its hidden states; leave it out")
        for row in rows.tolist():
            self._next[row] = self._any
        inside = np.flatnonzero((self._last[rows] >= 0) & (self._last[rows] < len(self._order) - 1))
        if not len(inside):
            return
        rows, places, ends = rows[inside], places[inside], ends[inside]
        for row, tokens in zip(rows.tolist(), self._proposed(places, ends, output), strict=True):
            corner = int(self._last[row])
            self._next[row] = dict(zip(self._order[corner + 1 :], tokens[corner:], strict=True))
        behind: list[tuple[int, int, int, int]] = []
        for row, place, end in zip(rows.tolist(), places.tolist(), ends.tolist(), strict=True):
            draft, corner = drafts[place], int(self._last[row])
            if end < len(draft) and self._bin_of[draft[end]] >= 0:
                left = self._order[corner + 1 :]
                steps = [step for step in range(end + 1, len(draft)) if self._bin_of[draft[step]] >= 0]
                known = left[:1] if corner == 0 and not self._together else left
                behind += [(row, slot, place, step) for slot, step in zip(known, steps, strict=False)]
        if behind:
            where = self._index([place for _, _, place, _ in behind]), self._index([step for *_, step in behind])
            said = self._tokens[output.logits[where][:, self._ids].argmax(-1).cpu().numpy()]
            for (row, slot, _, _), token in zip(behind, said.tolist(), strict=True):
                self._next[row][slot] = token

    def _proposed(self, places: Array, ends: Array, output: Any) -> list[list[int]]:
        """[n][3] the tokens of the second, third and fourth corner of boxes that are being written."""
        if self._heads is None:
            return [[*self._any.values()][1:]] * len(places)
        at = self._index(places), self._index(ends)
        hidden = torch.stack([output.hidden_states[layer][at] for layer in self._heads.layers], dim=1)
        proposed: list[list[int]] = self._tokens[self._heads(hidden).cpu().numpy()].tolist()
        return proposed

    def _index(self, numbers: Any) -> Tensor:
        return torch.as_tensor(numbers, dtype=torch.int64, device=self._ids.device)
