"""Log-sum-exp of `hidden @ weight.T`, block by block of vocabulary rows, with its gradient from the same pass.

Shape legend: n positions, V vocabulary rows, c rows of one block, H hidden size.

The gradient of `lse = log sum_v exp(h . w_v)` with respect to h is the mean of the rows w_v under the softmax. Both are
running sums over v, so they need no [n, V] tensor: a larger maximum found later only rescales what was summed before
(Milakov & Gimelshein 2018, "Online normalizer calculation for softmax"). This is attention with the vocabulary rows
as keys and as values. A block of the weight is read from memory once and multiplied twice while it is in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec

import attrs
import torch
from torch import Tensor

_HALF = (torch.bfloat16, torch.float16)
_CPU_BLOCK = 4096
_ACCELERATOR_BLOCK = (
    3 * 2**23
)  # logits of a block on an accelerator: few and large kernels, for each has to be launched
_LARGEST_KERNEL = 2**15  # columns
_CONVERTED = 2**22  # elements of a block that has to be converted to float32 first


def accumulating(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype sums are made in: float64 where that is an input, else float32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right`, [a, b] x [b, c], accumulated and returned in float32, or float64 where that is an input."""
    if left.is_cuda and left.dtype == right.dtype and left.dtype in _HALF:
        return torch.mm(left, right, out_dtype=torch.float32)
    dtype = accumulating(left.dtype, right.dtype)
    return left.to(dtype) @ right.to(dtype)


