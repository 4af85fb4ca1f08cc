"""Random positions of every scope, for checks of loss terms. Imports torch inside its functions."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, Any

import attrs

from coordcore.coords import DEFAULT_COORDS, CoordFormat, CoordVocab
from coordcore.protocols import BoxPositions, CoordPositions, Need, Origin, Scope, Targets, TextPositions
from coordcore.testing.missing import needs_train

if TYPE_CHECKING:
    from torch import Tensor

FIRST_COORD_ID = 100
BEHIND = 20
VOCABULARY = FIRST_COORD_ID + DEFAULT_COORDS.bins + BEHIND
"""Vocabulary rows of the made-up logits: 100 text tokens, the coord tokens, 20 text tokens."""

Positions = Any
"""CoordPositions, TextPositions or BoxPositions, by scope."""


def make_vocab(coords: CoordFormat = DEFAULT_COORDS) -> CoordVocab:
    """The coord tokens' ids in the made-up vocabulary."""
    return CoordVocab(ids=tuple(range(FIRST_COORD_ID, FIRST_COORD_ID + coords.bins)), format=coords)


@needs_train()
def make_logits(
    scope: Scope, count: int, *, scale: float = 3.0, seed: int = 0, bins: int = DEFAULT_COORDS.bins
) -> Tensor:
    """What a model says: normal with standard deviation `scale`, float32, asking for a gradient.

    [count, 4, K] for scope "box", [count, V] for the others.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    shape = (count, 4, bins) if scope == "box" else (count, FIRST_COORD_ID + bins + BEHIND)
    return (torch.randn(*shape, generator=generator) * scale).requires_grad_()


@needs_train()
def make_positions(
    scope: Scope, count: int, *, needs: Set[Need] = frozenset(), logits: Tensor | None = None, seed: int = 0
) -> Positions:
    """`count` random positions (boxes for scope "box") as the objective hands them to a term that has these `needs`.

    logits: from `make_logits`, which is the default; they say how many bins there are.
    Targets cover both ends of the bins and, for real-valued ones, lie
    within half a bin of the written token. Every third position is of another example, and the image of the second
    example is of unknown size.
    """
    import torch

    logits = make_logits(scope, count) if logits is None else logits
    generator = torch.Generator().manual_seed(seed)

    def between(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    count_of_bins = logits.shape[-1] - (0 if scope == "box" else FIRST_COORD_ID + BEHIND)
    ids = torch.arange(FIRST_COORD_ID, FIRST_COORD_ID + count_of_bins)
    origin = make_origin(count, has_objects=scope in ("coord", "box")) if "origin" in needs else None
    if scope in ("text", "token"):
        labels = between(0, FIRST_COORD_ID, count)
        if scope == "token":
            labels[1::2] = ids[between(0, count_of_bins, len(labels[1::2]))]
        return _text_positions(logits, labels, ids, origin, whole="logits" in needs)
    if scope == "box":
        first, size = between(0, count_of_bins // 2, count, 2), between(1, count_of_bins // 2, count, 2)
        bins = torch.cat([first, first + size], dim=-1)
        return BoxPositions(logits=logits, bins=bins, values=_near(bins, count_of_bins, generator), origin=origin)
    bins = between(0, count_of_bins, count)
    bins[:1], bins[1:2] = 0, count_of_bins - 1
    return CoordPositions(
        logits=logits[:, ids],
        bins=bins,
        values=_near(bins, count_of_bins, generator),
        full_lse=logits.logsumexp(-1) if "full_lse" in needs else None,
        origin=origin,
    )


@needs_train()
def make_origin(count: int, *, has_objects: bool) -> Origin:
    """Three positions of each example; images of 640 x 480 but for the second example's, objects of 40 x 20 pixels."""
    import torch

    example = torch.arange(count) // 3
    known = torch.where(example == 1, torch.nan, 1.0)[:, None]
    return Origin(
        example=example,
        image_size=known * torch.tensor([640.0, 480.0]),
        object_size=known * torch.tensor([40.0, 20.0] if has_objects else [torch.nan] * 2),
    )


@needs_train()
def make_targets_of(scope: Scope, count: int) -> Targets:
    """What `position_weights` of a term gets, for `count` positions as `make_positions` makes them."""
    import torch

    seen: Any = make_positions(scope, count, needs={"origin"})
    if isinstance(seen, CoordPositions | BoxPositions):
        ids = torch.tensor(make_vocab().ids)
        return Targets(labels=ids[seen.bins], bins=seen.bins, values=seen.values, origin=seen.origin)
    bins = make_vocab().bins(seen.labels)
    values = torch.where(bins >= 0, bins.float(), torch.nan)
    return Targets(labels=seen.labels, bins=bins, values=values, origin=seen.origin)


def _text_positions(logits: Tensor, labels: Tensor, ids: Tensor, origin: Origin | None, *, whole: bool) -> Any:
    from coordcore_train.objective.streamed import StreamedText

    seen = TextPositions(logits=logits, labels=labels, coord_ids=ids, origin=origin)
    if whole:
        return seen
    return StreamedText(
        labels=labels,
        coord_ids=ids,
        label_logits=seen.label_logits,
        coord_logits=seen.coord_logits,
        coord_lse=seen.coord_lse,
        text_lse=seen.text_lse,
        lse=seen.lse,
        origin=origin,
    )


def _near(bins: Tensor, count_of_bins: int, generator: Any) -> Tensor:
    """Real-valued targets that round to `bins`."""
    import torch

    jitter = torch.rand(bins.shape, generator=generator) - 0.5
    return (bins + jitter).clamp(0, count_of_bins - 1)


@needs_train()
def select(positions: Any, index: Tensor) -> Any:
    """The positions at `index`, in its order."""
    import torch

    def chosen(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value[index]
        return value if value is None else select(value, index)

    per_position = {
        field.alias: chosen(getattr(positions, field.name))
        for field in attrs.fields(type(positions))
        if field.name != "coord_ids"
    }
    return attrs.evolve(positions, **per_position)
