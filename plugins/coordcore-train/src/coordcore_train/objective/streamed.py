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
from coordcore_train.objective.streaming import SavedGradients, VocabularyStream, add_product, in_parts, product
from coordcore_train.objective.targets import origin_of

_ROWS_CPU = 256
_KEPT = 4
"""Where the gradient of the head's weight is so many times as large as all logits, or more, they are kept for it. On an
accelerator, which multiplies faster than it reads, they are computed again.
"""
_ELEMENTS_ACCELERATOR = 2**23  # hidden states of a chunk, of which there are some float32 copies


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
        return requested(None, "logits")

    @property
    def origin(self) -> Origin:
        return requested(self._origin, "origin")


class Streamed:
    """The chunks of one batch through a linear head.

    coord_rows: [K, H] the head's coord rows in float32, offsets added; coord_bias: [K] or None. coord_parts: the rows
    `in_parts`, where the hidden states are bfloat16 on an accelerator, which multiplies that 16 times as fast as
    float32; else None.
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
        in_halves = batch.hidden.is_cuda and batch.hidden.dtype == torch.bfloat16 and len(self.coord_rows) > 0
        self.coord_parts = in_parts(self.coord_rows) if in_halves else None
        self.chunk_rows = settings.chunk_rows or _rows(batch.hidden)
        self.differentiates = any(batch.wanted)
        self.trains_hidden, self.trains_head = batch.wanted[0], any(batch.wanted[1:])
        self.trains_weight = any(batch.wanted[1 : 2 if bias is None else 3])
        # The gradients of the coord rows and of their bias.
        self.by_coord = torch.zeros_like(self.coord_rows)
        self.by_coord_bias = self.coord_rows.new_zeros(len(self.coord_rows))
        self.saved: list[SavedGradients] = []
        positions = len(batch.targets["coord_index"]) + len(batch.targets["text_index"])
        self.keeps = self.trains_weight and weight.device.type == "cpu" and _KEPT * positions <= weight.shape[1]

    def run(self, terms: Terms) -> None:
        """Terms of every scope but "box"."""
        targets, rows = self.batch.targets, self.chunk_rows
        scopes = {term.scope for _, term in terms}
        coord = len(targets["coord_index"]) if scopes & {"coord", "token"} else 0
        text = len(targets["text_index"]) if scopes & {"text", "token"} else 0
        if "token" in scopes or any("full_lse" in term.needs for _, term in terms):
            for chunk in chunks(coord, text, rows):
                self._chunk(terms, chunk, stream=True)
            return
        for chunk in chunks(coord, 0, rows):
            self._chunk([item for item in terms if item[1].scope == "coord"], chunk, stream=False)
        for chunk in chunks(0, text, rows):
            self._chunk([item for item in terms if item[1].scope == "text"], chunk, stream=True)

    def run_boxes(self, terms: Terms) -> None:
        """Terms of scope "box", on their own: a box's four positions must not be split over chunks."""
        targets = self.batch.targets
        for chunk in chunks(len(targets["boxes"]), 0, max(self.chunk_rows // 4, 1)):
            boxes = targets["boxes"][chunk.coord]
            index = targets["coord_index"][boxes.flatten()]
            hidden = self._selected(index)
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
                self.batch.add_to_hidden(index, self._by_hidden(by_logits, None))

    def finish(self) -> None:
        """The gradients of the head's own tensors, once every chunk has been charged."""
        batch, offset = self.batch, self.head.offset
        if self.trains_weight:
            by_weight, by_bias = self.stream.weight_gradient(
                batch.hidden, self.saved, self.by_coord, self.by_coord_bias
            )
            batch.add(1, by_weight)
            if self.bias is not None:
                batch.add(2, by_bias)
        if offset is not None:
            assert batch.settings.offset_bins is not None
            batch.add(len(batch.wanted) - 1, self.by_coord[batch.settings.offset_bins])

    def _chunk(self, terms: Terms, chunk: Chunk, *, stream: bool) -> None:
        batch, targets = self.batch, self.batch.targets
        index = torch.cat([targets["coord_index"][chunk.coord], targets["text_index"][chunk.text]])
        coord = chunk.coord.stop - chunk.coord.start
        labels = targets["text_labels"][chunk.text]
        selected, hidden = batch.hidden[index], self._selected(index)
        label_rows = self.weight[labels]
        if self.coord_parts is None:
            label_rows = label_rows.to(batch.dtype)
        # The terms' view of the hidden states: leaves, whose gradients are carried on by hand below.
        on_coord = self._leaf(self._coord_logits(hidden[:coord]))
        on_text = self._leaf(self._coord_logits(hidden[coord:]))
        on_label = self._leaf(self._label_logits(hidden[coord:], label_rows, labels))
        rest, mean = hidden.new_empty(0), None
        kept: list[tuple[Tensor, Tensor]] = []
        if stream:
            rest, mean = self.stream.logsumexp(selected, mean=self.trains_hidden, kept=kept if self.keeps else None)
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
                SavedGradients(
                    index=index, lse=rest.detach(), by_lse=by_rest, labels=labels, by_label=by_label, blocks=kept
                )
            )
        if self.trains_hidden:
            gradient = self._by_hidden(by_columns, None if mean is None else mean.mul_(by_rest[:, None]))
            gradient[coord:] += label_rows * by_label[:, None]
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

    def _selected(self, index: Tensor) -> Tensor:
        """[n, H] hidden states, in the dtype of the products with the coord rows."""
        selected = self.batch.hidden[index]
        return selected if self.coord_parts is not None else selected.to(self.batch.dtype)

    def _coord_logits(self, hidden: Tensor) -> Tensor:
        if self.coord_parts is None:
            logits = hidden @ self.coord_rows.T
        else:
            logits = product(hidden, self.coord_parts.T).view(len(hidden), 3, len(self.coord_rows)).sum(1)
        return logits if self.coord_bias is None else logits + self.coord_bias

    def _label_logits(self, hidden: Tensor, label_rows: Tensor, labels: Tensor) -> Tensor:
        logits = (hidden.to(self.batch.dtype) * label_rows).sum(1)
        return logits if self.bias is None else logits + self.bias[labels]

    def _by_hidden(self, by_columns: Tensor, others: Tensor | None) -> Tensor:
        """[n, H] `by_columns @ coord_rows`, and `others` [n, H] added, whose memory may be used."""
        if self.coord_parts is None:
            gradient = by_columns @ self.coord_rows
            return gradient if others is None else gradient.add_(others)
        if others is None:
            others = by_columns.new_zeros(len(by_columns), self.coord_rows.shape[1])
        add_product(others, by_columns, self.coord_parts[: len(self.coord_rows)])
        return others

    def _coord_gradients(self, by_columns: Tensor, hidden: Tensor) -> None:
        if self.coord_parts is None:
            self.by_coord.addmm_(by_columns.T, hidden)
        else:
            # Two parts: what is left out is far below what the hidden states themselves are rounded by.
            high = by_columns.bfloat16()
            for part in (high, (by_columns - high).bfloat16()):
                add_product(self.by_coord, part.T, hidden)
        if self.bias is not None:
            self.by_coord_bias += by_columns.sum(0)


def _rows(hidden: Tensor) -> int:
    """Positions of a chunk: on an accelerator many, for what is done once a chunk takes longer to launch than to do."""
    if hidden.device.type == "cpu":
        return _ROWS_CPU
    return min(max(_ELEMENTS_ACCELERATOR // hidden.shape[1], 512), 4096)


def _logsumexp(logits: Tensor) -> Tensor:
    """[n] over the columns; minus infinity where there are none, which torch has no gradient for."""
    return logits.logsumexp(1) if logits.shape[1] else logits.new_full((len(logits),), -math.inf)


def _or_zeros(gradient: Tensor | None, tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if gradient is None else gradient
