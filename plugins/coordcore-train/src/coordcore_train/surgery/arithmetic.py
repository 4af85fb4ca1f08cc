"""Adding rows to embeddings, logits and weights: what is summed in which dtype, and rounded when. Imports torch.

Shape legend: K added rows, H hidden size, V vocabulary rows, `...` any batch shape.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from coordcore.protocols import AddedRows


def in_order(ids: Tensor) -> tuple[Tensor, Tensor]:
    """`ids` [K] in ascending order, and the place of each in `ids`."""
    with torch.inference_mode(False):  # kept for training, whatever this call is for
        return ids.sort()


def add_to_embeddings(
    embeddings: Tensor, input_ids: Tensor, added: AddedRows, order: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """`embeddings` [..., H] of the tokens `input_ids` [...], with the rows added where a token is one of their ids.

    order: `in_order(added.ids)`, for who has it already.

    Costs one tensor of the size of `embeddings`, in float32. The sum is rounded once to the dtype of `embeddings`, as
    it is when the rows are merged: both give the same bits, but for an embedding that scales, where the sums are
    rounded at other places. The gradient of the rows is summed in float32.

    Every token gets a row, its own or one of zeros. Picking the tokens that have one out first would be less
    arithmetic, but an accelerator would have to tell the host how many there are, and wait, in every micro-batch. It
    also keeps the rows in the graph of a batch without such a token, which every rank needs.
    """
    ids = input_ids.long().contiguous()
    sorted_ids, places = in_order(added.ids) if order is None else order
    nearest = torch.searchsorted(sorted_ids, ids).clamp_(max=len(sorted_ids) - 1)
    is_plain = sorted_ids[nearest] != ids
    dtype = torch.promote_types(torch.promote_types(embeddings.dtype, added.rows.dtype), torch.float32)
    rows = F.embedding(places[nearest], added.rows.to(dtype))
    # x + -0.0 has the bits of x for every x; 0.0 would turn -0.0 around. In place on the fresh rows, not on
    # `embeddings`, which `enable_input_require_grads` turns into a leaf.
    return rows.masked_fill_(is_plain[..., None], -0.0).add_(embeddings).to(embeddings.dtype)


def add_to_logits(logits: Tensor, hidden: Tensor, added: AddedRows) -> Tensor:
    """Add `hidden @ rows.T` in place to the columns `ids` of `logits` [..., V]; `hidden` is [..., H].

    Costs [..., K] in both directions: `logits` are overwritten, which is safe because the gradient of a linear layer
    does not read its output, and `index_add_` hands the incoming gradient on as it is. (An addition to a slice of
    `logits` would copy the whole [..., V] gradient.)
    """
    dtype = torch.promote_types(hidden.dtype, added.rows.dtype)
    delta = hidden.to(dtype) @ added.rows.to(dtype).T
    return logits.index_add_(-1, added.ids, delta.to(logits.dtype))


@torch.no_grad()
def add_to_weight(weight: Tensor, added: AddedRows) -> None:
    """Add the rows to `weight` [V, H] in place: each sum in the wider dtype, rounded once to that of the weight."""
    rows = weight[added.ids] + added.rows
    weight.index_copy_(0, added.ids, rows.to(weight.dtype))


def is_same(first: AddedRows | None, second: AddedRows | None) -> bool:
    """Whether both add the same values to the same ids, so that one matrix can hold them for embedding and head."""
    if first is None or second is None:
        return first is second
    return torch.equal(first.ids, second.ids) and torch.equal(first.rows, second.rows)
