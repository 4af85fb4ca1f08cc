"""The manifest keys of `[loss.coord_soft_ce_w1]`. Torch-free."""

from __future__ import annotations

import attrs
from attrs.validators import and_, ge, gt, le, optional

from coordcore import option

_WEIGHT = [ge(0), le(1e6)]

_WIDTH = [gt(0), le(1e4)]
"""Ten times the range of the bins is as good as even."""


@attrs.frozen(kw_only=True)
class CoordSoftCEW1Config:
    """`[loss.coord_soft_ce_w1]`: an ordinal loss on coord positions, as a weighted mix of four parts.

    Raises ValueError when every weight is 0.
    """

    ce_weight: float = option(
        default=1.0, validator=_WEIGHT, help="weight of the hard cross-entropy within the coord bins"
    )
    soft_ce_weight: float = option(
        default=1.0, validator=_WEIGHT, help="weight of the cross-entropy against the Gaussian target"
    )
    w1_weight: float = option(
        default=1.0, validator=_WEIGHT, help="weight of the Wasserstein-1 distance to the Gaussian target"
    )
    gate_weight: float = option(
        default=1.0,
        validator=_WEIGHT,
        help="weight of -log(coord mass) on coord positions; 0 also spares the full-vocabulary product there",
    )
    text_gate_weight: float = option(
        default=0.0, validator=_WEIGHT, help="weight of -log(1 - coord mass) on supervised text positions"
    )
    sigma: float = option(default=2.0, validator=_WIDTH, help="standard deviation of the Gaussian target, in bins")
    truncate: int | None = option(
        default=None,
        validator=optional(and_(ge(0), le(10**6))),
        help="the Gaussian target is 0 beyond this many bins; the whole range when absent",
    )
    temperature: float = option(
        default=1.0,
        validator=[ge(1e-4), le(1e4)],
        help="divides the logits of soft_ce and w1; ce and the gates do not use it",
    )

    def __attrs_post_init__(self) -> None:
        if not any((self.ce_weight, self.soft_ce_weight, self.w1_weight, self.gate_weight, self.text_gate_weight)):
            raise ValueError(
                "every weight is 0, so this loss trains nothing; "
                "set ce_weight, soft_ce_weight or w1_weight above 0, or leave the section out"
            )
