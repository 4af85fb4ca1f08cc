"""The losses, template and optimizer the core itself offers, through the same hooks as any plugin. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from attrs.validators import ge, le

from coordcore.components import COORD_SUPERVISION, BuildContext, Component, option
from coordcore.hookspecs import hookimpl
from coordcore.protocols import Need, OptimizerSettings, Scope, TaggedParameter, Targets, TextPositions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from coordcore.records.answers import Format

COMMANDS = ("check", "plugins", "schema")
"""coordcore's own commands, whose names no plugin may take."""


@attrs.frozen(kw_only=True)
class FunctionTerm:
    """A `LossTerm` from one function: `fn(positions) -> [n]`. The short way to write a loss plugin.

    The part is called `name` in the logs (`<component>/<name>`). needs: what `fn` reads that costs something, such as
    {"full_lse"}. weigh: `weigh(targets) -> [n]`, how much each position counts. schedule: `schedule(step, total_steps)`
    multiplies `weight` during training. See `LossTerm`.
    """

    fn: Callable[[Any], Tensor]
    scope: Scope = "coord"
    weight: float = 1.0
    needs: frozenset[Need] = attrs.field(default=frozenset(), converter=frozenset)
    name: str = "loss"
    weigh: Callable[[Targets], Tensor] | None = None
    schedule: Callable[[int, int], float] | None = None

    @property
    def weights(self) -> Mapping[str, float]:
        return {self.name: self.weight}

    @property
    def position_weights(self) -> Callable[[Targets], Mapping[str, Tensor]] | None:
        weigh = self.weigh
        return None if weigh is None else lambda targets: {self.name: weigh(targets)}

    @property
    def weights_at(self) -> Callable[[int, int], Mapping[str, float]] | None:
        schedule = self.schedule
        return None if schedule is None else lambda step, total: {self.name: self.weight * schedule(step, total)}

    def __call__(self, positions: Any) -> Mapping[str, Tensor]:
        return {self.name: self.fn(positions)}


@attrs.frozen(kw_only=True)
class TextCEConfig:
    """Cross-entropy over the full vocabulary."""

    weight: float = option(default=1.0, validator=[ge(0), le(1e6)], help="weight in the total loss")
    coord_positions: bool = option(
        default=False,
        help="also charge coord positions, as plain cross-entropy does; leave false when a coord loss supervises them",
    )


def _cross_entropy(positions: TextPositions) -> Tensor:
    return positions.lse - positions.label_logits


def _build_text_ce(config: TextCEConfig, _context: BuildContext) -> FunctionTerm:
    scope: Scope = "token" if config.coord_positions else "text"
    return FunctionTerm(fn=_cross_entropy, scope=scope, weight=config.weight, name="ce")


@hookimpl
def coordcore_losses() -> Iterable[Component]:
    return [
        Component(
            name="text_ce",
            config=TextCEConfig,
            build=_build_text_ce,
            summary="cross-entropy on the supervised text positions (on coord positions too, if asked)",
            provides=lambda config: [COORD_SUPERVISION] if config.coord_positions else [],
            units={"ce": "nats per token"},
        )
    ]


@attrs.frozen(kw_only=True)
class NoConfig:
    """A component without settings."""


def _build_coordjson(_config: NoConfig, _context: BuildContext) -> Format:
    from coordcore.records.answers import COORDJSON

    return COORDJSON


@hookimpl
def coordcore_answer_formats() -> Iterable[Component]:
    return [
        Component(
            name="coordjson",
            config=NoConfig,
            build=_build_coordjson,
            summary="a list of objects in JSON, with their coordinates as tokens in it",
        )
    ]


class PlainTemplate:
    """Leaves the ms-swift template as it is."""

    def apply(self, template: Any) -> None:
        """Change nothing."""


@hookimpl
def coordcore_template_adapters() -> Iterable[Component]:
    return [
        Component(
            name="plain",
            config=NoConfig,
            build=lambda _config, _context: PlainTemplate(),
            summary="the model family's ms-swift template, unchanged",
        )
    ]


class AdamW:
    """Two groups, with and without weight decay, one learning rate."""

    def __call__(self, parameters: Sequence[TaggedParameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
        groups = []
        for name, decay in (("decay", True), ("no_decay", False)):
            members = [entry.parameter for entry in parameters if entry.decay is decay]
            if members:
                weight_decay = settings.weight_decay if decay else 0.0
                groups.append({"name": name, "params": members, "weight_decay": weight_decay})
        return settings.create(groups)


@hookimpl
def coordcore_optimizers() -> Iterable[Component]:
    return [
        Component(
            name="adamw",
            config=NoConfig,
            build=lambda _config, _context: AdamW(),
            summary="the optimizer of [train] optim, one learning rate, weight decay on matrices only",
        )
    ]
