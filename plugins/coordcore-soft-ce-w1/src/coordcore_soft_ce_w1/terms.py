"""The loss terms that the component `coord_soft_ce_w1` builds. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from coordcore import FunctionTerm
from coordcore.protocols import CoordPositions, Need, Scope, TextPositions
from coordcore_soft_ce_w1.fused import RowLosses, row_losses

if TYPE_CHECKING:
    from coordcore.protocols import LossTerm
    from coordcore_soft_ce_w1.config import CoordSoftCEW1Config

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
    def needs(self) -> frozenset[Need]:
        return frozenset({"full_lse"} if self.config.gate_weight > 0 else ())

    @property
    def weights(self) -> Mapping[str, float]:
        config = self.config
        parts = {"ce": config.ce_weight, "soft_ce": config.soft_ce_weight, "w1": config.w1_weight}
        if self.config.gate_weight > 0:
            parts |= {"gate": config.gate_weight, "coord_mass": 0.0}
        return parts | {"mae": 0.0, "p_target": 0.0, "top5": 0.0}

    def __call__(self, positions: CoordPositions) -> Mapping[str, Tensor]:
        config, bins = self.config, positions.bins
        losses = partial(row_losses, positions.logits, bins, sigma=config.sigma, truncate=config.truncate)
        rows = losses(diagnostics=True)
        tempered = rows if config.temperature == 1.0 else losses(temperature=config.temperature)
        parts = {
            "ce": _graded(rows.ce, config.ce_weight),
            "soft_ce": _graded(tempered.soft_ce, config.soft_ce_weight),
            "w1": _graded(tempered.w1, config.w1_weight),
        }
        if config.gate_weight > 0:
            parts["gate"] = positions.full_lse - rows.lse
            parts["coord_mass"] = torch.exp(-parts["gate"].detach())
        return parts | _diagnostics(rows, bins)


def _graded(part: Tensor, weight: float) -> Tensor:
    """Without its graph where the weight is 0: a diagnostic."""
    return part if weight > 0 else part.detach()


def _diagnostics(rows: RowLosses, bins: Tensor) -> dict[str, Tensor]:
    assert rows.expected is not None
    assert rows.rank is not None
    ce = rows.ce.detach()
    return {
        "mae": (rows.expected - bins).abs(),
        "p_target": torch.exp(-ce),
        "top5": (rows.rank <= TOP).to(ce.dtype).masked_fill(ce.isnan(), math.nan),
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
        terms.append(FunctionTerm(fn=text_gate, scope="text", weight=weight, name="text_gate"))
    return terms
