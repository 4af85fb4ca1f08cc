"""The pass of `fused` over rows in two Triton kernels, one for the values and one for the gradient. Imports triton.

`fused` derives the formulas, and its torch operations are the reference of this module; the names are the same. A row
lies in the registers of one program, so that the values cost one reading of the logits, and the gradient one reading
and one writing. Between the two are kept four numbers for each row, and no tensor of the size of the logits.

What differs: the anchor is the largest logit m, which is at hand. With s = sum_k exp(z_k - m),

    lse = m + log s    ce = log s + (m - z_t)    soft_ce = log s + sum_k q_k (m - z_k), k in the window

where nothing cancels, for every term is at least 0.

The gradient goes over the rows from the last to the first: the last ones are still in the L2 cache.
"""

# mypy: disable-error-code="no-untyped-def, import-untyped"
# What triton compiles has types of its own, which it does not declare.

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from coordcore_soft_ce_w1.functions import refuse_second_derivative
from coordcore_soft_ce_w1.windows import Tables


@triton.jit
def _target(bins, row, BINS: tl.constexpr):  # noqa: N803 - a constant of the program
    """The target bin of a row, clamped, and whether it had to be."""
    given = tl.load(bins + row).to(tl.int64)
    clamped = tl.minimum(tl.maximum(given, 0), BINS - 1)
    return clamped.to(tl.int32), given != clamped


@triton.jit
def _window(z, a, targets, t, scale, m, by_s, left, WIDTH: tl.constexpr, WINDOW: tl.constexpr):  # noqa: N803
    """In the window: offsets, which of them are, the logits, p, q and the gap of the cumulative distributions."""
    offset = tl.arange(0, WINDOW)
    inside = offset < WIDTH
    z_window = tl.load(z + a + offset, mask=inside, other=0.0).to(tl.float32) * scale
    p = tl.where(inside, tl.exp(z_window - m) * by_s, 0.0)
    q = tl.load(targets + t * WIDTH + offset, mask=inside, other=0.0)
    gap = tl.where(inside, tl.cumsum(p - q, 0) + left, 0.0)
    return offset, inside, z_window, p, q, gap


@triton.jit
def _far(past, WIDTH: tl.constexpr):  # noqa: N803
    """Columns from the window, 0 in it and just behind it. past: float32, columns from the window's start."""
    return tl.maximum(tl.abs(past - WIDTH / 2) - WIDTH / 2, 0.0)


