"""The engine's seam, for those who build on torch: train a plan, rehearse a run, bind a model, encode an example.

Which engine is installed is the plugins' matter (`coordcore_engine`); ms-swift is behind `coordcore_train.swift`, and
nobody but that engine knows it. What `coordcore check` asks of it is `coordcore.protocols.Engine`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import attrs

from coordcore.errors import InputError
from coordcore.plugins import Plugins
from coordcore.protocols import Engine, TaggedParameter, TemplateAdapter
from coordcore.records.example import Example

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import TrainerCallback

    from coordcore.manifest import Loaded
    from coordcore_train.checkpoint.image_size import ImageTokens
    from coordcore_train.run.plan import Plan

IGNORE = -100
"""The label of a token that is not supervised."""


@attrs.frozen(kw_only=True)
class EncodedRow:
    """One example as the model gets it.

    ids, labels: [T]; a label is IGNORE where nothing is supervised. seen: (width, height) in pixels of each image
    behind the processor; nothing for a processor that does not tell (tiles, one fixed size).
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    seen: tuple[tuple[int, int], ...]

    @property
    def answer(self) -> list[int]:
        """The supervised tokens."""
        return [label for label in self.labels if label != IGNORE]


class Encoder(Protocol):
    """Encodes examples as training does. processor, tokenizer: transformers' own, of the checkpoint.

    image_tokens: the limits by which the engine resizes images before the processor sees them, None where it leaves
    that to the processor.
    """

    @property
    def image_tokens(self) -> ImageTokens | None: ...

    @property
    def processor(self) -> Any: ...

    @property
    def tokenizer(self) -> Any: ...

    def encode(self, example: Example) -> EncodedRow:
        """The example as the model gets it. Raises InputError, with the example's source, for one that cannot be."""
        ...


@attrs.frozen(kw_only=True)
class Group:
    """One group of the optimizer. name: its own, or its index. learning_rate: at the start. size: tensors in it."""

    name: str
    learning_rate: float
    size: int


@attrs.frozen(kw_only=True)
class Optimized:
    """parameters: every trainable parameter, with its tag. groups: where the optimizer has put them."""

    parameters: tuple[TaggedParameter, ...]
    groups: tuple[Group, ...]


@attrs.frozen(kw_only=True)
class Step:
    """What one training step showed. loss, parts: before it. without_gradient: names of trainable parameters."""

    loss: float
    parts: Mapping[str, float]
    without_gradient: tuple[str, ...]


class RehearsedTrainer(Protocol):
    """The trainer of a rehearsal. model: as it trains, its surgeries bound."""

    @property
    def model(self) -> nn.Module: ...

    def optimized(self) -> Optimized:
        """Tags and groups. Raises RunError unless every trainable parameter is in exactly one group."""
        ...

    def step(self) -> Step:
        """Train one step. Raises RunError when the loss is computed past the head, or is not finite."""
        ...


class Rehearsal(Protocol):
    """A run on a narrow copy of its base: every layer, name and token of it, a few numbers wide, on the CPU.

    plan: its components. module_names: of the copy, as loaded. unmatched: patterns of `tuner.target_modules` that are
    no module's name; the copy is trained without them.
    """

    @property
    def plan(self) -> Plan: ...

    @property
    def module_names(self) -> Sequence[str]: ...

    @property
    def unmatched(self) -> Sequence[str]: ...

    @property
    def encoder(self) -> Encoder: ...

    def wrap(self) -> nn.Module:
        """Wrap the model as the tuner does. Once."""
        ...

    def trainer(self, model: nn.Module, example: Example) -> RehearsedTrainer:
        """The trainer of a wrapped model on one example. Raises RunError when a surgery does not act on the model."""
        ...


@runtime_checkable
class TrainingEngine(Engine, Protocol):
    """What may be asked of an engine."""

    def train(self, plan: Plan, *, resume: Path | None, callbacks: Sequence[TrainerCallback]) -> None:
        """Train a plan in this process, as one rank or the only one, until its last step.

        resume: the complete checkpoint to continue from. callbacks: told what happens, by transformers' own names.
        Raises InputError for data and settings that the user can mend, RunError when training fails.
        """
        ...

    def rehearse(self, loaded: Loaded, base: Path, folder: Path) -> Rehearsal:
        """Build what `coordcore run` builds, on a narrow copy of the checkpoint `base`, both in `folder`.

        What belongs to the machine of the run is left out: its GPUs, processes and half precision.
        """
        ...

    def bind(self, plan: Plan, checkpoint: Path) -> nn.Module:
        """The live model of a run's checkpoint for inference, in eval mode: adapter loaded, surgeries bound and proven.

        Raises RunError when something learned is missing, or a surgery does not act.
        """
        ...

    def encoder(self, checkpoint: Path, adapters: Sequence[TemplateAdapter] = ()) -> Encoder:
        """The template of a checkpoint in training mode, changed by `adapters` one after the other. Outside a run."""
        ...


class Skeleton(Protocol):
    """A run's model as it trains, wrapped by its tuner and with its surgeries; the base's weights take no memory.

    vision, aligner: paths of modules in the plain model. autocast: the dtype of mixed precision, None without it.
    encoder: of the base's tokenizer and processor, read when it is first asked for.
    """

    @property
    def model(self) -> nn.Module: ...

    @property
    def vision(self) -> Sequence[str]: ...

    @property
    def aligner(self) -> Sequence[str]: ...

    @property
    def autocast(self) -> torch.dtype | None: ...

    @property
    def encoder(self) -> Encoder: ...


@runtime_checkable
class Planning(Protocol):
    """What `coordcore plan` asks of an engine, beside what it trains with."""

    def skeleton(self, plan: Plan) -> Skeleton:
        """The model of a plan, whose `base` needs no weights. Raises InputError for one that cannot be tuned so."""
        ...


def planning_of(plugins: Plugins) -> Planning:
    """The engine that plans. Raises InputError when none is installed, or the one that is cannot plan."""
    engine = plugins.engine
    if not isinstance(engine, Planning):
        raise InputError(f"the installed engine, {type(engine).__name__}, has no skeleton: it cannot plan")
    return engine


def engine_of(plugins: Plugins) -> TrainingEngine:
    """The engine that trains. Raises InputError when none is installed, or the one that is can only check."""
    engine = plugins.engine
    if not isinstance(engine, TrainingEngine):
        wanted = ("train", "rehearse", "bind", "encoder")
        missing = " and no ".join(name for name in wanted if not hasattr(engine, name))
        raise InputError(f"the installed engine, {type(engine).__name__}, has no {missing}: it cannot train")
    return engine
