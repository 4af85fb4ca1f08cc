"""The loss component `coord_huber`. Torch-free until it is called."""

from __future__ import annotations

import attrs
from attrs.validators import ge, gt

from coordcore import COORD_SUPERVISION, COORD_TOKENS, Component, FunctionTerm, hookimpl, option


@attrs.frozen(kw_only=True)
class HuberConfig:
    """`[loss.coord_huber]`."""

    weight: float = option(default=1.0, validator=ge(0), help="weight in the total loss")
    delta: float = option(default=10.0, validator=gt(0), help="bins from the target within which it is quadratic")


def expected_huber(positions, delta):
    """[n] sum over bins k of p_k * huber(k - target), 0 at the target and about 1 at the far end."""
    import torch

    num_bins = positions.logits.shape[-1]
    ordinal = torch.arange(num_bins, device=positions.logits.device)
    offset = ordinal - positions.values[:, None]
    distance = torch.nn.functional.huber_loss(offset, torch.zeros_like(offset), reduction="none", delta=delta)
    return (positions.logits.softmax(-1) * distance).sum(-1) / (delta * (num_bins - 1))


def build(config, context):
    return FunctionTerm(fn=lambda positions: expected_huber(positions, config.delta), weight=config.weight)


@hookimpl
def coordcore_losses():
    return [
        Component(
            name="coord_huber",
            config=HuberConfig,
            build=build,
            summary="expected Huber distance from the target bin",
            provides=lambda config: [COORD_SUPERVISION],
            requires=lambda config: [COORD_TOKENS],
        )
    ]
