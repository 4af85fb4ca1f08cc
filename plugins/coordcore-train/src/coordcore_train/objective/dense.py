"""Any head's way through the chunks: [n, V] logits of few positions at a time, and autograd back to the hidden states.

For heads that can only be called, and for terms that read `positions.logits`. Slower than `streamed`, because a short
chunk makes poor use of each pass over the weight; the memory stays bounded all the same.

Shape legend: n positions of one chunk, V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from coordcore.errors import RunError
from coordcore.protocols import BoxPositions, CoordPositions, Scope, TextPositions
from coordcore_train.objective.chunks import Batch, Chunk, Terms
from coordcore_train.objective.heads import CallableHead
from coordcore_train.objective.targets import origin_of

_ELEMENTS_CPU = 2**22  # of one [n, V] tensor; a chunk makes a handful of them
_ELEMENTS_ACCELERATOR = 2**25
_FIRST = 8  # positions of the first chunk, which tells the number of columns


class Dense:
    """The chunks of one batch through a head that is called whole."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.elements = _ELEMENTS_CPU if batch.hidden.device.type == "cpu" else _ELEMENTS_ACCELERATOR
        self.columns: int | None = None

    def run(self, terms: Terms) -> None:
        """Terms of every scope but "box"."""
        targets = self.batch.targets
        scopes = {term.scope for _, term in terms}
        coord = len(targets["coord_index"]) if scopes & {"coord", "token"} else 0
        text = len(targets["text_index"]) if scopes & {"text", "token"} else 0
        first = 0
        while first < coord + text:
            end = min(first + self._rows(), coord + text)
            chunk = Chunk.between(first, end, coord)
            index = torch.cat([targets["coord_index"][chunk.coord], targets["text_index"][chunk.text]])
            self._chunk(terms, index, chunk.rows, partial(self._positions, chunk))
            first = end

    def run_boxes(self, terms: Terms) -> None:
        """Terms of scope "box", on their own: a box's four positions must not be split over chunks."""
        targets, first = self.batch.targets, 0
        while first < len(targets["boxes"]):
            boxes = targets["boxes"][first : first + max(self._rows() // 4, 1)]
            index, rows = targets["coord_index"][boxes.flatten()], slice(first, first + len(boxes))
            self._chunk(terms, index, {"box": rows}, partial(self._boxes, boxes))
            first += len(boxes)

    def _rows(self) -> int:
        return _FIRST if self.columns is None else max(self.elements // self.columns, 1)

    def _chunk(
        self, terms: Terms, index: Tensor, rows: Mapping[Scope, slice], view: Callable[[Tensor], dict[Scope, Any]]
    ) -> None:
        """Charge the positions `index` [n], which `view` presents to the terms from their logits [n, V].

        rows: which of all positions of a scope these are.
        """
        batch = self.batch
        hidden = batch.hidden[index].requires_grad_(batch.wanted[0])
        tensors = [hidden, *batch.head.parameters]
        places = [place for place, wanted in enumerate(batch.wanted) if wanted]
        with torch.set_grad_enabled(bool(places)):
            with torch.autocast(hidden.device.type, enabled=batch.autocast and isinstance(batch.head, CallableHead)):
                logits = batch.head.full(hidden)
            if self.columns is None:
                self.columns = logits.shape[1]
                _check_leaves(logits, tensors)
            gradients = batch.charge(terms, view(logits), rows, [tensors[place] for place in places])
        for place, gradient in zip(places, gradients, strict=True):
            if place == 0:
                batch.add_to_hidden(index, gradient)
            else:
                # Autograd may hand out one tensor for two inputs, or one that is expanded from fewer numbers.
                batch.add(place, None if gradient is None else gradient.clone())

    def _positions(self, chunk: Chunk, logits: Tensor) -> dict[Scope, Any]:
        targets, ids = self.batch.targets, self.batch.settings.ids
        bins, labels = targets["bins"][chunk.coord], targets["text_labels"][chunk.text]
        on_coord, on_text = logits[: len(bins)], logits[len(bins) :]
        positions: dict[Scope, Any] = {
            "text": TextPositions(
                logits=on_text, labels=labels, coord_ids=ids, origin=origin_of(targets, None, chunk.text)
            )
        }
        if len(ids):
            labels = torch.cat([ids[bins], labels])
            positions["coord"] = CoordPositions(
                logits=on_coord[:, ids],
                bins=bins,
                values=targets["values"][chunk.coord],
                full_lse=on_coord.logsumexp(-1),
                origin=origin_of(targets, chunk.coord, None),
            )
        positions["token"] = TextPositions(
            logits=logits, labels=labels, coord_ids=ids, origin=origin_of(targets, chunk.coord, chunk.text)
        )
        return positions

    def _boxes(self, boxes: Tensor, logits: Tensor) -> dict[Scope, Any]:
        targets = self.batch.targets
        logits = logits[:, self.batch.settings.ids].view(*boxes.shape, -1)
        return {
            "box": BoxPositions(
                logits=logits,
                bins=targets["bins"][boxes],
                values=targets["values"][boxes],
                origin=origin_of(targets, boxes[:, 0], None),
            )
        }


def _check_leaves(logits: Tensor, known: list[Tensor]) -> None:
    """Raise RunError when the graph of `logits` ends in a trainable tensor that would get no gradient."""
    # A tensor that was computed (a surgery's rows) hands its gradient on by itself.
    ids, seen = {id(tensor) for tensor in known}, {tensor.grad_fn for tensor in known}
    waiting = [logits.grad_fn]
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in ids:
            raise RunError(
                f"the output head reads a trainable tensor {tuple(leaf.shape)} that the objective was not told of; "
                "name it in CallableHead(trained=...)"
            )
        waiting.extend(following for following, _ in node.next_functions)
