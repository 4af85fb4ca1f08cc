"""One block of a running softmax in one Triton kernel: what `VocabularyStream.logsumexp` does between its products.

A row of the block lies in the registers of one program: its logits are read once, and the softmax weights are written
over them, in the dtype of the product that follows. Imports triton.

The anchor of a row, which its weights are relative to, need not be the largest logit. It lies LOW below that when it is
set, and is set anew only for a logit HIGH above it, so that what was summed before is rescaled seldom, and in the rows
that need it alone. A weight is then at most exp(HIGH), which float16 holds, and one of a logit 23 below the largest is
not lost in float16.
"""

# mypy: disable-error-code="no-untyped-def, import-untyped"
# What triton compiles has types of its own, which it does not declare.

from __future__ import annotations

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

LOW = tl.constexpr(7.0)
HIGH = tl.constexpr(11.0)


@triton.jit
def _accumulate(
    logits, weights, weights_stride, anchor, total, mean, columns, width,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr, MEAN: tl.constexpr,  # noqa: N803 - constants of the program
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    here = column < columns
    z = tl.load(logits + row * columns + column, mask=here, other=-float("inf"))
    before = tl.load(anchor + row)
    largest = tl.max(z, 0)
    now = tl.where(largest > before + HIGH, largest - LOW, before)
    e = tl.exp(z - now)
    rescale = tl.exp(before - now)
    tl.store(total + row, tl.load(total + row) * rescale + tl.sum(e, 0))
    tl.store(anchor + row, now)
    if MEAN:
        # Every logit of the row has been read: their largest is known.
        tl.store(weights + row * weights_stride + column, e.to(weights.dtype.element_ty), mask=here)
        if rescale != 1.0:
            place = mean + row * width + tl.arange(0, WIDTH)
            inside = tl.arange(0, WIDTH) < width
            tl.store(place, tl.load(place, mask=inside) * rescale, mask=inside)


def accumulate(logits: Tensor, anchor: Tensor, total: Tensor, mean: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Add a block to the running sums, in place, and return its softmax weights relative to the new anchor.

    logits: [n, c] float32, contiguous; overwritten. anchor, total: [n] float32, the sum of exp(logit - anchor) so far.
    mean: [n, H] float32, contiguous, the weighted sum of vocabulary rows so far, rescaled here where the anchor moves;
    None where nobody asks. Returns [n, c] of `dtype`, in the memory of the logits; without meaning if `mean` is None.
    """
    count, columns = logits.shape
    weights = logits.view(dtype)[:, :columns]
    width = 1 if mean is None else mean.shape[1]
    block = triton.next_power_of_2(columns)
    if count:
        # Triton launches on the current device, which need not be the tensors'.
        with torch.cuda.device(logits.device) if logits.is_cuda else nullcontext():
            _accumulate[(count,)](
                logits, weights, weights.stride(0), anchor, total, total if mean is None else mean, columns, width,
                BLOCK=block, WIDTH=triton.next_power_of_2(width), MEAN=mean is not None,
                num_warps=min(max(block // 512, 1), 32),
            )  # fmt: skip
    return weights
