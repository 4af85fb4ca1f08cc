"""Tagged parameters into optimizer groups. Torch-free at import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from coordcore import InputError
from coordcore.protocols import OptimizerSettings, TaggedParameter
from coordcore_multimodal_optimizer.config import NAME, STANDARD, MultimodalOptimizerConfig

if TYPE_CHECKING:
    import torch


class MultimodalOptimizer:
    """A `coordcore.protocols.OptimizerFactory`: one learning rate per tag."""

    def __init__(self, config: MultimodalOptimizerConfig) -> None:
        self.config = config

    def __call__(self, parameters: Sequence[TaggedParameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
        """The optimizer of `[train] optim` over `parameter_groups`."""
        return settings.create(parameter_groups(parameters, self.config, settings))


def parameter_groups(
    parameters: Sequence[TaggedParameter], config: MultimodalOptimizerConfig, settings: OptimizerSettings
) -> list[dict[str, Any]]:
    """The groups of a torch optimizer, every parameter in exactly one, each with name, params, lr and weight_decay.

    A tag with weight decay becomes two groups, "llm/decay" and "llm/no_decay" (biases and norms), one without becomes
    one, "llm". Their order depends on the tags alone: vision, aligner, llm, offset, then the others by name.

    Raises InputError for settings of a tag that no parameter has, RuntimeError for a parameter that is listed twice.
    """
    _check_listed_once(parameters)
    present = {parameter.tag for parameter in parameters}
    for tag in config.tags:
        if tag not in present:
            raise InputError(
                f"optimizer.{NAME}.tags.{tag}: no trainable parameter has this tag; tags of this model: "
                f"{', '.join(sorted(present))}"
            )
    groups = []
    for tag in [*STANDARD, *sorted(present.difference(STANDARD))]:
        members = [parameter for parameter in parameters if parameter.tag == tag]
        chosen = config.of(tag)
        lr = settings.learning_rate if chosen.lr is None else chosen.lr
        weight_decay = settings.weight_decay if chosen.weight_decay is None else chosen.weight_decay
        if weight_decay == 0:
            parts = [(tag, members, 0.0)]
        else:
            parts = [
                (f"{tag}/decay", [member for member in members if member.decay], weight_decay),
                (f"{tag}/no_decay", [member for member in members if not member.decay], 0.0),
            ]
        groups += [
            {"name": name, "params": [item.parameter for item in part], "lr": lr, "weight_decay": decay}
            for name, part, decay in parts
            if part
        ]
    return groups


def _check_listed_once(parameters: Sequence[TaggedParameter]) -> None:
    names: dict[int, str] = {}
    for entry in parameters:
        if id(entry.parameter) in names:
            first = names[id(entry.parameter)]
            raise RuntimeError(f"parameter {entry.name} is listed twice, first as {first}; it would be stepped twice")
        names[id(entry.parameter)] = entry.name
