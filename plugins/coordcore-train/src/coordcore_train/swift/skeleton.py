"""A run's model as it trains, without weights: ms-swift's tuner around a skeleton of the base. Imports ms-swift."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coordcore.errors import InputError, RunError
from coordcore.manifest.sections import Launch
from coordcore_train.checkpoint.merge.skeleton import skeleton
from coordcore_train.run.plan import Plan
from coordcore_train.surgery.bind import freeze
from coordcore_train.swift.arguments import swift_arguments
from coordcore_train.swift.encode import TemplateEncoder
from coordcore_train.swift.pipeline import CoordSft
from coordcore_train.swift.register import enter
from coordcore_train.swift.template import to_row


@attrs.frozen(kw_only=True, slots=False)
class SwiftSkeleton:
    """A `coordcore_train.engine.Skeleton`. arguments: ms-swift's."""

    model: nn.Module
    plan: Plan
    arguments: Any

    @property
    def vision(self) -> tuple[str, ...]:
        return tuple(self.arguments.model_meta.model_arch.vision_tower)

    @property
    def aligner(self) -> tuple[str, ...]:
        return tuple(self.arguments.model_meta.model_arch.aligner)

    @property
    def autocast(self) -> torch.dtype | None:
        if self.arguments.bf16:
            return torch.bfloat16
        return torch.float16 if self.arguments.fp16 else None

    @cached_property
    def encoder(self) -> TemplateEncoder:
        template = self.arguments.get_template()
        template.set_mode("train")
        return TemplateEncoder(template, to_row)


def _without_meta(model: nn.Module) -> None:
    """Make each parameter and buffer on the meta device one number on the CPU, expanded to its shape."""
    for module in model.modules():
        tables: list[Any] = [module._parameters, module._buffers]
        for table in tables:
            for name, tensor in table.items():
                if tensor is not None and tensor.is_meta:
                    number: Tensor = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
                    if isinstance(tensor, nn.Parameter):
                        number = nn.Parameter(number, requires_grad=tensor.requires_grad)
                    table[name] = number


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what ms-swift, transformers and PEFT raise for settings that are not theirs into InputError."""
    try:
        yield
    except (InputError, RunError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise InputError(f"{what}: {type(error).__name__}: {lines[0]}") from error


def trained_skeleton(plan: Plan) -> SwiftSkeleton:
    """See `coordcore_train.engine.Planning.skeleton`."""
    manifest = plan.manifest
    # What belongs to the machine of the run decides nothing about which parameters there are.
    here = attrs.evolve(manifest, launch=Launch(), train=attrs.evolve(manifest.train, device="cpu", workers=0))
    plan = attrs.evolve(plan, manifest=here)
    enter(plan)
    arguments = swift_arguments(plan, has_validation=False, resume=None)
    with _told("model.base: no model can be built from its config.json"):
        model = skeleton(plan)
    model.model_meta, model.model_info = arguments.model_meta, arguments.model_info
    for surgery in plan.surgeries:
        surgery.install(model, plan.vocab)
    with _told("tuner: the model cannot be tuned so"), torch.device("meta"):  # a large rank takes gigabytes
        tuned: Any = CoordSft.prepare_model(arguments, model)
    _without_meta(tuned)
    freeze(tuned, plan)
    if not any(parameter.requires_grad for parameter in tuned.parameters()):
        raise InputError("tuner: no parameter of the model would train; train adapters, or less frozen parts")
    return SwiftSkeleton(model=tuned, plan=plan, arguments=arguments)
