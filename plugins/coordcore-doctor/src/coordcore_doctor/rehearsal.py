"""A run rehearsed: everything `coordcore run` builds, on a narrow copy of the base, up to one step. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy
from transformers.training_args import OptimizerNames

from coordcore.manifest import Loaded, Manifest, fingerprint, resolved
from coordcore.manifest.sections import Launch
from coordcore.records.example import Example
from coordcore_doctor.miniature import write_miniature
from coordcore_train.run.folder import RunDir
from coordcore_train.run.plan import Plan
from coordcore_train.run.prepare import plan_of
from coordcore_train.swift.active import activate
from coordcore_train.swift.arguments import swift_arguments
from coordcore_train.swift.pipeline import CoordSft, Rows
from coordcore_train.swift.register import register
from coordcore_train.swift.trainer import CoordTrainer

_WIDE_MATCHES = ("all-linear", "all-embedding")
"""What ms-swift itself turns into names of modules."""

_ANY_LENGTH = 1_000_000
"""Tokens of an example here: one that is too long for the run is measured, not refused."""


@attrs.frozen(kw_only=True)
class Step:
    """What one training step showed. loss: before it. without_gradient: names of trainable parameters."""

    loss: float
    without_gradient: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Rehearsal:
    """plan: its components. pipeline: holds ms-swift's arguments, model, processor and template.

    unmatched: patterns of `tuner.target_modules` that are no module's name; they are left out.
    """

    plan: Plan
    pipeline: CoordSft
    unmatched: tuple[str, ...]

    @property
    def template(self) -> Any:
        """The template that encodes the run's examples."""
        return self.pipeline.template

    def wrapped(self) -> Any:
        """The model as the tuner wraps it."""
        return self.pipeline.prepare_model(self.pipeline.args, self.pipeline.model, template=self.template)

    def trainer(self, model: Any, example: Example) -> CoordTrainer:
        """The trainer of a wrapped model. Raises RunError when a surgery does not act on it."""
        rows = self.pipeline._post_process_datasets([Rows([example]), None])[0]
        arguments = self.pipeline.args.training_args
        trainer = CoordTrainer(model=model, args=arguments, template=self.template, train_dataset=rows)
        trainer.args.save_strategy = SaveStrategy.NO
        return trainer

    def step(self, trainer: CoordTrainer) -> Step:
        """Train one step. Raises RunError when the loss is computed past the head, or is not finite."""
        spy = _Spy(trainer)
        self.pipeline.callbacks = [spy]
        self.pipeline.train(trainer)
        return Step(loss=spy.loss, without_gradient=tuple(spy.without_gradient))


class _Spy(TrainerCallback):  # type: ignore[misc]
    """Looks at the gradients before the optimizer clears them, and at the first loss that is logged."""

    def __init__(self, trainer: CoordTrainer) -> None:
        self.trainer = trainer
        self.loss = float("nan")
        self.without_gradient: Sequence[str] = ()

    def on_pre_optimizer_step(self, *_args: Any, **_kwargs: Any) -> None:
        self.without_gradient = [
            name
            for name, parameter in self.trainer.model.named_parameters()
            if parameter.requires_grad and parameter.grad is None
        ]

    def on_log(self, *_args: Any, logs: dict[str, float], **_kwargs: Any) -> None:
        self.loss = logs.get("loss", self.loss)


def rehearse(loaded: Loaded, base: Path, folder: Path) -> Rehearsal:
    """Build what `coordcore run` builds, on a narrow copy of `base` in `folder`.

    What belongs to the machine of the run is left out: its GPUs, processes and half precision.
    """
    manifest = for_this_machine(loaded.manifest)
    narrow = write_miniature(base, folder / "miniature")
    run = RunDir((folder / "run").resolve())
    text = resolved(manifest, loaded.plugins)
    run.prepare(text, fingerprint(manifest), narrow, layout={}, overwrite=False)
    plan = plan_of(manifest, run.path, narrow)
    register()
    activate(plan)
    pipeline = CoordSft(swift_arguments(plan, has_validation=False, resume=None))
    matched, unmatched = _targets(pipeline)
    if manifest.tuner.type == "lora":
        pipeline.args.target_modules = matched or ["all-linear"]
    return Rehearsal(plan=plan, pipeline=pipeline, unmatched=tuple(unmatched))


def for_this_machine(manifest: Manifest) -> Manifest:
    """The manifest with everything that one process on a CPU cannot do set to what it can."""
    optim = manifest.train.optim
    flash = manifest.model.attention == "flash_attention_2"
    train = attrs.evolve(
        manifest.train,
        device="cpu",
        optim=optim if optim in optimizer_names() else OptimizerNames.ADAMW_TORCH.value,
        steps=1,
        batch_size=1,
        accumulation=1,
        workers=0,
        gradient_checkpointing=False,
        log_every=1,
        warmup=0.0,
        max_length=_ANY_LENGTH,
        evaluate_checkpoints=False,
        swift={name: value for name, value in manifest.train.swift.items() if name != "padding_free"},
    )
    model = attrs.evolve(manifest.model, dtype="float32", attention="sdpa" if flash else manifest.model.attention)
    return attrs.evolve(manifest, model=model, train=train, launch=Launch())


def optimizer_names() -> list[str]:
    """What `train.optim` may be."""
    return [one.value for one in OptimizerNames]


def _targets(pipeline: CoordSft) -> tuple[list[str], list[str]]:
    """The target modules that are names of modules, as PEFT compares them, and those that are not."""
    names = [name for name, _ in pipeline.model.named_modules()]
    found: tuple[list[str], list[str]] = [], []
    for pattern in pipeline.args.target_modules:
        is_there = pattern in _WIDE_MATCHES or any(name == pattern or name.endswith(f".{pattern}") for name in names)
        found[not is_there].append(pattern)
    return found