@attrs.frozen(kw_only=True)
class Block:
    """Rows `first` to `first + c` of the head.

    weight: [c, H]. bias: [c] or None. excluded: [e] int64, the rows among them that are left out, counted from `first`.
    source: [e] int64, where each of them stands in the ids that were given.
    """

    first: int
    weight: Tensor
    bias: Tensor | None
    excluded: Tensor
    source: Tensor

    @property
    def rows(self) -> slice:
        """Where the block stands in the vocabulary."""
        return slice(self.first, self.first + len(self.weight))

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, c] float32, minus infinity where a row is left out. hidden: [n, H]."""
        logits = product(hidden, self.weight.T)
        if self.bias is not None:
            logits += self.bias
        return logits.index_fill_(1, self.excluded, -math.inf) if len(self.excluded) else logits


class Excluded:
    """The vocabulary ids a stream leaves out, sorted into its blocks. Looked up on the CPU, copied to a device once."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids, self._source = torch.tensor(ids, dtype=torch.int64).sort()
        self._copies: dict[tuple[int, int, torch.device], tuple[Tensor, Tensor]] = {}

    def within(self, first: int, end: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """`Block.excluded` and `Block.source` of the rows `first` to `end`."""
        key = (first, end, device)
        if key not in self._copies:
            low, high = torch.searchsorted(self._ids, torch.tensor([first, end])).tolist()
            self._copies[key] = (self._ids[low:high] - first).to(device), self._source[low:high].to(device)
        return self._copies[key]


@attrs.frozen(kw_only=True)
class SavedGradients:
    """What a chunk of n positions leaves to do for the gradient of the head's own weight.

    index: [n] int64, its positions in the hidden states. lse, by_lse: [n] the log-sum-exp and the loss's derivative by
    it. labels, by_label: [t] ids and the derivatives by their logits, for the last t positions. blocks: what
    `logsumexp` kept of every block, in their order, nothing where that would have been too much.
    """

    index: Tensor
    lse: Tensor
    by_lse: Tensor
    labels: Tensor
    by_label: Tensor
    blocks: list[tuple[Tensor, Tensor]] = attrs.field(factory=list)

    def by_logits(self, block: Block, hidden: Tensor) -> Tensor:
        """[n, c] the loss's derivative by the logits of the next block through the log-sum-exp. hidden: [n, H]."""
        # The lowest number for a minus infinity, as in `logsumexp`: every row is left out there.
        lse = self.lse.clamp(min=torch.finfo(self.lse.dtype).min)[:, None]
        if self.blocks:
            weights, anchor = self.blocks.pop(0)  # let go of: the gradient grows meanwhile
            return weights.mul_((anchor - lse).exp_().mul_(self.by_lse[:, None]))
        return block.logits(hidden).sub_(lse).exp_().mul_(self.by_lse[:, None])


@attrs.frozen(kw_only=True)
class VocabularyStream:
    """A head as a sequence of blocks. weight: [V, H], bias: [V] or None. size: rows of a block; by device when None."""

    weight: Tensor
    bias: Tensor | None = None
    excluded: Excluded = attrs.field(factory=lambda: Excluded(()))
    size: int | None = None

    def blocks(self, hidden_dtype: torch.dtype, positions: int) -> Iterator[Block]:
        """The blocks, their weight converted once where `product` would have to do it beside `hidden_dtype`.

        positions: how many hidden states at most are multiplied with one at a time.
        """
        weight = self.weight
        whole = (weight.is_cuda and weight.dtype == hidden_dtype) or weight.dtype not in _HALF
        dtype = weight.dtype if whole else accumulating(hidden_dtype)
        size = self.size or (max(_ACCELERATOR_BLOCK // max(positions, 512), 1) if weight.is_cuda else _CPU_BLOCK)
        if not whole and self.size is None:
            size = max(256, min(size, _CONVERTED // weight.shape[1]))
        for first in range(0, len(weight), size):
            rows = weight[first : first + size]
            excluded, source = self.excluded.within(first, first + len(rows), weight.device)
            bias = None if self.bias is None else self.bias[first : first + size]
            yield Block(first=first, weight=rows.to(dtype), bias=bias, excluded=excluded, source=source)

    def logsumexp(
        self, hidden: Tensor, *, mean: bool, kept: list[tuple[Tensor, Tensor]] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """[n] log-sum-exp over the rows not left out and, if `mean`, its gradient [n, H] with respect to `hidden`.

        hidden: [n, H]. Both in float32, or float64 where that is an input. kept: takes of every block exp(logits - a)
        [n, c], and a [n, 1]: together [n, V], which spares `weight_gradient` a product. On the CPU only.
        """
        dtype = accumulating(hidden.dtype, self.weight.dtype)
        # The lowest number, not minus infinity: exp(-inf - -inf) of a block without any row would be NaN.
        anchor = hidden.new_full((len(hidden), 1), torch.finfo(dtype).min, dtype=dtype)
        total = torch.zeros_like(anchor)
        rows = hidden.new_zeros(hidden.shape, dtype=dtype) if mean else None
        for block in self.blocks(hidden.dtype, len(hidden)):
            logits = block.logits(hidden)
            if _fits_kernel(logits):
                weights = _kernel()(logits, anchor, total, rows, _operand(block.weight))
            else:
                higher = torch.maximum(anchor, logits.amax(1, keepdim=True))
                weights = logits.sub_(higher).exp_()
                rescale = (anchor - higher).exp_()
                total.mul_(rescale).add_(weights.sum(1, keepdim=True))
                if rows is not None:
                    rows.mul_(rescale)
                anchor = higher
            if rows is not None:
                add_product(rows, weights, block.weight)
            if kept is not None:
                kept.append((weights, anchor))
            del logits, weights  # before the next block's are made
        lse = (anchor + total.log()).squeeze(1)
        # Where every row is left out nothing was summed: a gradient of 0, not 0 / 0. NaN stays NaN.
        return lse, None if rows is None else rows.div_(total.clamp_(min=torch.finfo(dtype).tiny))

    def weight_gradient(
        self, hidden: Tensor, saved: Sequence[SavedGradients], excluded_rows: Tensor, excluded_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The gradients of weight [V, H] and bias [V], in the weight's dtype; in float32 for float16, which would lose
        small ones before the loss scale reaches them.

        hidden: [N, H]. excluded_rows, excluded_bias: [K, H] and [K], the gradients of the rows left out, in the order
        their ids were given. Computes the logits a second time, unless they were kept, in the [n, V] that a stream is
        there to avoid. Blocks are the outer loop, so that each row is summed up in float32 and written once.
        """
        dtype = accumulating(hidden.dtype, self.weight.dtype)
        kept = dtype if self.weight.dtype == torch.float16 else self.weight.dtype
        weight_grad = torch.empty_like(self.weight, dtype=kept)
        bias_grad = self.weight.new_empty(len(self.weight), dtype=kept)
        for block in self.blocks(hidden.dtype, max((len(chunk.index) for chunk in saved), default=1)):
            rows = hidden.new_zeros(block.weight.shape, dtype=dtype)
            column = hidden.new_zeros(len(block.weight), dtype=dtype)
            for chunk in saved:
                selected = hidden[chunk.index]
                by_logit = chunk.by_logits(block, selected)
                place = chunk.labels - block.first
                inside = (place >= 0) & (place < len(block.weight))
                by_label = torch.where(inside, chunk.by_label, 0)
                place = place.clamp_(0, len(block.weight) - 1)
                by_logit[len(chunk.index) - len(place) :].scatter_add_(1, place[:, None], by_label[:, None])
                add_product(rows, by_logit.T, selected)
                column += by_logit.sum(0)
            rows.index_add_(0, block.excluded, excluded_rows[block.source])
            column.index_add_(0, block.excluded, excluded_bias[block.source])
            weight_grad[block.rows] = rows
            bias_grad[block.rows] = column
        return weight_grad, bias_grad


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """`total += left @ right` in place. total: [a, c] float32 or float64; left: [a, b], right: [b, c] in any dtypes."""
    if not (right.is_cuda and right.dtype in _HALF):
        total.addmm_(left.to(total.dtype), right.to(total.dtype))
    elif right.dtype == torch.float16 and left.dtype != torch.float16:
        # float16 has nothing below 6e-8: the largest number is brought to about 4096.
        scale = torch.exp2(torch.floor(12 - left.abs().amax().clamp(min=1e-30).log2()))
        total += product((left * scale).half(), right).div_(scale)
    else:
        torch.addmm(total, left.to(right.dtype), right, out_dtype=torch.float32, out=total)


def in_parts(tensor: Tensor) -> Tensor:
    """[3 * a, b] bfloat16 whose three thirds add up to `tensor` [a, b] float32: three times 8 bits are its 24."""
    parts = []
    for _ in range(3):
        parts.append(tensor.bfloat16())
        tensor = tensor - parts[-1]
    return torch.cat(parts)


# --- the kernel -------------------------------------------------------------------------------------------------------


def _operand(weight: Tensor) -> torch.dtype:
    """The dtype that `add_product` multiplies the softmax weights in."""
    return weight.dtype if weight.is_cuda and weight.dtype in _HALF else torch.float32


def _fits_kernel(logits: Tensor) -> bool:
    """Whether `softmax_kernel` takes these logits: on a GPU, in float32, rows that fit a program's registers."""
    return logits.is_cuda and logits.dtype == torch.float32 and logits.shape[1] <= _LARGEST_KERNEL and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _kernel() -> Callable[..., Tensor]:
    from coordcore_train.objective.softmax_kernel import accumulate

    return accumulate
