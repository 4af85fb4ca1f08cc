"""Random positions of every scope, for checks of loss terms. Imports torch inside its functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from coordcore.coords import NUM_BINS, CoordVocab
from coordcore.protocols import BoxPositions, CoordPositions, Scope, TextPositions

if TYPE_CHECKING:
    from torch import Tensor

FIRST_COORD_ID = 100
VOCABULARY = FIRST_COORD_ID + NUM_BINS + 20
"""Vocabulary rows of the made-up logits: 100 text tokens, the coord tokens, 20 text tokens."""

Positions = CoordPositions | TextPositions | BoxPositions


def make_vocab() -> CoordVocab:
    """The coord tokens' ids in the made-up vocabulary."""
    return CoordVocab(ids=tuple(range(FIRST_COORD_ID, FIRST_COORD_ID + NUM_BINS)))


def make_positions(scope: Scope, count: int, *, full_lse: bool = False, scale: float = 3.0, seed: int = 0) -> Positions:
    """`count` random positions (boxes for scope "box") as the objective hands them to a term.

    Their logits are normal with standard deviation `scale`, float32, and ask for a gradient. Targets cover both ends of
    the bins and, for real-valued ones, lie within half a bin of the written token.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=generator) * scale).requires_grad_()

    def between(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    ids = torch.tensor(make_vocab().ids)
    if scope in ("text", "token"):
        labels = between(0, FIRST_COORD_ID, count)
        if scope == "token":
            labels[1::2] = ids[between(0, NUM_BINS, len(labels[1::2]))]
        return TextPositions(logits=normal(count, VOCABULARY), labels=labels, coord_ids=ids)
    if scope == "box":
        first, size = between(0, NUM_BINS // 2, count, 2), between(1, NUM_BINS // 2, count, 2)
        bins = torch.cat([first, first + size], dim=-1)
        return BoxPositions(logits=normal(count, 4, NUM_BINS), bins=bins, values=_near(bins, generator))
    bins = between(0, NUM_BINS, count)
    bins[:1], bins[1:2] = 0, NUM_BINS - 1
    logits = normal(count, VOCABULARY)
    return CoordPositions(
        logits=logits[:, ids],
        bins=bins,
        values=_near(bins, generator),
        full_lse=logits.logsumexp(-1) if full_lse else None,
    )


def _near(bins: Tensor, generator: Any) -> Tensor:
    """Real-valued targets that round to `bins`."""
    import torch

    jitter = torch.rand(bins.shape, generator=generator) - 0.5
    return (bins + jitter).clamp(0, NUM_BINS - 1)


def select(positions: Positions, index: Tensor) -> Positions:
    """The positions at `index`, in its order."""
    per_position = {
        field.name: value[index]
        for field in attrs.fields(type(positions))
        if field.name != "coord_ids" and (value := getattr(positions, field.name)) is not None
    }
    return attrs.evolve(positions, **per_position)


def with_logits(positions: Positions, logits: Tensor) -> Positions:
    """The same positions with other logits, and what follows from them."""
    if isinstance(positions, CoordPositions) and positions.full_lse is not None:
        return attrs.evolve(positions, logits=logits, full_lse=logits.logsumexp(-1) + 0.1)
    return attrs.evolve(positions, logits=logits)
