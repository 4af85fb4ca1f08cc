"""Checks of tuner, surgeries, optimizer and gradients, on a narrow copy of the base. Imports torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches

from coordcore_doctor.examined import ExaminedRun
from coordcore_doctor.findings import Finding, error, not_applicable, ok, some, warning


def check_targets(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether every pattern of `tuner.target_modules` is a module's name: PEFT passes over one that is not."""
    if run.manifest.tuner.type != "lora":
        yield not_applicable(name, "the full tuner trains the model's own weights")
        return
    unmatched = run.rehearsal.unmatched
    for pattern in unmatched:
        known = {module.rpartition(".")[2] for module in run.rehearsal.module_names}
        close = get_close_matches(pattern.rpartition(".")[2], sorted(known), n=1)
        cure = f"write {close[0]!r}" if close else 'name modules of the model, or "all-linear"'
        yield error(name, f"tuner.target_modules: {pattern!r} is no module of this model", cure)
    if not unmatched:
        adapted = sum(hasattr(module, "lora_A") for module in run.wrapped.modules())
        yield ok(name, f"{', '.join(run.manifest.tuner.target_modules)}: LoRA on {adapted} layers")


def check_surgeries(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether the surgeries act on the model as the tuner wrapped it, and the objective's head is the model's."""
    if not run.rehearsal.plan.surgeries:
        yield not_applicable(name, "the manifest has no [surgery] section")
        return
    found = [type(getattr(surgery, "surgery", surgery)).__name__ for surgery in run.rehearsal.plan.surgeries]
    _ = run.trainer  # made here: it binds them and proves that they act
    yield ok(name, f"{', '.join(found)}: live on the wrapped model, and the objective knows what it adds to the head")


def check_optimizer(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether every trainable parameter is in exactly one group of the optimizer, with a learning rate."""
    optimized = run.trainer.optimized()
    parameters, groups = optimized.parameters, optimized.groups
    if not parameters:
        yield error(name, "nothing is trainable", "look at [tuner]")
        return
    idle = [group.name for group in groups if group.learning_rate == 0]
    text = ", ".join(f"{group.name} {group.size} at {group.learning_rate:g}" for group in groups)
    if idle:
        yield warning(name, f"{some(idle)} would not move: {text}", "give them a learning rate, or freeze them")
    else:
        tags = Counter(parameter.tag for parameter in parameters)
        yield ok(name, f"{len(parameters)} tensors ({some([*tags])}) in {len(groups)} groups: {text}")


def check_step(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether the trainer gets through a step: one call of the output head, a finite loss and gradient."""
    yield ok(name, f"loss {run.step.loss:.3g} on a narrow random copy of the base")


def check_gradients(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether a step reaches every trainable parameter."""
    missed = list(run.step.without_gradient)
    if missed:
        modules = run.rehearsal.plan.modules_to_save
        of_surgery = [tensor for tensor in missed if any(module in tensor for module in modules)]
        make = error if of_surgery else warning
        seen = f"{len(missed)} trainable tensors got no gradient: {some(of_surgery or missed)}"
        yield make(name, seen, "freeze them, or give the loss a way to them")
    else:
        yield ok(name, "a step reaches every trainable tensor")
