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

    logits = logits.double()
    log_all = logits.logsumexp(-1)
    log_p = logits - log_all[:, None]
    p = log_p.exp()
    at = torch.arange(logits.shape[-1], dtype=torch.float64, device=logits.device)
    mean = p @ at
    distance = (at - bins[:, None]).abs()
    if coordinates == "argmax":
        value = bins.double()
    elif window is None:
        value = mean
    else:
        value = torch.where(distance <= window, log_p, -math.inf).softmax(-1) @ at
    # p log p tends to 0 where p is 0 and its logarithm -inf.
    entropy = -torch.where(p > 0, p * log_p, 0).sum(-1)
    return Coords(
        value=_host(value),
        spread=_host((p * (at - mean[:, None]) ** 2).sum(-1).sqrt()),
        entropy=_host(entropy.clamp(min=0)),
        log_mass=_host(log_all - log_sum.double()),
        log_near=_host(torch.where(distance <= NEAR_BINS, log_p, -math.inf).logsumexp(-1).clamp(max=0)),
    )


def _host(values: Tensor) -> Array:
    return values.cpu().numpy()
