"""The hooks: the commands of runs and checkpoints, and the engine. Torch-free; the work is imported inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordcore import Command, Problem, hookimpl
from coordcore.manifest import Loaded, Manifest
from coordcore.protocols import TemplateAdapter

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerCallback

    from coordcore_train.engine import Encoder, Rehearsal, Skeleton
    from coordcore_train.run.plan import Plan

_COMMANDS = {
    "run": "Train what a manifest says and merge the result. A run that was cut off continues.",
    "plan": "Tell what a run will need: memory per GPU, tokens per step, what to shard.",
    "expand": "Add the coord tokens to a checkpoint.",
    "merge": "Bake adapters and surgeries of a run into a plain transformers checkpoint.",
    "push": "Put a merged checkpoint on a hub, with a model card.",
}


def _loader(name: str) -> Callable[[], Any]:
    """The command's function, imported when it is used."""
    return lambda: getattr(import_module("coordcore_train.commands"), name)


@hookimpl
def coordcore_commands() -> Iterable[Command]:
    return [Command(name=name, load=_loader(name), summary=summary) for name, summary in _COMMANDS.items()]


class SwiftEngine:
    """ms-swift as the engine: `coordcore_train.engine.TrainingEngine`, method by method. The one way into `swift/`."""

    def check(self, run: Manifest) -> Iterator[Problem]:
        from coordcore_train.swift.check import check

        return check(run)

    def notes(self, run: Manifest) -> Iterator[str]:
        from coordcore_train.swift.check import notes

        return notes(run)

    def train(self, plan: Plan, *, resume: Path | None, callbacks: Sequence[TrainerCallback]) -> None:
        from coordcore_train.swift.pipeline import train

        train(plan, resume=resume, callbacks=callbacks)

    def rehearse(self, loaded: Loaded, base: Path, folder: Path) -> Rehearsal:
        from coordcore_train.swift.rehearse import rehearse

        return rehearse(loaded, base, folder)

    def skeleton(self, plan: Plan) -> Skeleton:
        from coordcore_train.swift.skeleton import trained_skeleton

        return trained_skeleton(plan)

    def bind(self, plan: Plan, checkpoint: Path) -> nn.Module:
        from coordcore_train.checkpoint.merge.in_memory import load_live

        return load_live(plan, checkpoint)  # plain transformers and PEFT: ms-swift has no part in it

    def encoder(self, checkpoint: Path, adapters: Sequence[TemplateAdapter] = ()) -> Encoder:
        from coordcore_train.swift.encode import stock_encoder

        return stock_encoder(checkpoint, adapters)


@hookimpl
def coordcore_engine() -> SwiftEngine:
    return SwiftEngine()
