"""Soft cross-entropy and W1 over the coord bins: the fused function, its parts one by one, plain cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from measure import Case, Reach, Setting, Variant
from torch import Tensor

from coordcore_soft_ce_w1 import coord_soft_ce_w1, gaussian_soft_targets, soft_cross_entropy, wasserstein_1

SIGMA = 2.0
BINS = 1000
CALLS = 5
"""A call takes milliseconds: so many count as one, or a single interruption decides a round."""


def variants(setting: Setting, threads: int | None = None) -> Mapping[str, Variant]:
    """N = 4096 positions, K = 1000 bins, forward and backward of the mean. threads: all of them when None."""
    generator = torch.Generator().manual_seed(0)
    positions = setting.size(4096, 64)
    logits = torch.randn(positions, BINS, generator=generator).to(setting.device, setting.dtype).requires_grad_()
    bins = torch.randint(BINS, (positions,), generator=generator).to(setting.device)

    def fused() -> Tensor:
        both = coord_soft_ce_w1(logits, bins, sigma=SIGMA)
        return (both.soft_ce + both.w1).mean()

    def composed() -> Tensor:
        targets = gaussian_soft_targets(bins, num_bins=BINS, sigma=SIGMA)
        soft_ce = soft_cross_entropy(logits, targets)
        return (soft_ce + wasserstein_1(logits.float().softmax(-1), targets)).mean()

    def cross_entropy() -> Tensor:
        return torch.nn.functional.cross_entropy(logits, bins)

    def both_ways(loss: Callable[[], Tensor]) -> Variant:
        def run() -> Tensor:
            before = torch.get_num_threads()
            torch.set_num_threads(threads or before)
            for _ in range(CALLS):
                logits.grad = None
                value = loss()
                value.backward()
            torch.set_num_threads(before)
            return value.detach()

        return run

    return {
        "ours": both_ways(fused),
        "the reference functions": both_ways(composed),
        "F.cross_entropy": both_ways(cross_entropy),
    }


REACHES = [
    Reach(what="time", against="the reference functions", at_most=1 / 8, text="<= 0.125x the time"),
    Reach(what="time", against="F.cross_entropy", at_most=1.2, text="<= 1.2x the time"),
]
CASES = [
    Case(
        name="soft-ce-w1",
        title="soft CE + W1, forward and backward, N = 4096, K = 1000",
        build=variants,
        rounds=21,
        reaches=REACHES,
    ),
    Case(
        name="soft-ce-w1-one-thread",
        title="soft CE + W1, the same on one thread",
        build=partial(variants, threads=1),
        rounds=21,
        devices=["cpu"],
        memory=False,
        reaches=REACHES,
    ),
]
