"""Binds a run's surgeries to the model as the tuner left it, and proves that they act. Stops the run if not."""

from __future__ import annotations

import torch
from torch import nn

from coordcore.errors import RunError
from coordcore_train.run.plan import Plan


def bind_for_training(model: nn.Module, plan: Plan) -> None:
    """`bind`, then set what the surgeries want trainable and check that it is. Raises RunError."""
    _freeze(model, plan)
    bind(model, plan)
    for surgery in plan.surgeries:
        for tag, parameters in surgery.parameters(model).items():
            stuck = [parameter for parameter in parameters if not parameter.requires_grad]
            if stuck:
                raise RunError(f"{len(stuck)} parameters that surgery calls {tag!r} would not train; check [tuner]")


def bind(model: nn.Module, plan: Plan) -> None:
    """Rebind every surgery to `model`, which PEFT may have wrapped, and prove that it acts.

    Raises RunError when a surgery is not live, or when the objective's view of the output head is not what the model
    itself computes.
    """
    for surgery in plan.surgeries:
        surgery.rebind(model)
        try:
            surgery.verify(model)
        except RuntimeError as error:
            raise RunError(f"surgery {type(surgery).__name__} is not live: {error}") from error
    if plan.surgeries:
        _check_head(model, plan)


def _freeze(model: nn.Module, plan: Plan) -> None:
    """Under the full tuner, freeze what surgeries stand in for and train what they add; LoRA does both itself."""
    if plan.manifest.tuner.type != "full":
        return
    frozen = {suffix for surgery in plan.surgeries for suffix in surgery.frozen}
    for name, module in model.named_modules():
        if any(name == suffix or name.endswith(f".{suffix}") for suffix in frozen):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
    for surgery in plan.surgeries:
        for parameters in surgery.parameters(model).values():
            for parameter in parameters:
                parameter.requires_grad_(True)


@torch.no_grad()
def _check_head(model: nn.Module, plan: Plan) -> None:
    """Compare the head as the model runs it, hooks and all, with the head as the objective projects it."""
    from coordcore_train.objective.in_forward import head_of

    module: nn.Module = model.get_output_embeddings()  # type: ignore[operator]
    weight = next(module.parameters())
    if weight.shape[0] == 0 or hasattr(weight, "device_mesh"):  # sharded by ZeRO-3 or FSDP: no rank holds the rows
        return
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, weight.shape[-1], generator=generator).to(weight.device, weight.dtype)
    # Moved away from zero, where a surgery starts and a hook that nobody declares would change nothing yet.
    added = [
        parameter
        for surgery in plan.surgeries
        for parameters in surgery.parameters(model).values()
        for parameter in parameters
    ]
    before = [parameter.detach().clone() for parameter in added]
    try:
        for parameter in added:
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * 0.1)
        live = module(hidden).float()
        ours = head_of(module, model, module.forward, plan.surgeries).full(hidden).float()
    finally:
        for parameter, value in zip(added, before, strict=True):
            parameter.copy_(value)
    tolerance = 1e-4 if weight.dtype == torch.float32 else 0.05
    difference = float((live - ours).abs().max())
    scale = float(live.abs().max())
    if not difference <= tolerance * scale:
        raise RunError(
            f"the objective's logits differ from the model's by {difference:.3g}: something changes the output head "
            "that no surgery declares with head_offset; the run would train another model than it serves"
        )
