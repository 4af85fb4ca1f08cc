"""Gaussian soft cross-entropy, Wasserstein-1 and gates for coordinate tokens. The public names, loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from coordcore_soft_ce_w1.config import CoordSoftCEW1Config

if TYPE_CHECKING:
    from coordcore_soft_ce_w1.functions import gaussian_soft_targets, soft_cross_entropy, wasserstein_1
    from coordcore_soft_ce_w1.fused import SoftCEW1, coord_soft_ce_w1

__version__ = "0.1.0"

__all__ = [
    "CoordSoftCEW1Config",
    "SoftCEW1",
    "coord_soft_ce_w1",
    "gaussian_soft_targets",
    "soft_cross_entropy",
    "wasserstein_1",
]


def __getattr__(name: str) -> Any:
    # The functions import torch; the hooks and the config, which `coordcore check` reads, must not.
    if name in __all__:
        module = "fused" if name in ("SoftCEW1", "coord_soft_ce_w1") else "functions"
        return getattr(import_module(f"coordcore_soft_ce_w1.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
