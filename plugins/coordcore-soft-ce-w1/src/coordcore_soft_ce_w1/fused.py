"""Soft cross-entropy, W1 and what goes with them in few passes over the logits, values and gradient. Imports torch.

`functions` says what is computed and is the reference; this is the same, faster. For one row let z = logits /
temperature, p = softmax(z), t the target bin, q its Gaussian, F_p and F_q the cumulative sums over the K bins.

The window. To the working precision q is nothing outside W columns a..a+W-1 around t, so F_q is 0 left of them and 1
from the last of them on. q comes from a table [K, W] that `gaussian_soft_targets` has filled.

Values. log p_k = log p_r + z_k - z_r for any column r. With one whose p_r has not vanished (`_anchor`; mostly t itself)
this keeps its digits, however large the logits are, and needs no other logarithm:

    lse = z_r - log p_r    ce = -log p_r - (z_t - z_r)    soft_ce = -log p_r - sum_k q_k (z_k - z_r), k in the window

W1 = sum_k |F_p(k) - F_q(k)| has three stretches. Left of the window it is sum_{k<a} F_p(k); exchanging the order of
summation makes that sum_{j<a} (a - j) p_j. Right of it, likewise, sum_{j>=a+W} (j - a - W) p_j. Together: p times a
distance `far` that depends on j - a alone. Only in the window a cumulative sum is needed:

    gap_k = F_p(k) - F_q(k) = left + sum_{a<=i<=k} (p_i - q_i)    with left = sum_{j<a} p_j

Gradients with respect to z. A loss with dL/dp = slope has dL/dz_j = p_j (slope_j - sum_i p_i slope_i), hence

    lse: p_j    ce: p_j - [j = t]    soft_ce: p_j - q_j    W1: p_j (slope_j - mean)

With steps_j = sum of sign(gap_k) over the window's k >= j (sign(0) = 0, as autograd has it for abs), slope_j is
a - j + steps_a left of the window, steps_j in it, j - a - W right of it. The two outer branches are one:

    |j - centre| - offset    with centre = a + (W + steps_a) / 2, offset = (W - steps_a) / 2

So p, steps [n, W] and mean [n] are all the backward pass needs, whatever arrives from upstream. p is the one tensor of
the size of the logits, and the gradient is written over it.

Rows are worked on in blocks that stay in a CPU's cache; an accelerator gets large blocks, and nothing waits for it. On
a GPU with Triton the pass is two kernels (`kernel`), in float32 as here; float64 always goes this way.

Sources: CoordExp's distributional coordinate loss; W1 in one dimension as the area between the two cumulative
distribution functions, Vallender 1974. The rest is worked out above.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import attrs
import torch
from torch import Tensor

from coordcore_soft_ce_w1.functions import (
    check_bins,
    check_floating,
    check_normalisable,
    check_positive,
    check_shapes,
    compute_dtype,
    refuse_second_derivative,
)
from coordcore_soft_ce_w1.windows import Tables, block_rows, blocks, outside_of, tables_of, windows_of

LARGEST_KERNEL = 4096
"""Bins that `kernel` takes: a row of more would not stay in the registers."""


@attrs.frozen(kw_only=True, eq=False)
class SoftCEW1:
    """What `coord_soft_ce_w1` returns, one value per position, not reduced.

    soft_ce: [...] nats. w1: [...] normalised to 0..1, 1/(K-1) for a shift by one bin.
    """

    soft_ce: Tensor
    w1: Tensor


# A compiled model calls these two as they are: tables are kept from call to call, and torch.compile cannot follow how
# an attrs class is filled.
@torch.compiler.disable
def coord_soft_ce_w1(
    logits: Tensor, bins: Tensor, *, sigma: float, truncate: int | None = None, temperature: float = 1.0
) -> SoftCEW1:
    """Soft cross-entropy and normalised W1 of `softmax(logits / temperature)` against a Gaussian around each bin.

    logits: [..., K] floating, columns in bin order. bins: [...] integers, the target bin. sigma, truncate: see
    `gaussian_soft_targets`. The fused form of `soft_cross_entropy` and `wasserstein_1` against those targets; raises
    what they raise.

    Differentiable once: a backward pass with create_graph=True raises RuntimeError. The logits must not be changed in
    place before the backward pass; autograd raises where they were.
    """
    check_floating("logits", logits)
    check_shapes(logits, bins)
    rows = (logits.reshape(-1, logits.shape[-1]), bins.reshape(-1))
    losses = row_losses(*rows, sigma=sigma, truncate=truncate, temperature=temperature)
    return SoftCEW1(soft_ce=losses.soft_ce.view(bins.shape), w1=losses.w1.view(bins.shape))


@attrs.frozen(kw_only=True, eq=False)
class RowLosses:
    """What one pass over n rows gives, of softmax(logits / temperature): [n] each.

    With a gradient: ce = -log p_t, soft_ce, w1 (normalised) and lse. Without, and only where asked for: expected, the
    mean of p in bins, and rank, the number of bins at least as likely as t (itself included).
    """

    ce: Tensor
    soft_ce: Tensor
    w1: Tensor
    lse: Tensor
    expected: Tensor | None = None
    rank: Tensor | None = None


@torch.compiler.disable
def row_losses(
    logits: Tensor,
    bins: Tensor,
    *,
    sigma: float,
    truncate: int | None = None,
    temperature: float = 1.0,
    diagnostics: bool = False,
) -> RowLosses:
    """`coord_soft_ce_w1` and what a loss term reads beside it. logits: [n, K]. bins: [n]. The errors are the same."""
    check_floating("logits", logits)
    check_shapes(logits, bins)
    num_bins = logits.shape[-1]
    check_normalisable(num_bins)
    check_bins(bins, num_bins)
    check_positive("temperature", temperature)
    tables = tables_of(num_bins, sigma, truncate, compute_dtype(logits), logits.device)
    # In no_grad mode autograd still reports that the logits need a gradient.
    keep = torch.is_grad_enabled() and logits.requires_grad
    rows = _kernels() if _fits_kernels(logits) else _Rows
    columns = rows.apply(logits, bins, tables, temperature, keep, diagnostics)
    ce, soft_ce, w1, lse, expected, rank = (column.view(-1) for column in columns)
    if not diagnostics:
        return RowLosses(ce=ce, soft_ce=soft_ce, w1=w1, lse=lse)
    return RowLosses(ce=ce, soft_ce=soft_ce, w1=w1, lse=lse, expected=expected, rank=rank)


def _fits_kernels(logits: Tensor) -> bool:
    """Whether `kernel` takes these logits: on a GPU, where Triton is there, rows that fit a program's registers."""
    return (
        logits.is_cuda
        and compute_dtype(logits) == torch.float32
        and logits.shape[-1] <= LARGEST_KERNEL
        and find_spec("triton") is not None
    )


