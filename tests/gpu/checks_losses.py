"""The Triton kernels of soft CE and W1 against the torch operations and float64, on the GPU itself."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from setting import NotApplicableError, Setting, check, require
from torch import Tensor

from coordcore_soft_ce_w1 import fused, gaussian_soft_targets, soft_cross_entropy, wasserstein_1

PARTS = ("ce", "soft_ce", "w1", "lse")
SCALES = {"flat": 0.1, "ordinary": 4.0, "sharp": 40.0, "extreme": 1e4}


def kernel(setting: Setting) -> dict[str, Any]:
    """Values and gradients of every part, within four times the error of the reference in float32.

    On the CPU, where the kernels do not run, the same comparison of the torch operations: that it works.
    """
    if setting.cuda:
        require("triton")
        if not fused._fits_kernels(torch.empty(1, 1000, device="cuda")):
            raise NotApplicableError("the plugin does not use its kernels here")
    checks = []
    sizes = [(1000, 2.0), (1000, 20.0), (1003, 400.0), (100, 0.5)]
    for (bins, sigma), (name, scale) in product(sizes, SCALES.items()):
        count = setting.size(512, 16)
        logits = setting.randn(count, bins, seed=bins) * scale
        target = torch.randint(bins, (count,), generator=setting.generator(1), device=setting.device)
        target[:2] = torch.tensor([0, bins - 1])
        checks += _compared(logits, target, sigma, f"{name}, {bins} bins, sigma {sigma:g}")
    for dtype in (torch.bfloat16, torch.float16):
        checks.append(_rounded_once(setting, dtype))
    return {"checks": checks}


def _compared(logits: Tensor, bins: Tensor, sigma: float, where: str) -> list[dict[str, Any]]:
    eps = torch.finfo(torch.float32).eps
    exact, plain, ours = (logits.to(dtype).requires_grad_() for dtype in (torch.float64, torch.float32, torch.float32))
    rows = fused.row_losses(ours, bins, sigma=sigma)
    by = [_composed(exact, bins, sigma), _composed(plain, bins, sigma), {part: getattr(rows, part) for part in PARTS}]
    worst_value, worst_gradient = 0.0, 0.0
    for part in PARTS:
        right, reference, actual = (parts[part].detach().double() for parts in by)
        allowed = 4 * ((reference - right).abs().max() + eps * right.abs().max().clamp_min(1.0))
        worst_value = max(worst_value, float((actual - right).abs().max() / allowed))
        right, reference, actual = (
            torch.autograd.grad(parts[part].sum(), leaf, retain_graph=True)[0].double()
            for leaf, parts in zip((exact, plain, ours), by, strict=True)
        )
        allowed = 4 * ((reference - right).abs().max() + eps)
        worst_gradient = max(worst_gradient, float((actual - right).abs().max() / allowed))
    return [
        check(f"values, of what is allowed ({where})", worst_value, 1.0),
        check(f"gradients, of what is allowed ({where})", worst_gradient, 1.0),
    ]


def _composed(logits: Tensor, bins: Tensor, sigma: float) -> dict[str, Tensor]:
    targets = gaussian_soft_targets(bins, num_bins=logits.shape[-1], sigma=sigma, dtype=logits.dtype)
    return {
        "ce": torch.nn.functional.cross_entropy(logits, bins, reduction="none"),
        "soft_ce": soft_cross_entropy(logits, targets),
        "w1": wasserstein_1(logits.softmax(-1), targets),
        "lse": logits.logsumexp(-1),
    }


def _rounded_once(setting: Setting, dtype: torch.dtype) -> dict[str, Any]:
    half = (setting.randn(64, 1000) * 4).to(dtype).requires_grad_()
    full = half.detach().float().requires_grad_()
    bins = torch.randint(1000, (64,), generator=setting.generator(1), device=setting.device)
    gradients = []
    for leaf in (half, full):
        rows = fused.row_losses(leaf, bins, sigma=2.0)
        gradients.append(torch.autograd.grad((rows.soft_ce + rows.w1).sum(), leaf)[0])
    difference = (gradients[0].float() - gradients[1].to(dtype).float()).abs()
    ulps = difference / (gradients[1].abs() * torch.finfo(dtype).eps).clamp_min(torch.finfo(dtype).tiny)
    return check(f"{str(dtype).removeprefix('torch.')}: roundings of a gradient, in units", float(ulps.max()), 1.01)