@triton.jit
def _values(
    logits, bins, starts, targets, scale, stride,
    ce, soft_ce, w1, lse, expected, rank, kept, count,
    BINS: tl.constexpr, WIDTH: tl.constexpr, WINDOW: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr,  # noqa: N803
    KEEP: tl.constexpr, DIAGNOSTICS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    t, outside_range = _target(bins, row, BINS)
    a = tl.load(starts + t).to(tl.int32)
    column = tl.arange(0, BLOCK)
    here = logits + tl.multiple_of(row * stride, ALIGNED)
    z = tl.load(here + column, mask=column < BINS, other=-float("inf")).to(tl.float32) * scale
    m = tl.max(z, 0)
    e = tl.exp(z - m)
    s = tl.sum(e, 0)
    by_s = 1.0 / s
    past = (column - a).to(tl.float32)
    outside = tl.sum(e * _far(past, WIDTH), 0) * by_s
    left = tl.sum(tl.where(past < 0.0, e, 0.0), 0) * by_s
    _, inside, z_window, _, q, gap = _window(here, a, targets, t, scale, m, by_s, left, WIDTH, WINDOW)
    z_target = tl.load(here + t).to(tl.float32) * scale
    log_s = tl.log(s)
    poison = tl.where(outside_range, float("nan"), 0.0)
    tl.store(ce + row, log_s + (m - z_target) + poison)
    tl.store(soft_ce + row, log_s + tl.sum(tl.where(inside, q * (m - z_window), 0.0), 0) + poison)
    tl.store(w1 + row, (outside + tl.sum(tl.abs(gap), 0)) / (BINS - 1) + poison)
    tl.store(lse + row, m + log_s)
    if KEEP:
        tl.store(kept + row, m)
        tl.store(kept + count + row, by_s)
        tl.store(kept + 2 * count + row, left)
        tl.store(kept + 3 * count + row, outside)
    if DIAGNOSTICS:
        tl.store(expected + row, tl.sum(e * column.to(tl.float32), 0) * by_s)
        tl.store(rank + row, tl.sum(tl.where((z >= z_target) & (column < BINS), 1.0, 0.0), 0))


@triton.jit
def _gradient(
    logits, bins, starts, targets, scale, stride, kept, count,
    by_ce, by_soft_ce, by_w1, by_lse, ce_stride, soft_ce_stride, w1_stride, lse_stride, grad,
    BINS: tl.constexpr, WIDTH: tl.constexpr, WINDOW: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
    ALIGNED: tl.constexpr, GRAD_ALIGNED: tl.constexpr,  # noqa: N803
    CE: tl.constexpr, SOFT_CE: tl.constexpr, W1: tl.constexpr, LSE: tl.constexpr,  # noqa: N803
):  # fmt: skip
    row = count - 1 - tl.program_id(0).to(tl.int64)
    t, outside_range = _target(bins, row, BINS)
    a = tl.load(starts + t).to(tl.int32)
    m, by_s = tl.load(kept + row), tl.load(kept + count + row)
    left, outside = tl.load(kept + 2 * count + row), tl.load(kept + 3 * count + row)
    column = tl.arange(0, BLOCK)
    here = logits + tl.multiple_of(row * stride, ALIGNED)
    z = tl.load(here + column, mask=column < BINS, other=-float("inf")).to(tl.float32) * scale
    p = tl.exp(z - m) * by_s
    offset, inside, _, p_window, q, gap = _window(here, a, targets, t, scale, m, by_s, left, WIDTH, WINDOW)

    weight = tl.where(outside_range, float("nan"), 0.0)
    if CE:
        on_target = tl.load(by_ce + row * ce_stride) * scale
        weight += on_target
    if SOFT_CE:
        on_targets = tl.load(by_soft_ce + row * soft_ce_stride) * scale
        weight += on_targets
    if LSE:
        weight += tl.load(by_lse + row * lse_stride) * scale
    if W1:
        on_w1 = tl.load(by_w1 + row * w1_stride) * scale / (BINS - 1)
        sign = tl.where(gap > 0, 1.0, tl.where(gap < 0, -1.0, 0.0))
        ahead = tl.sum(sign, 0)
        steps = tl.where(inside, ahead - tl.cumsum(sign, 0) + sign, 0.0)
        mean = outside + tl.sum(p_window * steps, 0) + left * ahead
        past = (column - a).to(tl.float32)
        slope = _far(past, WIDTH) + tl.where(past < 0.0, ahead, 0.0)
        by_column = p * (weight + on_w1 * (slope - mean))
        by_window = p_window * (weight + on_w1 * (steps - mean))
    else:
        by_column = p * weight
        by_window = p_window * weight
    if SOFT_CE:
        by_window -= on_targets * q
    if CE:
        by_window -= tl.where(a + offset == t, on_target, 0.0)
    there = grad + tl.multiple_of(row * BINS, GRAD_ALIGNED)
    tl.store(there + column, by_column.to(grad.dtype.element_ty), mask=column < BINS)
    # The whole row first, in wide stores, and only then the window over it.
    tl.debug_barrier()
    tl.store(there + a + offset, by_window.to(grad.dtype.element_ty), mask=inside)


class KernelRows(torch.autograd.Function):
    """`fused._Rows` in two kernels: the same arguments, the same results, [n] each. logits: [n, K], no float64."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, bins: Tensor, tables: Tables, temperature: float, keep: bool, diagnostics: bool
    ) -> tuple[Tensor, ...]:
        if logits.stride(-1) != 1:
            logits = logits.contiguous()
        bins = bins.contiguous()
        count, num_bins = logits.shape
        ce, soft_ce, w1, lse = (tables.columns.new_empty(count) for _ in range(4))
        expected, rank = (tables.columns.new_empty(count if diagnostics else 0) for _ in range(2))
        kept = tables.columns.new_empty(4, count if keep else 0)
        if count:
            with _on(logits):
                _values[(count,)](
                    logits, bins, tables.start, tables.targets, 1 / temperature, logits.stride(0),
                    ce, soft_ce, w1, lse, expected, rank, kept, count,
                    ALIGNED=_aligned(logits.stride(0)), KEEP=keep, DIAGNOSTICS=diagnostics, **_sizes(num_bins, tables),
                )  # fmt: skip
        if keep:
            ctx.save_for_backward(logits, bins, kept)
            ctx.tables, ctx.temperature = tables, temperature
        ctx.mark_non_differentiable(expected, rank)
        ctx.set_materialize_grads(False)
        return ce, soft_ce, w1, lse, expected, rank

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        logits, bins, kept = ctx.saved_tensors
        tables, (count, num_bins) = ctx.tables, logits.shape
        grad = torch.empty(count, num_bins, dtype=logits.dtype, device=logits.device)
        # Where no gradient arrives there is something to point to all the same; nobody reads it.
        upstream = [kept[0] if item is None else item for item in grads[:4]]
        if count:
            with _on(logits):
                _gradient[(count,)](
                    logits, bins, tables.start, tables.targets, 1 / ctx.temperature, logits.stride(0), kept, count,
                    *upstream, *(item.stride(0) for item in upstream), grad,
                    ALIGNED=_aligned(logits.stride(0)), GRAD_ALIGNED=_aligned(num_bins),
                    CE=grads[0] is not None, SOFT_CE=grads[1] is not None, W1=grads[2] is not None,
                    LSE=grads[3] is not None, **_sizes(num_bins, tables),
                )  # fmt: skip
        return grad, None, None, None, None, None


def _on(tensor: Tensor) -> Any:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _aligned(stride: int) -> int:
    """What rows of this many elements begin at multiples of, for loads of up to 8 elements at once."""
    return math.gcd(stride, 8)


def _sizes(num_bins: int, tables: Tables) -> dict[str, int]:
    """The constants of a program."""
    block = triton.next_power_of_2(num_bins)
    return {
        "BINS": num_bins,
        "WIDTH": tables.width,
        "WINDOW": triton.next_power_of_2(tables.width),
        "BLOCK": block,
        # As few as hold the row: what crosses warps waits.
        "num_warps": max(block // 1024, 1),
    }
