"""The loss component `coord_soft_ce_w1` as coordcore sees it. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from coordcore import COORD_SUPERVISION, COORD_TOKENS, BuildContext, Component, hookimpl
from coordcore_soft_ce_w1.config import CoordSoftCEW1Config

if TYPE_CHECKING:
    from coordcore.protocols import LossTerm


def _build(config: CoordSoftCEW1Config, _context: BuildContext) -> list[LossTerm]:
    from coordcore_soft_ce_w1.terms import loss_terms

    return loss_terms(config)


def _provides(config: CoordSoftCEW1Config) -> Iterable[str]:
    # A gate says that some coord token belongs here, not which one: alone it supervises nothing.
    supervises = config.ce_weight or config.soft_ce_weight or config.w1_weight
    return [COORD_SUPERVISION] if supervises else []


_UNITS = {
    "ce": "nats per token",
    "soft_ce": "nats per token",
    "gate": "nats per token",
    "text_gate": "nats per token",
    "w1": "share of the bin range",
    "mae": "bins",
    "coord_mass": "probability",
    "p_target": "probability",
    "top5": "share of coordinates",
}


@hookimpl
def coordcore_losses() -> Iterable[Component]:
    return [
        Component(
            name="coord_soft_ce_w1",
            config=CoordSoftCEW1Config,
            build=_build,
            summary="hard and Gaussian soft cross-entropy, Wasserstein-1 and gates on coord positions",
            provides=_provides,
            requires=lambda _config: [COORD_TOKENS],
            units=_UNITS,
            soft_target=lambda config: config.sigma,
        )
    ]
