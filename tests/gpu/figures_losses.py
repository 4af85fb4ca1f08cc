"""Soft CE and W1 of 65,536 positions: time beside the reference, cross-entropy, and reading and writing the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from reference import BINS, SIGMA
from setting import Setting, variants
from torch import Tensor

from coordcore_soft_ce_w1 import coord_soft_ce_w1, fused, gaussian_soft_targets, soft_cross_entropy, wasserstein_1

OURS = "ours"
TORCH = "ours, in torch operations"
IN_CHUNKS = "ours, 4,096 positions at a time"
COPY = "the logits read and written once"


def soft_ce_w1(setting: Setting) -> dict[str, Any]:
    """Forward and backward, in float32 (as the objective calls it) and bfloat16."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        found[name] = _measured(setting, dtype)
    return {"rows": found}


def _measured(setting: Setting, dtype: torch.dtype) -> dict[str, Any]:
    count = setting.size(65_536, 64)
    logits = setting.randn(count, BINS, dtype=dtype).requires_grad_()
    bins = torch.randint(BINS, (count,), generator=setting.generator(1), device=setting.device)
    target = torch.empty_like(logits, requires_grad=False)

    def copied() -> None:
        target.copy_(logits.detach())

    def both_ways(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            logits.grad = None
            loss(logits, bins).backward()

        return run

    def ours(logits: Tensor, bins: Tensor) -> Tensor:
        both = coord_soft_ce_w1(logits, bins, sigma=SIGMA)
        return (both.soft_ce + both.w1).sum()

    def in_torch(logits: Tensor, bins: Tensor) -> Tensor:
        kept, fused._fits_kernels = fused._fits_kernels, lambda logits: False
        try:
            return ours(logits, bins)
        finally:
            fused._fits_kernels = kept

    def in_chunks() -> None:
        # As the objective does it: forward and backward of a chunk, and then the next one.
        for rows, chosen in zip(logits.detach().split(4096), bins.split(4096), strict=True):
            leaf = rows.requires_grad_()
            torch.autograd.grad(ours(leaf, chosen), leaf)

    def reference(logits: Tensor, bins: Tensor) -> Tensor:
        targets = gaussian_soft_targets(bins, num_bins=BINS, sigma=SIGMA)
        return (soft_cross_entropy(logits, targets) + wasserstein_1(logits.float().softmax(-1), targets)).sum()

    def cross_entropy(logits: Tensor, bins: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits, bins, reduction="sum")

    def forget() -> None:
        logits.grad = None

    runs = [
        (COPY, copied),
        (OURS, both_ways(ours)),
        (IN_CHUNKS, in_chunks),
        (TORCH, both_ways(in_torch)),
        ("the reference functions", both_ways(reference)),
        ("F.cross_entropy", both_ways(cross_entropy)),
    ]
    size = logits.numel() * logits.element_size()
    return {
        "title": f"soft CE + W1, forward and backward, {count:,} positions, K = {BINS:,}, "
        f"{str(dtype).removeprefix('torch.')}",
        "variants": variants(runs, setting, repeats=15, ours=(COPY, OURS, IN_CHUNKS, TORCH), before=forget),
        "kernel": fused._fits_kernels(logits),
        "floor": {"flops": 0, "bytes": 2 * size},
        "dtype": "float32",
    }
