"""What the fused path looks up instead of computing, and the blocks it works in. Imports torch.

Shape legend: n rows of a block, K bins, W columns of a window. `fused` says what they are for.
"""

from __future__ import annotations

import math
from functools import lru_cache

import attrs
import torch
from torch import Tensor

from coordcore_soft_ce_w1.functions import gaussian_soft_targets

CPU_BLOCK_BYTES = 2 * 2**20  # for each thread
ACCELERATOR_BLOCK_BYTES = 64 * 2**20


@attrs.frozen(kw_only=True, eq=False)
class Tables:
    """What depends on the target bin alone.

    start: [K] int64, a, the first column of each bin's window. targets: [K, W], q there. offsets: [W] int64, 0..W-1.
    columns: [K], 0..K-1. far, left: [K, K], overlapping views of 2K-1 numbers each; row K-1-a says how far each column
    is outside the window at a, and 1 where it lies left of it.
    """

    start: Tensor
    targets: Tensor
    offsets: Tensor
    columns: Tensor
    far: Tensor
    left: Tensor

    @property
    def width(self) -> int:
        return self.targets.shape[-1]


@lru_cache(maxsize=8)
def tables_of(num_bins: int, sigma: float, truncate: int | None, dtype: torch.dtype, device: torch.device) -> Tables:
    # Kept for later calls, so it must not become an inference tensor or land on somebody's default device.
    with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
        bins = torch.arange(num_bins)
        exact = gaussian_soft_targets(bins, num_bins=num_bins, sigma=sigma, truncate=truncate, dtype=torch.float64)
        # Farther out a target is below eps / 128 of its peak: no digit of a result shows it.
        reach = min(num_bins - 1.0, sigma * math.sqrt(-2.0 * math.log(torch.finfo(dtype).eps / 128)))
        reach = math.ceil(reach if truncate is None else min(reach, truncate))
        width = min(2 * reach + 1, num_bins)
        start = (bins - reach).clamp(0, num_bins - width)
        offsets = torch.arange(width)
        past = torch.arange(1 - num_bins, num_bins)  # column minus the window's first one
        far = (-past).clamp_min(0) + (past - width).clamp_min(0)
        return Tables(
            start=start.to(device),
            targets=exact.gather(-1, start.unsqueeze(-1) + offsets).to(device, dtype),
            offsets=offsets.to(device),
            columns=bins.to(device, dtype),
            far=far.to(device, dtype).unfold(0, num_bins, 1),
            left=(past < 0).to(device, dtype).unfold(0, num_bins, 1),
        )


def outside_of(p: Tensor, start: Tensor, tables: Tables, buffer: Tensor) -> tuple[Tensor, Tensor]:
    """[n, 1] what W1 gets from outside the windows, [n, 1] the mass left of them. buffer: [n, K], written over."""
    if tables.width == p.shape[-1]:
        return p.new_zeros(len(p), 1), p.new_zeros(len(p), 1)
    row = p.shape[-1] - 1 - start
    outside = torch.index_select(tables.far, 0, row, out=buffer).mul_(p).sum(-1, True)
    return outside, torch.index_select(tables.left, 0, row, out=buffer).mul_(p).sum(-1, True)


def windows_of(rows: Tensor, first: Tensor, width: int) -> Tensor:
    """[n, width] of a contiguous [n, K], from the element on that `first` [n] counts from the tensor's beginning.

    What `gather` does with an index [n, width], but copied by the row, which is several times faster on a CPU.
    """
    return rows.view(-1).unfold(0, width, 1).index_select(0, first)


def block_rows(count: int, num_bins: int, like: Tensor) -> int:
    """How many rows [K] make a block, at least one."""
    on_cpu = like.device.type == "cpu"
    block = CPU_BLOCK_BYTES * torch.get_num_threads() if on_cpu else ACCELERATOR_BLOCK_BYTES
    return max(1, min(count, block // (num_bins * like.element_size())))


def blocks(count: int, size: int) -> list[slice]:
    """All rows, `size` at a time."""
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]
