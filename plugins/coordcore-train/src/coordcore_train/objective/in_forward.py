"""The objective inside a model's own forward, where DDP sees the loss and FSDP and ZeRO have gathered the head."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from coordcore.errors import InputError, RunError
from coordcore.protocols import ModelSurgery
from coordcore_train.objective.heads import CallableHead, Head, LinearHead
from coordcore_train.objective.objective import Objective, ObjectiveOutput


def head_of(
    module: nn.Module, model: nn.Module, project: Callable[[Tensor], Tensor], surgeries: Sequence[ModelSurgery]
) -> Head:
    """How the objective projects through `module`, whose own forward is `project`, with the rows a surgery adds.

    Ask inside the model's forward: under FSDP and ZeRO the parameters are whole only there.
    """
    offsets = [surgery.head_offset(model) for surgery in surgeries]
    present = [offset for offset in offsets if offset is not None]
    if len(present) > 1:
        raise RunError(f"{len(present)} surgeries add rows to the output head; at most one may")
    offset = present[0] if present else None
    # A forward set on the instance (device hooks, quantisation) or another class must be called, not imitated.
    if type(module) is nn.Linear and getattr(project, "__func__", None) is nn.Linear.forward:
        return LinearHead(module, offset)
    return CallableHead(project, offset, [parameter for parameter in module.parameters() if parameter.requires_grad])


_SOFT_CAP = "final_logit_softcapping"
"""Gemma's: logits become `cap * tanh(logits / cap)` behind the head. Read from the configuration in every forward."""

# What some models' configurations name that they do to logits behind their head.
_BEHIND_THE_HEAD = (
    "output_logit_soft_cap",
    "logits_soft_cap",
    "logits_scaling",
    "logit_scale",
    "logits_mup_width_multiplier",
    "lm_head_multiplier",
)


def soft_cap_of(model: nn.Module) -> float | None:
    """What a model caps its logits to behind the head, None for one that does not.

    Some models' configurations name a cap that their forward never looks at (PaliGemma 2), hence the look at its
    source. Raises InputError for a cap that is not above 0.
    """
    for config in _configs(model):
        value = getattr(config, _SOFT_CAP, None)
        if value is None or not _forward_names(model, _SOFT_CAP):
            continue
        if not value > 0:
            raise InputError(f"config.{_SOFT_CAP} is {value}; logits can be capped to a number above 0 only")
        return float(value)
    return None


def _forward_names(model: nn.Module, name: str) -> bool:
    base = getattr(model, "get_base_model", lambda: model)()
    try:
        return name in inspect.getsource(inspect.unwrap(type(base).forward))
    except (OSError, TypeError):  # written at run time
        return True


def capped(head: Head, cap: float) -> CallableHead:
    """`head` with what the model does to its logits: the cap comes after the rows that a surgery adds."""
    return CallableHead(lambda hidden: cap * torch.tanh(head.full(hidden) / cap), trained=list(head.parameters))


@contextmanager
def _without_soft_cap(model: nn.Module) -> Iterator[None]:
    """Within this context the model leaves what its head returns as it is, which then is the loss."""
    kept = [(config, value) for config in _configs(model) if (value := getattr(config, _SOFT_CAP, None)) is not None]
    for config, _ in kept:
        setattr(config, _SOFT_CAP, None)
    try:
        yield
    finally:
        for config, value in kept:
            setattr(config, _SOFT_CAP, value)


def _configs(model: nn.Module) -> list[Any]:
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return [config] if text is config else [config, text]


def require_plain_logits(model: nn.Module) -> None:
    """Raise InputError for a model that changes logits behind its head in a way that the objective does not know."""
    for name in _BEHIND_THE_HEAD:
        for config in _configs(model):
            value = getattr(config, name, None)
            if value is not None and value != 1:
                raise InputError(
                    f"{type(model).__name__}: config.{name} = {value} changes the logits behind the output head, which "
                    "the objective does not; call Objective yourself, with a CallableHead that does the same"
                )


@contextmanager
def loss_in_forward(
    model: nn.Module,
    objective: Objective,
    targets: Mapping[str, Tensor],
    counts: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
    *,
    surgeries: Sequence[ModelSurgery] = (),
) -> Iterator[list[ObjectiveOutput]]:
    """Within this context `model(...)` returns the loss, [1, 1, 1], where it would return logits.

    model: a transformers model, or one that PEFT wraps; not the DDP wrapper, whose module it is. targets, counts,
    weights: as for `Objective`. The list that is handed out receives one ObjectiveOutput per call of the head.

    The head's `forward` is replaced on the instance, so the projection runs inside the model's own forward, and no
    [B, T, V] tensor is ever made. What a model does to its logits afterwards would be done to the loss: a soft cap is
    part of the head here; raises InputError for a model whose configuration says something else.
    """
    require_plain_logits(model)
    module: nn.Module = model.get_output_embeddings()  # type: ignore[operator]  # of nn.Module's __getattr__
    project, before = module.forward, module.__dict__.get("forward")
    outputs: list[ObjectiveOutput] = []
    cap = soft_cap_of(model)

    @torch.compiler.disable
    def forward(hidden: Tensor) -> Tensor:
        head = head_of(module, model, project, surgeries)
        output: ObjectiveOutput = objective(
            hidden, head if cap is None else capped(head, cap), targets, counts, weights
        )
        outputs.append(output)
        return output.loss.view(1, 1, 1)

    module.forward = forward
    try:
        with _without_soft_cap(model):
            yield outputs
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
