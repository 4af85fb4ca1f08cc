"""From the distribution over the bins to one real-valued coordinate, and what else is read from it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import attrs
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, np.dtype[np.float64]]

Coordinates = Literal["argmax", "expectation"]

_CPU_ROWS = 64
"""Distributions read at a time: what is computed of so many stays in a core's cache."""

NEAR_BINS = 20
"""The score `near` is the probability within so many bins of the written one."""


@attrs.frozen(kw_only=True, eq=False)
class Coords:
    """What the distributions say of n coordinates, [n] float64 each. K bins, p = softmax over the K coord logits.

    value: the decoded coordinate in bins, real-valued. spread: sqrt(sum_k p_k (k - mean)^2), in bins.
    entropy: -sum_k p_k log p_k, in nats. log_mass: log of the probability that the token is a coord token at all
    (LSE over the coord logits - LSE over the vocabulary). log_near: log of the sum of p_k within NEAR_BINS of the
    written bin.
    """

    value: Array
    spread: Array
    entropy: Array
    log_mass: Array
    log_near: Array


def read_coords(
    logits: Tensor, log_sum: Tensor, bins: Tensor, *, coordinates: Coordinates, window: int | None = None
) -> Coords:
    """Read n distributions.

    logits: [n, K], of any float type, on any device. log_sum: [n], log-sum-exp over the whole vocabulary.
    bins: [n] int64, what was written.
    coordinates: "argmax" is the written bin, the most likely one that the constraint allowed. "expectation" is
    sum_k p_k k; with a `window`, over the bins at most that far from the written one, their probabilities made to sum
    to 1. A window keeps a second, far away mode from pulling the coordinate into the space between.
    """
    import torch

    rows = _CPU_ROWS if logits.device.type == "cpu" else max(len(logits), 1)
    blocks = zip(torch.split(logits, rows), torch.split(log_sum, rows), torch.split(bins, rows), strict=True)
    found = zip(*(_read(*block, coordinates, window) for block in blocks), strict=True)
    value, spread, entropy, log_mass, log_near = (torch.cat(column).cpu().numpy() for column in found)
    return Coords(value=value, spread=spread, entropy=entropy, log_mass=log_mass, log_near=log_near)


def _read(
    logits: Tensor, log_sum: Tensor, bins: Tensor, coordinates: Coordinates, window: int | None
) -> tuple[Tensor, ...]:
    """The columns of `Coords` of a block of distributions."""
    import torch

    logits = logits.double()
    log_all = logits.logsumexp(-1)
    log_p = logits - log_all[:, None]
    p = log_p.exp()
    at = torch.arange(logits.shape[-1], dtype=torch.float64, device=logits.device)
    mean = p @ at
    if coordinates == "argmax":
        value = bins.double()
    elif window is None:
        value = mean
    else:
        near, log_near = _around(log_p, bins, window)
        value = (log_near.softmax(-1) * near).sum(-1)
    log_near = _around(log_p, bins, NEAR_BINS)[1].logsumexp(-1).clamp(max=0)
    spread = (at - mean[:, None]).square_().mul_(p).sum(-1).sqrt()
    # p log p tends to 0 where p is 0 and its logarithm -inf.
    entropy = -log_p.clamp_(min=torch.finfo(torch.float64).min).mul_(p).sum(-1)
    return value, spread, entropy.clamp(min=0), log_all - log_sum.double(), log_near


def _around(log_p: Tensor, bins: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """[n, 2 reach + 1] the bins up to so far from the written ones, and their log p: -inf of those that are none."""
    import torch

    last = log_p.shape[-1] - 1
    reach = min(reach, last)
    near = bins[:, None] + torch.arange(-reach, reach + 1, device=bins.device)
    within = near.clamp(0, last)
    return near, log_p.gather(1, within).masked_fill(near != within, -math.inf)
