"""The offset table and what it does to embeddings and logits. Imports torch.

Shape legend: K coord tokens, H hidden size, V vocabulary rows, `...` any batch shape.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CoordOffsetAdapter(nn.Module):
    """Offsets that are added to the K coord rows of an embedding matrix and an output head.

    embed_offset: [K, H] parameter, zero at the start, in bin order.
    head_offset: [K, H] parameter of its own, or None when `embed_offset` serves the head too (`tie_head=True`).
    coord_ids: [K] int64 vocabulary ids in bin order. Not persistent: sharded loading knows parameters only, and ids
        belong to the tokenizer (`coordcore_coord_offset.save_offset_record` writes them beside a checkpoint).

    The module has no `forward`: `hooks` calls the two methods from the embedding and the head.
    """

    coord_ids: Tensor
    _sorted_ids: Tensor
    _sorted_bins: Tensor

    def __init__(
        self, coord_ids: Tensor, hidden_size: int, *, tie_head: bool = True, dtype: torch.dtype = torch.float32
    ) -> None:
        """Build zero offsets on the device of `coord_ids`, a [K] int64 tensor of distinct ids."""
        super().__init__()
        sorted_ids, sorted_bins = coord_ids.sort()
        self.register_buffer("coord_ids", coord_ids, persistent=False)
        self.register_buffer("_sorted_ids", sorted_ids, persistent=False)
        self.register_buffer("_sorted_bins", sorted_bins, persistent=False)

        def zeros() -> nn.Parameter:
            return nn.Parameter(torch.zeros(len(coord_ids), hidden_size, dtype=dtype, device=coord_ids.device))

        self.embed_offset = zeros()
        self.head_offset: nn.Parameter | None = None if tie_head else zeros()

    @property
    def head_rows(self) -> nn.Parameter:
        """[K, H] the parameter that acts on the head: `head_offset`, or `embed_offset` when there is none."""
        return self.embed_offset if self.head_offset is None else self.head_offset

    def add_to_embeddings(self, embeddings: Tensor, input_ids: Tensor) -> Tensor:
        """Return `embeddings` [..., H] of `input_ids` [...] with the offsets added at coord tokens.

        Costs one tensor of the size of `embeddings`, in float32. The sum is rounded once to the dtype of `embeddings`,
        as it is when the offsets are merged: both give the same bits. The gradient of the offsets is summed in float32.

        Every token gets a row, coord token or not. Picking the coord tokens out first would be less arithmetic, but an
        accelerator would have to tell the host how many there are, and wait, in every micro-batch. It also keeps the
        offsets in the graph of a batch without a coord token, which every rank needs.
        """
        ids = input_ids.long().contiguous()
        nearest = torch.searchsorted(self._sorted_ids, ids).clamp_(max=len(self._sorted_ids) - 1)
        is_plain = self._sorted_ids[nearest] != ids
        dtype = torch.promote_types(torch.promote_types(embeddings.dtype, self.embed_offset.dtype), torch.float32)
        rows = F.embedding(self._sorted_bins[nearest], self.embed_offset.to(dtype))
        # x + -0.0 has the bits of x for every x; 0.0 would turn -0.0 around. In place on the fresh rows, not on
        # `embeddings`, which `enable_input_require_grads` turns into a leaf.
        return rows.masked_fill_(is_plain[..., None], -0.0).add_(embeddings).to(embeddings.dtype)

    def add_to_logits(self, logits: Tensor, hidden: Tensor) -> Tensor:
        """Add `hidden @ offsets.T` in place to the coord columns of `logits` [..., V]; `hidden` is [..., H].

        Costs [..., K] in both directions: `logits` are overwritten, which is safe because the gradient of a linear
        layer does not read its output, and `index_add_` hands the incoming gradient on as it is. (An addition to a
        slice of `logits` would copy the whole [..., V] gradient.)
        """
        rows = self.head_rows
        dtype = torch.promote_types(hidden.dtype, rows.dtype)
        delta = hidden.to(dtype) @ rows.to(dtype).T
        return logits.index_add_(-1, self.coord_ids, delta.to(logits.dtype))
