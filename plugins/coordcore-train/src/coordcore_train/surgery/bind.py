"""Binds a run's surgeries to the model as the tuner left it, and proves that they act. Stops the run if not."""

from __future__ import annotations

import logging

import torch
from torch import nn

from coordcore import kinds
from coordcore.errors import InputError, RunError
from coordcore.protocols import ModelSurgery
from coordcore_train.objective.proof import prove_term
from coordcore_train.run.built import of_plugin
from coordcore_train.run.plan import Plan
from coordcore_train.surgery.proof import prove
from coordcore_train.surgery.rows import LiveRows, require_tag

_STEPS = 1000  # of a run that counts epochs, for a look at weights that follow the steps


def bind_for_training(model: nn.Module, plan: Plan, device: torch.device) -> None:
    """`bind`, then set what the surgeries want trainable; prove the losses, and the model against the objective.

    device: where the model will train, which it may not have reached yet.
    Raises RunError. Warns where the proof is not whole.
    """
    freeze(model, plan)
    bind(model, plan)
    _require_one_head(model, plan)
    for path, surgery in named_surgeries(plan).items():
        for tag, parameters in surgery.parameters(model).items():
            try:
                require_tag(tag)
            except InputError as error:
                raise RunError(f"{path}: {error}") from error
            stuck = [parameter for parameter in parameters if not parameter.requires_grad]
            if stuck:
                raise RunError(f"{path}: {len(stuck)} parameters that it calls {tag!r} would not train; check [tuner]")
    prove_losses(model, plan, device)
    reason = prove(model, named_surgeries(plan), plan.vocab, device=device)
    if reason is not None and plan.context.rank == 0:
        logging.getLogger(__name__).warning("the model was not proven against the objective: %s", reason)


def bind(model: nn.Module, plan: Plan) -> None:
    """Rebind every surgery to `model`, which PEFT may have wrapped. Raises RunError when one does not act on it."""
    for path, surgery in named_surgeries(plan).items():
        surgery.rebind(model)
        try:
            surgery.verify(model)
        except RuntimeError as error:
            raise RunError(f"{path} is not live: {error}") from error


def _require_one_head(model: nn.Module, plan: Plan) -> None:
    """Raise RunError, with all of them, when several surgeries add rows to the output head."""
    on_head = [path for path, surgery in named_surgeries(plan).items() if surgery.head_offset(model) is not None]
    if len(on_head) > 1:
        raise RunError(
            f"{' and '.join(on_head)} all add rows to the output head, of which the objective takes those of one; "
            "keep one, or let one surgery give the rows of all"
        )


def prove_losses(model: nn.Module, plan: Plan, device: torch.device) -> None:
    """Prove every loss term of the run on a sample. Raises RunError, with the section and its plugin."""
    config = model.config.get_text_config()  # type: ignore[union-attr, operator]  # of nn.Module's __getattr__
    steps = plan.manifest.train.steps or _STEPS
    for selected, terms in plan.terms:
        with of_plugin(selected):
            for term in terms:
                name, size = selected.component.name, config.vocab_size
                prove_term(name, term, plan.vocab, vocabulary_size=size, steps=steps, device=device)


def named_surgeries(plan: Plan) -> dict[str, ModelSurgery]:
    """The run's surgeries by the path of their section, "surgery.coord_offset"."""
    paths = [selected.path for selected in plan.manifest.of(kinds.SURGERY)]
    return dict(zip(paths, plan.surgeries, strict=True))


def freeze(model: nn.Module, plan: Plan) -> None:
    """Under the full tuner, freeze what surgeries stand in for and train what they add; LoRA does both itself."""
    if plan.manifest.tuner.type != "full":
        return
    frozen = {suffix for surgery in plan.surgeries for suffix in surgery.frozen}
    for name, module in model.named_modules():
        if any(name == suffix or name.endswith(f".{suffix}") for suffix in frozen):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
    for surgery in plan.surgeries:
        if isinstance(surgery, LiveRows):
            surgery.freeze(model)
        for parameters in surgery.parameters(model).values():
            for parameter in parameters:
                parameter.requires_grad_(True)
