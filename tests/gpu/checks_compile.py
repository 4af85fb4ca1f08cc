"""The fused loss inside functions and models that `torch.compile` has compiled: the same numbers."""

from __future__ import annotations

from typing import Any

import torch
from models import live
from setting import Setting, check, error
from torch import Tensor

from coordcore_soft_ce_w1 import coord_soft_ce_w1


def compiled(setting: Setting) -> dict[str, Any]:
    """A head with the fused loss behind it, and a model whose loss is taken in its forward.

    On the CPU without code being generated, which takes a C++ compiler.
    """
    backend = "inductor" if setting.cuda else "aot_eager"
    hidden = setting.randn(64, 128, seed=1).requires_grad_()
    weight = (0.1 * setting.randn(1000, 128, seed=2)).requires_grad_()
    bins = torch.randint(1000, (64,), generator=setting.generator(3), device=setting.device)

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        both = coord_soft_ce_w1(torch.relu(hidden) @ weight.T, bins, sigma=2.0)
        return (both.soft_ce + 0.5 * both.w1).mean()

    found = []
    for run in (loss, torch.compile(loss, backend=backend)):
        value = run(hidden, weight)
        found.append([value, *torch.autograd.grad(value, (hidden, weight))])
    names = ("loss", "gradient by hidden states", "gradient by weight")
    checks = [
        check(f"the fused loss: {name}", error(other, item), 1e-4)
        for name, item, other in zip(names, *found, strict=True)
    ]
    plain, other = live(setting), live(setting)
    expected, gradients = plain.step(plain.objective()), plain.gradients()
    value = other.step(other.objective(), wrapped=torch.compile(other.model, backend=backend))
    worst = max(error(gradient, gradients[name]) for name, gradient in other.gradients().items())
    checks.append(check("a model with the objective in its forward: loss", error(value, expected), 1e-4))
    checks.append(check("a model with the objective in its forward: gradients", worst, 1e-3))
    return {"checks": checks, "backend": backend}
