"""The formulas: Gaussian soft targets, soft cross-entropy and Wasserstein-1 over ordered bins. Imports torch.

Shape legend: `...` any leading shape (none and empty included), K bins in order.

Half-precision input is computed in float32, float64 stays float64. Nothing is repaired: NaN in a row of logits gives
NaN for that position. Formulas: CoordExp's distributional coordinate loss; W1 in one dimension is the area between
the two cumulative distribution functions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gaussian_soft_targets(
    bins: Tensor,
    *,
    num_bins: int = 1000,
    sigma: float,
    truncate: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Discrete Gaussians over the bins: `q_k ~ exp(-(k - t)^2 / (2 sigma^2))`, each row summing to 1.

    bins: [...] integers, the target bin t. sigma: in bins. truncate: radius in bins; farther bins get exactly 0 and
    the rest is renormalised. dtype: float32 or float64. Returns [..., num_bins].

    Rows near an edge are cut there and renormalised, which moves their mean inwards: by 1.30 bins at t = 0 and
    0.18 at t = 3 with sigma 2.

    Raises TypeError for bins that are not integers; ValueError for a sigma that is not finite and > 0, a negative
    truncate, another dtype, and, on the CPU, a bin outside 0..num_bins-1. Looking at values would stall an
    accelerator, so there the row of such a bin is NaN.
    """
    check_positive("sigma", sigma)
    if num_bins < 1:
        raise ValueError(f"num_bins must be >= 1, got {num_bins}")
    if truncate is not None and truncate < 0:
        raise ValueError(f"truncate must be >= 0 bins, or None for no truncation, got {truncate}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be float32 or float64, got {dtype}; convert the result instead")
    check_bins(bins, num_bins)
    centre = nan_where_outside(bins.to(dtype), bins, num_bins)
    distance = torch.arange(num_bins, dtype=dtype, device=bins.device) - centre.unsqueeze(-1)
    weight = torch.exp(-0.5 * (distance / sigma) ** 2)
    if truncate is not None:
        weight = weight.masked_fill(distance.abs() > truncate, 0.0)
    return weight / weight.sum(-1, keepdim=True)


def soft_cross_entropy(logits: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Cross-entropy against a distribution: `-sum_k q_k log p_k` with `p = softmax(logits / temperature)`.

    logits: [..., K] floating. targets: [..., K] probabilities, which must sum to 1 (not checked). Returns [...] nats;
    its smallest value is the entropy of the target, 2.112 for a Gaussian with sigma 2.

    Raises TypeError for tensors that are not floating, ValueError for unequal shapes or a temperature that is not
    finite and > 0.
    """
    logits, targets = as_float("logits", logits), as_float("targets", targets)
    _check_same_shape("logits", logits, targets)
    check_positive("temperature", temperature)
    log_probs = torch.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=-1)
    return -(targets * log_probs).sum(-1)


def wasserstein_1(probs: Tensor, targets: Tensor, *, normalize: bool = True) -> Tensor:
    """Earth mover's distance over ordered bins: `sum_k |F_p(k) - F_q(k)|`, F the cumulative distribution.

    probs, targets: [..., K] probabilities, which must sum to 1 (not checked). normalize: divide by K - 1, the largest
    possible value, so that the result lies in 0..1; otherwise it is in bins. Returns [...].

    Raises TypeError for tensors that are not floating, ValueError for unequal shapes, or for fewer than two bins when
    normalised.
    """
    probs, targets = as_float("probs", probs), as_float("targets", targets)
    _check_same_shape("probs", probs, targets)
    num_bins = probs.shape[-1]
    if normalize:
        check_normalisable(num_bins)
    # One running sum of the difference: two sums would each carry the rounding error of a value near 1.
    distance = (probs - targets).cumsum(-1).abs().sum(-1)
    return distance / (num_bins - 1) if normalize else distance


# --- shared with the fused path, not part of the public interface -----------------------------------------------------


def as_float(name: str, tensor: Tensor) -> Tensor:
    """The tensor in the precision the maths is done in."""
    check_floating(name, tensor)
    return tensor.to(compute_dtype(tensor))


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """float64 if the tensor is that, else float32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def check_floating(name: str, tensor: Tensor) -> None:
    """Raise TypeError unless the tensor is floating, ValueError when it has no dimension for the bins."""
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be a floating tensor, got {tensor.dtype}")
    if tensor.ndim == 0:
        raise ValueError(f"{name} must have the bins as its last dimension, got a scalar")


def check_shapes(logits: Tensor, bins: Tensor) -> None:
    """Raise ValueError unless there is one bin per row of logits."""
    if bins.shape != logits.shape[:-1]:
        raise ValueError(
            f"bins must have one entry per row of logits, shape {tuple(logits.shape[:-1])}, got {tuple(bins.shape)}"
        )


def check_bins(bins: Tensor, num_bins: int) -> None:
    """Raise TypeError or ValueError for bins of a wrong dtype or, on the CPU, outside 0..num_bins-1."""
    if bins.is_floating_point() or bins.is_complex() or bins.dtype == torch.bool:
        raise TypeError(f"bins must be an integer tensor, got {bins.dtype}; quantise the coordinates first")
    if bins.device.type == "cpu":
        bins = bins.long()  # the number of bins may be more than their own dtype holds
        outside = bins[(bins < 0) | (bins >= num_bins)]
        if outside.numel():
            raise ValueError(
                f"bins must lie in 0..{num_bins - 1}, got {outside[0].item()}; "
                "select the positions whose target is a coord token first"
            )


def nan_where_outside(values: Tensor, bins: Tensor, num_bins: int) -> Tensor:
    """`values` ([...]), NaN where the bin is out of range: an accelerator's way to say what `check_bins` says."""
    bins = bins.long()
    return values.masked_fill((bins < 0) | (bins >= num_bins), math.nan)


def check_normalisable(num_bins: int) -> None:
    """Raise ValueError where the largest possible distance, K - 1 bins, is 0."""
    if num_bins < 2:
        raise ValueError(f"a normalised distance needs at least 2 bins, got {num_bins}; pass normalize=False")


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless the value is finite and > 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be finite and > 0, got {value}")


def refuse_second_derivative() -> None:
    """Raise RuntimeError in a backward pass with create_graph=True, which would take the gradient for a constant."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "coord_soft_ce_w1 can be differentiated once, and create_graph=True asks for more; "
            "compose gaussian_soft_targets, soft_cross_entropy and wasserstein_1 instead"
        )


def _check_same_shape(name: str, tensor: Tensor, targets: Tensor) -> None:
    if tensor.shape != targets.shape:
        raise ValueError(f"targets must have the shape of {name}, {tuple(tensor.shape)}, got {tuple(targets.shape)}")
