"""What autograd keeps of a vision tower that trains: its forward on two small pictures, carried on. Imports torch."""

from __future__ import annotations

from typing import Any

import attrs
import torch

from coordcore_train.estimate.activations import (
    ALONE,
    EAGER,
    REFUSALS,
    Activations,
    NotFollowedError,
    Watch,
    attention,
    layers,
    not_followed,
    storages,
)

_SIDES = (2, 4)  # of the pictures, in visual tokens


@attrs.frozen(kw_only=True)
class Tower:
    """small, large: what is kept of pictures of `patches` patches. All of it grows with the patches."""

    patches: tuple[int, int]
    small: Activations
    large: Activations

    def at(self, patches: int) -> Activations:
        """Of as many patches, in pictures of any number: attention stays within a picture, and is fused."""

        def carried(few: int, many: int) -> int:
            first, second = self.patches
            return max(0, few + (many - few) * (patches - first) // (second - first))

        def each(few: tuple[int, ...], many: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(carried(one, other) for one, other in zip(few, many, strict=True))

        return Activations(
            outside=carried(self.small.outside, self.large.outside),
            layers=each(self.small.layers, self.large.layers),
            inputs=each(self.small.inputs, self.large.inputs),
            hidden=0,
        )


MOST_MERGED = 16
"""Patches that become a visual token, at most, where a config does not say it: as many as in Gemma 3."""


def patches_of(model: Any, image_tokens: int) -> int:
    """How many patches the tower makes visual tokens of."""
    merged = getattr(getattr(model.config, "vision_config", None), "spatial_merge_size", None)
    return image_tokens * (MOST_MERGED if merged is None else int(merged) ** 2)


def tower_of(model: Any, *, autocast: torch.dtype | None, eager: bool) -> Tower:
    """Run the tower on skeleton weights; what it computes is of no meaning.

    model: as it trains. eager: whether attention is. Raises NotFollowedError for a tower without a grid.
    """
    counts, found = [], []
    for side in _SIDES:
        patches, kept = _kept(model, side, autocast, eager)
        counts.append(patches)
        found.append(kept)
    return Tower(patches=(counts[0], counts[1]), small=found[0], large=found[1])


def _settings(model: Any) -> Any:
    config = getattr(model.config, "vision_config", None)
    if any(not hasattr(config, name) for name in ("patch_size", "spatial_merge_size")):
        base = getattr(model, "get_base_model", lambda: model)()
        raise NotFollowedError(f"the vision tower of a {type(base).__name__} cuts no pictures into a grid")
    return config


def _kept(model: Any, side: int, autocast: torch.dtype | None, eager: bool) -> tuple[int, Activations]:
    settings = _settings(model)
    base = getattr(model, "get_base_model", lambda: model)()
    across = side * settings.spatial_merge_size
    grid = torch.tensor([[1, across, across]])
    numbers = getattr(settings, "in_channels", 3) * settings.patch_size**2 * getattr(settings, "temporal_patch_size", 1)
    pixels = torch.zeros(across**2, numbers, dtype=base.get_input_embeddings().weight.dtype)
    watch = Watch(storages(model))
    was_training = model.training
    with attention(model, EAGER if eager else ALONE), layers(model, watch) as inputs:
        try:
            model.train()
            with (
                torch.autograd.graph.saved_tensors_hooks(watch.keep, lambda tensor: tensor),
                torch.autocast("cpu", dtype=autocast, enabled=autocast is not None),
            ):
                base.get_image_features(pixels, grid)
        except REFUSALS as error:
            raise not_followed(base, error) from error
        finally:
            model.train(was_training)
    kept = Activations(
        outside=watch.by_layer.get(None, 0),
        layers=tuple(watch.by_layer.get(index, 0) for index in range(len(inputs))),
        inputs=tuple(inputs),
        hidden=0,
    )
    return across**2, kept
