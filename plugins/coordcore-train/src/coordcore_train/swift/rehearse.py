"""Rehearses a run: builds all that `coordcore run` builds, on a narrow copy of the base, and trains a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy
from transformers.training_args import OptimizerNames

from coordcore.manifest import Loaded, Manifest
from coordcore.manifest.sections import Launch
from coordcore.records.example import Example
from coordcore_train.engine import Group, Optimized, Step
from coordcore_train.run.folder import RunDir
from coordcore_train.run.plan import Plan, plan_of
from coordcore_train.run.resolved import fingerprint, resolved
from coordcore_train.swift.arguments import swift_arguments
from coordcore_train.swift.encode import TemplateEncoder
from coordcore_train.swift.miniature import write_miniature
from coordcore_train.swift.names import ALL_OF_A_KIND
from coordcore_train.swift.optimizer import check_groups, tagged_parameters
from coordcore_train.swift.pipeline import CoordSft
from coordcore_train.swift.register import enter
from coordcore_train.swift.rows import Rows
from coordcore_train.swift.template import to_row
from coordcore_train.swift.trainer import CoordTrainer

_ANY_LENGTH = 1_000_000
"""Tokens of an example here: one that is too long for the run is measured, not refused."""


@attrs.frozen(kw_only=True, slots=False)
class SwiftRehearsal:
    """A `Rehearsal`. pipeline: holds ms-swift's arguments, model, processor and template."""

    plan: Plan
    pipeline: CoordSft
    module_names: Sequence[str]
    unmatched: Sequence[str]

    @cached_property
    def encoder(self) -> TemplateEncoder:
        return TemplateEncoder(self.pipeline.template, to_row)

    def wrap(self) -> nn.Module:
        pipeline = self.pipeline
        model: nn.Module = pipeline.prepare_model(pipeline.args, pipeline.model, template=pipeline.template)
        return model

    def trainer(self, model: nn.Module, example: Example) -> SwiftRehearsedTrainer:
        rows = self.pipeline._post_process_datasets([Rows([example]), None])[0]
        arguments = self.pipeline.args.training_args
        trainer = CoordTrainer(model=model, args=arguments, template=self.pipeline.template, train_dataset=rows)
        trainer.args.save_strategy = SaveStrategy.NO
        return SwiftRehearsedTrainer(plan=self.plan, pipeline=self.pipeline, trainer=trainer)


@attrs.frozen(kw_only=True)
class SwiftRehearsedTrainer:
    """A `RehearsedTrainer`."""

    plan: Plan
    pipeline: CoordSft
    trainer: CoordTrainer

    @property
    def model(self) -> nn.Module:
        model: nn.Module = self.trainer.model
        return model

    def optimized(self) -> Optimized:
        parameters = tagged_parameters(self.trainer.model, self.plan)
        if not parameters:
            return Optimized(parameters=(), groups=())
        optimizer = self.trainer.create_optimizer()
        check_groups(parameters, optimizer)
        groups = [
            Group(name=str(group.get("name", index)), learning_rate=float(group["lr"]), size=len(group["params"]))
            for index, group in enumerate(optimizer.param_groups)
        ]
        return Optimized(parameters=tuple(parameters), groups=tuple(groups))

    def step(self) -> Step:
        witness = _Witness(self.trainer)
        self.pipeline.callbacks = [witness]
        self.pipeline.train(self.trainer)
        parts = {part.name: witness.logs[part.name] for part in self.plan.objective.parts if part.name in witness.logs}
        return Step(
            loss=witness.logs.get("loss", float("nan")), parts=parts, without_gradient=tuple(witness.without_gradient)
        )


class _Witness(TrainerCallback):
    """Looks at the gradients before the optimizer clears them, and keeps what is logged."""

    def __init__(self, trainer: CoordTrainer) -> None:
        self.trainer = trainer
        self.logs: dict[str, float] = {}
        self.without_gradient: Sequence[str] = ()

    def on_pre_optimizer_step(self, *_args: Any, **_kwargs: Any) -> None:
        self.without_gradient = [
            name
            for name, parameter in self.trainer.model.named_parameters()
            if parameter.requires_grad and parameter.grad is None
        ]

    def on_log(self, *_args: Any, logs: Mapping[str, float], **_kwargs: Any) -> None:
        self.logs.update(logs)


def rehearse(loaded: Loaded, base: Path, folder: Path) -> SwiftRehearsal:
    """Build what `coordcore run` builds. See `coordcore_train.engine.TrainingEngine.rehearse`."""
    manifest = for_this_machine(loaded.manifest)
    narrow = write_miniature(base, folder / "miniature", trusted=manifest.model.trust_remote_code)
    run = RunDir((folder / "run").resolve())
    text = resolved(manifest, loaded.plugins)
    run.prepare(text, fingerprint(manifest), narrow, layout={})
    plan = plan_of(manifest, run.path, narrow)
    enter(plan)
    pipeline = CoordSft(swift_arguments(plan, has_validation=False, resume=None), plan)
    names = [name for name, _ in pipeline.model.named_modules() if name]
    matched, unmatched = _targets(pipeline.args.target_modules, names)
    if manifest.tuner.type == "lora":
        pipeline.args.target_modules = matched or ["all-linear"]
    return SwiftRehearsal(plan=plan, pipeline=pipeline, module_names=tuple(names), unmatched=tuple(unmatched))


def for_this_machine(manifest: Manifest) -> Manifest:
    """The manifest with everything that one process on a CPU cannot do set to what it can."""
    optim = manifest.train.optim
    known = [optimizername.value for optimizername in OptimizerNames]
    flash = manifest.model.attention == "flash_attention_2"
    train = attrs.evolve(
        manifest.train,
        device="cpu",
        optim=optim if optim in known else OptimizerNames.ADAMW_TORCH.value,
        steps=1,
        batch_size=1,
        accumulation=1,
        group_by_length=False,
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


def _targets(patterns: Sequence[str], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The target modules that are names of modules, as PEFT compares them, and those that are not."""
    found: tuple[list[str], list[str]] = [], []
    for pattern in patterns:
        is_there = pattern in ALL_OF_A_KIND or any(name == pattern or name.endswith(f".{pattern}") for name in names)
        found[not is_there].append(pattern)
    return found
