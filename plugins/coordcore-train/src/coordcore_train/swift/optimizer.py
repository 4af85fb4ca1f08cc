"""The optimizer of a run inside ms-swift: tags every trainable parameter, and checks that each is in one group."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from swift.optimizers import OptimizerCallback
from torch import nn
from transformers import Trainer as HfTrainer

from coordcore import kinds
from coordcore.errors import RunError
from coordcore.manifest.types import show
from coordcore.protocols import RESERVED_TAGS, TaggedParameter
from coordcore_train.run.built import asked
from coordcore_train.run.plan import Plan


@attrs.frozen(kw_only=True)
class Settings:
    """The `OptimizerSettings` a factory is called with."""

    learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    total_steps: int
    cls: type[torch.optim.Optimizer]
    kwargs: dict[str, Any]

    def create(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return self.cls(groups, **self.kwargs)


class CoordOptimizer(OptimizerCallback):
    """Builds the optimizer the manifest selects."""

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        model = self.trainer.model if model is None else model
        plan: Plan = self.trainer.plan
        cls, kwargs = HfTrainer.get_optimizer_cls_and_kwargs(self.args, model)
        settings = Settings(
            learning_rate=self.args.learning_rate,
            weight_decay=self.args.weight_decay,
            betas=(self.args.adam_beta1, self.args.adam_beta2),
            total_steps=self.trainer.state.max_steps,
            cls=cls,
            kwargs=kwargs,
        )
        parameters = tagged_parameters(model, plan)
        who = plan.who(kinds.OPTIMIZER)
        optimizer: torch.optim.Optimizer = asked(who, lambda: plan.optimizer(parameters, settings), "the factory")
        with _named(who):
            check_groups(parameters, optimizer)
        return optimizer


def tagged_parameters(model: Any, plan: Plan) -> list[TaggedParameter]:
    """Every trainable parameter in the model's order, tagged by its surgery or by the part of the model it is in."""
    of_surgery = {
        id(parameter): tag
        for surgery in plan.surgeries
        for tag, parameters in surgery.parameters(model).items()
        for parameter in parameters
    }
    taken = sorted(set(of_surgery.values()).intersection(RESERVED_TAGS))
    if taken:
        raise RunError(f"a surgery tags its parameters {', '.join(taken)}, as the model's own are; use another tag")
    arch = model.model_meta.model_arch
    decay = set(HfTrainer.get_decay_parameter_names(None, model))

    def tag_of(name: str, parameter: nn.Parameter) -> str:
        if id(parameter) in of_surgery:
            return of_surgery[id(parameter)]
        plain = name.removeprefix("base_model.model.")
        if any(plain.startswith(f"{prefix}.") for prefix in arch.aligner):
            return "aligner"
        if any(plain.startswith(f"{prefix}.") for prefix in arch.vision_tower):
            return "vision"
        return "llm"

    return [
        TaggedParameter(name=name, parameter=parameter, tag=tag_of(name, parameter), decay=name in decay)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]


@contextmanager
def _named(who: str) -> Iterator[None]:
    try:
        yield
    except RunError as error:
        raise RunError(f"{who}: {error}") from error


def check_groups(parameters: list[TaggedParameter], optimizer: torch.optim.Optimizer) -> None:
    """Raise RunError unless every trainable parameter is in exactly one group, and can be trained there."""
    _require_optimizer(optimizer)
    times = Counter(id(parameter) for group in optimizer.param_groups for parameter in group["params"])
    problems = [
        f"{entry.name} is in {times[id(entry.parameter)]} groups"
        for entry in parameters
        if times[id(entry.parameter)] != 1
    ]
    strangers = set(times) - {id(entry.parameter) for entry in parameters}
    if strangers:
        problems.append(f"{len(strangers)} parameters of the groups are not trainable parameters of the model")
    problems += [f"{entry.name} was frozen by the factory" for entry in parameters if not entry.parameter.requires_grad]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise RunError(f"the optimizer must hold every trainable parameter exactly once: {shown}")


def _require_optimizer(optimizer: Any) -> None:
    """Raise RunError unless training can step with what a factory gave."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise RunError(f"the factory gave {show(optimizer)}, which is no torch.optim.Optimizer; return one")
    empty, usual = inspect.Parameter.empty, inspect.Parameter.POSITIONAL_OR_KEYWORD
    asked_for = inspect.signature(optimizer.step).parameters.values()
    if needed := [item.name for item in asked_for if item.default is empty and item.kind == usual]:
        kind = type(optimizer).__name__
        raise RunError(f"{kind}.step needs {', '.join(needed)}, which training does not give; take another optimizer")
    for number, group in enumerate(optimizer.param_groups):
        rate = group.get("lr")  # Adafactor has None where it finds its own, which no schedule can scale
        if rate is None or not 0 <= float(rate) < math.inf:
            raise RunError(f"group {number} has the learning rate {rate}; it must be a finite number >= 0")