def _kernels() -> type[torch.autograd.Function]:
    from coordcore_soft_ce_w1.kernel import KernelRows

    return KernelRows


# --- the pass ---------------------------------------------------------------------------------------------------------


class _Rows(torch.autograd.Function):
    """The names are those of the module's docstring; `start` is a. What a row has one of is a column [n, 1] in here."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, bins: Tensor, tables: Tables, temperature: float, keep: bool, diagnostics: bool
    ) -> tuple[Tensor, ...]:
        (count, num_bins), width, new = logits.shape, tables.width, tables.columns.new_empty
        size = block_rows(count, num_bins, tables.columns)
        as_is = logits.dtype == tables.columns.dtype and logits.is_contiguous() and temperature == 1.0
        ce, soft_ce, w1, lse = (new(count, 1) for _ in range(4))
        expected, rank = (new(count if diagnostics else 0, 1) for _ in range(2))
        steps, mean = new(count if keep else 0, width), new(count if keep else 0, 1)
        probs, scratch = new(count if keep else size, num_bins), new(size, num_bins)
        tempered = None if as_is else new(size, num_bins)
        target = bins.long().clamp(0, num_bins - 1)
        start = tables.start.index_select(0, target)
        row_starts = torch.arange(0, size * num_bins, num_bins, device=logits.device)

        for rows in blocks(count, size):
            t, a = target[rows], start[rows]
            n = len(t)
            buffer, first = scratch[:n], row_starts[:n] + a
            z = logits[rows] if tempered is None else tempered[:n].copy_(logits[rows]).div_(temperature)
            p = torch.softmax(z, -1, out=probs[rows] if keep else probs[:n])
            z_target = z.gather(-1, t.unsqueeze(-1))
            if diagnostics:
                torch.sum(torch.mul(p, tables.columns, out=buffer), -1, True, out=expected[rows])
                torch.sum(torch.ge(z, z_target, out=buffer), -1, True, out=rank[rows])
            outside, left = outside_of(p, a, tables, buffer)
            z_window, p_window = windows_of(z, first, width), windows_of(p, first, width)
            q = tables.targets.index_select(0, t)
            anchor, minus_log = _anchor(z, p, z_target, p.gather(-1, t.unsqueeze(-1)))
            torch.add(anchor, minus_log, out=lse[rows])
            torch.sub(minus_log, z_target - anchor, out=ce[rows])
            torch.sub(minus_log, z_window.sub_(anchor).mul_(q).sum(-1, True), out=soft_ce[rows])
            gap = torch.sub(p_window, q, out=q).cumsum_(-1).add_(left)
            torch.add(outside, gap.abs().sum(-1, True), out=w1[rows])
            if keep:
                sign = gap.sign_()
                step = torch.sub(sign.sum(-1, True), sign.cumsum(-1), out=steps[rows]).add_(sign)
                torch.add(outside, p_window.mul_(step).sum(-1, True), out=mean[rows]).addcmul_(left, step[:, :1])

        w1.div_(num_bins - 1)
        # An accelerator does not refuse a bin out of range, it was clamped above: it must not look like a result.
        poison = torch.zeros_like(ce).masked_fill_((target != bins).unsqueeze(-1), math.nan)
        for part in (ce, soft_ce, w1):
            part.add_(poison)
        if keep:
            ctx.save_for_backward(logits, probs, steps, mean, target, start, poison)
            ctx.tables, ctx.temperature, ctx.overwritten = tables, temperature, False
        ctx.mark_non_differentiable(expected, rank)
        ctx.set_materialize_grads(False)
        return ce, soft_ce, w1, lse, expected, rank

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        logits, probs, steps, mean, target, start, poison = ctx.saved_tensors
        tables, (count, num_bins), width = ctx.tables, logits.shape, ctx.tables.width
        if ctx.overwritten:
            probs = torch.softmax(logits.to(probs.dtype) / ctx.temperature, -1)
        if logits.dtype == probs.dtype:
            # The gradient takes the place of p: one more tensor of that size costs more time than the arithmetic.
            # `.data`, for autograd would take a later backward pass for an error; that one computes p again.
            grad = probs = probs.data
            ctx.overwritten = True
        else:
            grad = torch.empty_like(probs, dtype=logits.dtype)

        # dL/dz_j = p_j (weight + by_w1 slope_j), less what the window and the target bin take off.
        by_ce, by_soft_ce, by_w1, by_lse = (None if item is None else item / ctx.temperature for item in grads[:4])
        weight = sum((item for item in (by_ce, by_soft_ce, by_lse) if item is not None), start=poison)
        if by_w1 is not None:
            by_w1 = by_w1 / (num_bins - 1)
            weight = weight - by_w1 * mean
            centre = start.unsqueeze(-1) + (width + steps[:, :1]) / 2
            shifted = weight - by_w1 * (width - steps[:, :1]) / 2
        size = block_rows(count, num_bins, probs)
        scratch = probs.new_empty(size, num_bins)
        row_starts = torch.arange(0, size * num_bins, num_bins, device=logits.device)
        # From the end, which the forward pass has left in the cache.
        for rows in reversed(blocks(count, size)):
            p, t, a = probs[rows], target[rows], start[rows]
            if by_w1 is None:
                factor = inside = weight[rows]
            else:
                inside = torch.mul(steps[rows], by_w1[rows]).add_(weight[rows])
                factor = torch.sub(tables.columns, centre[rows], out=scratch[: len(t)]).abs_()
                factor.mul_(by_w1[rows]).add_(shifted[rows])
            window = windows_of(p, row_starts[: len(t)] + a, width).mul_(inside)
            if by_soft_ce is not None:
                window.addcmul_(tables.targets.index_select(0, t), by_soft_ce[rows], value=-1)
            if by_ce is not None:
                window.scatter_add_(-1, (t - a).unsqueeze(-1), -by_ce[rows])
            torch.mul(p, factor, out=grad[rows]).scatter_(-1, a.unsqueeze(-1) + tables.offsets, window.to(grad.dtype))
        return grad, None, None, None, None, None


def _anchor(z: Tensor, p: Tensor, z_target: Tensor, p_target: Tensor) -> tuple[Tensor, Tensor]:
    """[n, 1] z_r and -log p_r of the target bin, or of the likeliest where the target's probability has vanished."""
    vanished = p_target < 1e-30
    # Only the CPU can tell, without waiting, that it need not look for the likeliest.
    if z.device.type != "cpu" or vanished.any():
        z_target = torch.where(vanished, z.amax(-1, True), z_target)
        p_target = torch.where(vanished, p.amax(-1, True), p_target)
    return z_target, -p_target.log()
