"""The parameters of a run's model, counted in its skeleton by the parts of the model. Imports torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from coordcore_train.engine import Skeleton
from coordcore_train.estimate.memory import ModelMemory, Part
from coordcore_train.estimate.objective import ObjectiveShape
from coordcore_train.estimate.optimizers import Trained
from coordcore_train.objective.in_forward import soft_cap_of
from coordcore_train.run.plan import Plan

VISION, ALIGNER = "vision tower", "aligner"


def plain(skeleton: Skeleton) -> Any:
    """The model without PEFT around it."""
    model: Any = skeleton.model
    return getattr(model, "get_base_model", lambda: model)()


def vision_parts(skeleton: Skeleton) -> list[nn.Module]:
    """The vision tower and the aligner; what a family has in some sizes alone, as Gemma 4 its ears, may be missing."""
    named = dict(plain(skeleton).named_modules())
    return [named[path] for path in (*skeleton.vision, *skeleton.aligner) if path in named]


def language_layers(skeleton: Skeleton) -> list[nn.Module]:
    """The layers that are in neither of these."""
    others = {id(module) for part in vision_parts(skeleton) for module in part.modules()}
    return [
        module
        for module in plain(skeleton).modules()
        if isinstance(module, GradientCheckpointingLayer) and id(module) not in others
    ]


def model_memory(skeleton: Skeleton, plan: Plan) -> ModelMemory:
    """Every parameter once, tied ones too."""
    base = plain(skeleton)
    matrices = {id(base.get_input_embeddings().weight), id(base.get_output_embeddings().weight)}
    surgeries = [name for surgery in plan.surgeries for name in surgery.modules_to_save]
    adapted = plan.manifest.tuner.type == "lora"

    def part_of(name: str, parameter: Tensor) -> str:
        path = name.removeprefix("base_model.model.")
        if any(path.startswith(f"{surgery}.") for surgery in surgeries):
            return "surgeries"
        if adapted and parameter.requires_grad:
            return "adapters"
        if any(path.startswith(f"{place}.") for place in skeleton.aligner):
            return ALIGNER
        if any(path.startswith(f"{place}.") for place in skeleton.vision):
            return VISION
        return "embedding and head" if id(parameter) in matrices else "language model"

    by_part: dict[str, list[Tensor]] = {}
    for name, parameter in skeleton.model.named_parameters():
        by_part.setdefault(part_of(name, parameter), []).append(parameter)
    layers = list(_layers(skeleton.model))
    parameters = [parameter for found in by_part.values() for parameter in found]
    dtype = base.get_input_embeddings().weight.dtype
    return ModelMemory(
        parts=tuple(_part(name, found) for name, found in by_part.items()),
        trained=tuple(
            Trained(shape=tuple(parameter.shape), size=parameter.element_size())
            for parameter in parameters
            if parameter.requires_grad
        ),
        size=dtype.itemsize,
        layer=max(layers, default=0),
        rest=sum(parameter.numel() for parameter in parameters) - sum(layers),
    )


def objective_shape(skeleton: Skeleton, plan: Plan, *, positions: int, hidden_bytes: int) -> ObjectiveShape:
    """What the objective of a plan works on. hidden_bytes: of the hidden states in front of the head."""
    model = skeleton.model
    head = plain(skeleton).get_output_embeddings()
    vocabulary, hidden = head.weight.shape
    size = hidden_bytes // (positions * hidden)
    offsets = [surgery.head_offset(model) for surgery in plan.surgeries]
    return ObjectiveShape(
        positions=positions,
        hidden=hidden,
        vocabulary=vocabulary,
        bins=0 if plan.vocab is None else len(plan.vocab.ids),
        offsets=sum(offset.rows.numel() for offset in offsets if offset is not None),
        size=size,
        gradient=4 if plan.manifest.model.dtype == "float16" else size,
        dense=type(head) is not nn.Linear
        or soft_cap_of(model) is not None
        or any("logits" in term.needs for _, term in plan.objective.terms),
        trains_head=head.weight.requires_grad,
    )


def _part(name: str, parameters: list[Tensor]) -> Part:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return Part(
        name=name,
        parameters=sum(parameter.numel() for parameter in parameters),
        trained=sum(parameter.numel() for parameter in trained),
        bytes=sum(parameter.nbytes for parameter in parameters),
        trained_bytes=sum(parameter.nbytes for parameter in trained),
    )


def _layers(model: nn.Module) -> Iterable[int]:
    """The numbers of each layer that FSDP and gradient checkpointing take as one."""
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            yield sum(parameter.numel() for parameter in module.parameters())
