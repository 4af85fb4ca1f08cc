"""The loss terms that the component `coord_soft_ce_w1` builds. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from coordcore import FunctionTerm
from coordcore.protocols import CoordPositions, Scope, TextPositions
from coordcore_soft_ce_w1.functions import (
    as_float,
    check_shapes,
    gaussian_soft_targets,
    nan_where_outside,
    soft_ce_of,
    tempered_log_softmax,
    wasserstein_1,
)

if TYPE_CHECKING:
    from coordcore.protocols import LossTerm
    from coordcore_soft_ce_w1.plugin import CoordSoftCEW1Config

TOP = 5
"""The diagnostic `top5` asks whether the target is among this many most likely bins."""


@attrs.frozen(kw_only=True)
class CoordTerm:
    """The parts on coord positions: ce, soft_ce, w1, gate, and the diagnostics.

    p is the softmax over the coord bins, P over the whole vocabulary, t the target bin:

    ce = -log p_t. soft_ce, w1: see `coord_soft_ce_w1`. gate = -log(sum of P over the coord bins), so that ce + gate is
    the cross-entropy over the full vocabulary. mae = |E_p[k] - t| in bins. p_target = p_t. top5 = 1 where t is among
    the five most likely bins (a tie counts against it). coord_mass = exp(-gate).
    """

    config: CoordSoftCEW1Config
    scope: Scope = attrs.field(default="coord", init=False)

    @property
    def full_lse(self) -> bool:
        return self.config.gate_weight > 0

    @property
    def weights(self) -> Mapping[str, float]:
        config = self.config
        parts = {"ce": config.ce_weight, "soft_ce": config.soft_ce_weight, "w1": config.w1_weight}
        if self.full_lse:
            parts |= {"gate": config.gate_weight, "coord_mass": 0.0}
        return parts | {"mae": 0.0, "p_target": 0.0, "top5": 0.0}

    def __call__(self, positions: CoordPositions) -> Mapping[str, Tensor]:
        config, bins = self.config, positions.bins
        logits = as_float("logits", positions.logits)
        num_bins = logits.shape[-1]
        check_shapes(logits, bins)
        targets = gaussian_soft_targets(
            bins, num_bins=num_bins, sigma=config.sigma, truncate=config.truncate, dtype=logits.dtype
        )
        log_probs = torch.log_softmax(logits, dim=-1)
        tempered = log_probs if config.temperature == 1.0 else tempered_log_softmax(logits, config.temperature)
        # An index out of range would end the CUDA context; NaN lets the core stop the run and name this term.
        index = bins.clamp(0, num_bins - 1).unsqueeze(-1)
        log_p_target = nan_where_outside(log_probs.gather(-1, index).squeeze(-1), bins, num_bins)

        parts = {
            "ce": -log_p_target,
            "soft_ce": soft_ce_of(_graded(tempered, config.soft_ce_weight), targets),
            "w1": wasserstein_1(_graded(tempered, config.w1_weight).exp(), targets),
        }
        if self.full_lse:
            if positions.full_lse is None:
                raise ValueError("gate_weight > 0 needs positions.full_lse, got None; compute it where the term asks")
            parts["gate"] = positions.full_lse - logits.logsumexp(-1)
            parts["coord_mass"] = torch.exp(-parts["gate"].detach())
        return parts | _diagnostics(log_probs.detach(), log_p_target.detach(), bins)


def _graded(tensor: Tensor, weight: float) -> Tensor:
    """Without its graph where the weight is 0: a diagnostic keeps no activations for a backward pass."""
    return tensor if weight > 0 else tensor.detach()


def _diagnostics(log_probs: Tensor, log_p_target: Tensor, bins: Tensor) -> dict[str, Tensor]:
    ordinal = torch.arange(log_probs.shape[-1], dtype=log_probs.dtype, device=log_probs.device)
    # Not a matrix product: under autocast that would run in bfloat16, 4 bins coarse at 999.
    expected = (log_probs.exp() * ordinal).sum(-1)
    within_top = (log_probs >= log_p_target.unsqueeze(-1)).sum(-1) <= TOP
    return {
        "mae": (expected - bins).abs(),
        "p_target": log_p_target.exp(),
        "top5": within_top.to(log_probs.dtype).masked_fill(log_p_target.isnan(), math.nan),
    }


def text_gate(positions: TextPositions) -> Tensor:
    """[n] `-log(1 - coord mass)` on text positions, as `LSE(all) - LSE(text columns)`.

    Not from the coord mass itself: where that is close to 1, `1 - mass` has lost its digits in float32 and the
    gradient grows without bound. In this form each partial derivative lies in -1..1.
    """
    return positions.lse - positions.text_lse


def loss_terms(config: CoordSoftCEW1Config) -> list[LossTerm]:
    """The coord term, and the text gate when it has a weight."""
    terms: list[LossTerm] = [CoordTerm(config=config)]
    if config.text_gate_weight > 0:
        weight = config.text_gate_weight
        terms.append(FunctionTerm(fn=text_gate, scope="text", weight=weight, full_logits=False, name="text_gate"))
    return terms
