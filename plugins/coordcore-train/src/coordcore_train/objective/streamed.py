"""A linear head's way through the chunks: coord columns as they are, the rest of the vocabulary as a log-sum-exp.

Shape legend: n positions of one chunk (a coord positions, then t text positions), K bins, V vocabulary rows, H hidden
size.

Terms that do not read `positions.logits` depend on the hidden states through three small tensors only: the coord
logits [n, K], the label's logit [t], and the log-sum-exp over all other columns [n]. Autograd runs over those, and the
gradients of the three with respect to the hidden states and the head are products that `streaming` and this module do.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch
from torch import Tensor

from coordcore.protocols import BoxPositions, CoordPositions, Origin, Scope, requested
from coordcore_train.objective.chunks import Batch, Chunk, Terms, chunks
from coordcore_train.objective.heads import LinearHead
from coordcore_train.objective.streaming import SavedGradients, VocabularyStream
from coordcore_train.objective.targets import origin_of


@attrs.frozen(kw_only=True)
class StreamedText:
    """The TextPositions of terms that do not read `logits`: the same properties, without the [n, V] tensor."""

    labels: Tensor
    coord_ids: Tensor
    label_logits: Tensor
    coord_logits: Tensor
    coord_lse: Tensor
    text_lse: Tensor
    lse: Tensor
    _origin: Origin | None

    @property
    def logits(self) -> Tensor:
        return requested(None, "logits")  # type: ignore[no-any-return]

    @property
    def origin(self) -> Origin:
        return requested(self._origin, "origin")  # type: ignore[no-any-return]


class Streamed:
    """The chunks of one batch through a linear head.

    coord_rows: [K, H] the head's coord rows in float32, offsets added; coord_bias: [K] or None.
    """

    def __init__(self, batch: Batch, head: LinearHead) -> None:
        self.batch, self.head = batch, head
        weight, bias, settings = head.module.weight.detach(), head.module.bias, batch.settings
        self.weight, self.bias = weight, None if bias is None else bias.detach()
        self.coord_rows = weight[settings.ids].to(batch.dtype)
        self.coord_bias = None if self.bias is None else self.bias[settings.ids].to(batch.dtype)
        if head.offset is not None and settings.offset_bins is not None:
            offsets = head.offset.rows.detach().to(batch.dtype)
            self.coord_rows.index_add_(0, settings.offset_bins, offsets)
        self.stream = VocabularyStream(
            weight=weight, bias=self.bias, excluded=settings.excluded, size=settings.chunk_columns
        )
        self.differentiates = any(batch.wanted)
        self.trains_hidden, self.trains_head = batch.wanted[0], any(batch.wanted[1:])
        self.trains_weight = any(batch.wanted[1 : 2 if bias is None else 3])
        # The gradient of the coord rows, and of their bias in the last column.
        self.by_coord = self.coord_rows.new_zeros(len(settings.ids), self.coord_rows.shape[1] + 1)
        self.saved: list[SavedGradients] = []

    def run(self, terms: Terms) -> None:
        """Terms of every scope but "box"."""
        targets, rows = self.batch.targets, self.batch.settings.chunk_rows
        scopes = {term.scope for _, term in terms}
        coord = len(targets["coord_index"]) if scopes & {"coord", "token"} else 0
        text = len(targets["text_index"]) if scopes & {"text", "token"} else 0
        if "token" in scopes or any("full_lse" in term.needs for _, term in terms):
            for chunk in chunks(coord, text, rows):
                self._chunk(terms, chunk, stream=True)
            return
        for chunk in chunks(coord, 0, rows):
            self._chunk([one for one in terms if one[1].scope == "coord"], chunk, stream=False)
        for chunk in chunks(0, text, rows):
            self._chunk([one for one in terms if one[1].scope == "text"], chunk, stream=True)

    def run_boxes(self, terms: Terms) -> None:
        """Terms of scope "box", on their own: a box's four positions must not be split over chunks."""
        targets = self.batch.targets
        for chunk in chunks(len(targets["boxes"]), 0, max(self.batch.settings.chunk_rows // 4, 1)):
            boxes = targets["boxes"][chunk.coord]
            index = targets["coord_index"][boxes.flatten()]
            hidden = self.batch.hidden[index].to(self.batch.dtype)
            logits = self._leaf(self._coord_logits(hidden))
            with torch.set_grad_enabled(self.differentiates):
                positions = BoxPositions(
                    logits=logits.view(*boxes.shape, -1),
                    bins=targets["bins"][boxes],
                    values=targets["values"][boxes],
                    origin=origin_of(targets, boxes[:, 0], None),
                )
                (by_logits,) = self.batch.charge(terms, {"box": positions}, {"box": chunk.coord}, [logits])
            if by_logits is not None:
                self._coord_gradients(by_logits, hidden)
                self.batch.add_to_hidden(index, by_logits @ self.coord_rows)

    def finish(self) -> None:
        """The gradients of the head's own tensors, once every chunk has been charged."""
        batch, offset = self.batch, self.head.offset
        if self.trains_weight:
            by_weight, by_bias = self.stream.weight_gradient(batch.hidden, self.saved, self.by_coord)
            batch.add(1, by_weight)
            if self.bias is not None:
                batch.add(2, by_bias)
        if offset is not None:
            assert batch.settings.offset_bins is not None
            batch.add(len(batch.wanted) - 1, self.by_coord[batch.settings.offset_bins, :-1])

    def _chunk(self, terms: Terms, chunk: Chunk, *, stream: bool) -> None:
        batch, targets = self.batch, self.batch.targets
        index = torch.cat([targets["coord_index"][chunk.coord], targets["text_index"][chunk.text]])
        coord = chunk.coord.stop - chunk.coord.start
        labels = targets["text_labels"][chunk.text]
        selected = batch.hidden[index]
        hidden = selected.to(batch.dtype)
        label_rows = self.weight[labels].to(batch.dtype)
        # The terms' view of the hidden states: leaves, whose gradients are carried on by hand below.
        on_coord = self._leaf(self._coord_logits(hidden[:coord]))
        on_text = self._leaf(self._coord_logits(hidden[coord:]))
        on_label = self._leaf(self._label_logits(hidden[coord:], label_rows, labels))
        rest, mean = hidden.new_empty(0), None
        if stream:
            rest, mean = self.stream.logsumexp(selected, mean=self.trains_hidden)
        self._leaf(rest)
        with torch.set_grad_enabled(self.differentiates):
            positions = self._positions(chunk, on_coord, on_text, on_label, rest if stream else None)
            by_coord, by_text, by_label, by_rest = batch.charge(
                terms, positions, chunk.rows, [on_coord, on_text, on_label, rest]
            )
        if by_coord is None and by_text is None and by_label is None and by_rest is None:
            return
        by_columns = torch.cat([_or_zeros(by_coord, on_coord), _or_zeros(by_text, on_text)])
        by_label, by_rest = _or_zeros(by_label, on_label), _or_zeros(by_rest, rest)
        if self.trains_head:
            self._coord_gradients(by_columns, hidden)
        if self.trains_weight and stream:
            self.saved.append(
                SavedGradients(index=index, lse=rest.detach(), by_lse=by_rest, labels=labels, by_label=by_label)
            )
        if self.trains_hidden:
            gradient = by_columns @ self.coord_rows
            if mean is not None:
                gradient += mean.mul_(by_rest[:, None])
            gradient[coord:] += label_rows.mul_(by_label[:, None])
            batch.add_to_hidden(index, gradient)

    def _positions(
        self, chunk: Chunk, on_coord: Tensor, on_text: Tensor, on_label: Tensor, rest: Tensor | None
    ) -> dict[Scope, Any]:
        """What terms see. rest: [n] log-sum-exp over all columns but the coord tokens', None where no term asks."""
        targets, ids = self.batch.targets, self.batch.settings.ids
        bins, values = targets["bins"][chunk.coord], targets["values"][chunk.coord]
        coord_origin = origin_of(targets, chunk.coord, None)
        if rest is None:
            return {"coord": CoordPositions(logits=on_coord, bins=bins, values=values, origin=coord_origin)}
        coord_lse = torch.cat([_logsumexp(on_coord), _logsumexp(on_text)])
        lse = torch.logaddexp(rest, coord_lse)
        coord, labels = len(bins), targets["text_labels"][chunk.text]
        text = StreamedText(
            labels=labels,
            coord_ids=ids,
            label_logits=on_label,
            coord_logits=on_text,
            coord_lse=coord_lse[coord:],
            text_lse=rest[coord:],
            lse=lse[coord:],
            origin=origin_of(targets, None, chunk.text),
        )
        if not len(ids):
            return {"text": text, "token": text}
        return {
            "coord": CoordPositions(
                logits=on_coord, bins=bins, values=values, full_lse=lse[:coord], origin=coord_origin
            ),
            "text": text,
            "token": StreamedText(
                labels=torch.cat([ids[bins], labels]),
                coord_ids=ids,
                label_logits=torch.cat([on_coord.gather(1, bins[:, None]).squeeze(1), on_label]),
                coord_logits=torch.cat([on_coord, on_text]),
                coord_lse=coord_lse,
                text_lse=rest,
                lse=lse,
                origin=origin_of(targets, chunk.coord, chunk.text),
            ),
        }

    def _leaf(self, tensor: Tensor) -> Tensor:
        return tensor.requires_grad_(self.differentiates)

    def _coord_logits(self, hidden: Tensor) -> Tensor:
        logits = hidden @ self.coord_rows.T
        return logits if self.coord_bias is None else logits + self.coord_bias

    def _label_logits(self, hidden: Tensor, label_rows: Tensor, labels: Tensor) -> Tensor:
        logits = (hidden * label_rows).sum(1)
        return logits if self.bias is None else logits + self.bias[labels]

    def _coord_gradients(self, by_columns: Tensor, hidden: Tensor) -> None:
        self.by_coord[:, :-1].addmm_(by_columns.T, hidden)
        self.by_coord[:, -1] += by_columns.sum(0)


def _logsumexp(logits: Tensor) -> Tensor:
    """[n] over the columns; minus infinity where there are none, which torch has no gradient for."""
    return logits.logsumexp(1) if logits.shape[1] else logits.new_full((len(logits),), -math.inf)


def _or_zeros(gradient: Tensor | None, tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if gradient is None else gradient
