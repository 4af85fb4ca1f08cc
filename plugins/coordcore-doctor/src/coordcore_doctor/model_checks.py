"""Checks of tuner, surgeries, optimizer and gradients, on a narrow copy of the base. Imports torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from coordcore_doctor.findings import Finding, error, not_applicable, ok, some, warning
from coordcore_doctor.patient import Patient
from coordcore_train.swift.optimizer import check_groups, tagged_parameters


def check_targets(patient: Patient, name: str) -> Iterator[Finding]:
    """Whether every pattern of `tuner.target_modules` is a module's name: PEFT passes over one that is not."""
    if patient.manifest.tuner.type != "lora":
        yield not_applicable(name, "the full tuner trains the model's own weights")
        return
    unmatched = patient.rehearsal.unmatched
    for pattern in unmatched:
        known = {one.rpartition(".")[2] for one, _ in patient.rehearsal.pipeline.model.named_modules() if one}
        close = get_close_matches(pattern.rpartition(".")[2], sorted(known), n=1)
        cure = f"write {close[0]!r}" if close else 'name modules of the model, or "all-linear"'
        yield error(name, f"tuner.target_modules: {pattern!r} is no module of this model", cure)
    if not unmatched:
        adapted = sum(hasattr(module, "lora_A") for module in patient.wrapped.modules())
        yield ok(name, f"{', '.join(patient.manifest.tuner.target_modules)}: LoRA on {adapted} layers")


def check_surgeries(patient: Patient, name: str) -> Iterator[Finding]:
    """Whether the surgeries act on the model as the tuner wrapped it, and the objective's head is the model's."""
    if not patient.rehearsal.plan.surgeries:
        yield not_applicable(name, "the manifest has no [surgery] section")
        return
    found = [type(getattr(one, "surgery", one)).__name__ for one in patient.rehearsal.plan.surgeries]
    assert patient.trainer is not None  # made here: it binds them and proves that they act
    yield ok(name, f"{', '.join(found)}: live on the wrapped model, and the objective knows what it adds to the head")


def check_optimizer(patient: Patient, name: str) -> Iterator[Finding]:
    """Whether every trainable parameter is in exactly one group of the optimizer, with a learning rate."""
    trainer, plan = patient.trainer, patient.rehearsal.plan
    parameters = tagged_parameters(trainer.model, plan)
    if not parameters:
        yield error(name, "nothing is trainable", "look at [tuner]")
        return
    optimizer = trainer.create_optimizer()
    check_groups(parameters, optimizer)
    groups = [_group(index, group) for index, group in enumerate(optimizer.param_groups)]
    idle = [label for label, lr, _ in groups if lr == 0]
    text = ", ".join(f"{label} {count} at {lr:g}" for label, lr, count in groups)
    if idle:
        yield warning(name, f"{some(idle)} would not move: {text}", "give them a learning rate, or freeze them")
    else:
        tags = Counter(one.tag for one in parameters)
        yield ok(name, f"{len(parameters)} tensors ({some([*tags])}) in {len(groups)} groups: {text}")


def _group(index: int, group: dict[str, Any]) -> tuple[str, float, int]:
    return str(group.get("name", index)), float(group["lr"]), len(group["params"])


def check_step(patient: Patient, name: str) -> Iterator[Finding]:
    """Whether the trainer gets through a step: one call of the output head, a finite loss and gradient."""
    yield ok(name, f"loss {patient.step.loss:.3g} on a narrow random copy of the base")


def check_gradients(patient: Patient, name: str) -> Iterator[Finding]:
    """Whether a step reaches every trainable parameter."""
    missed = list(patient.step.without_gradient)
    if missed:
        of_surgery = [one for one in missed if any(part in one for part in patient.rehearsal.plan.modules_to_save)]
        make = error if of_surgery else warning
        seen = f"{len(missed)} trainable tensors got no gradient: {some(of_surgery or missed)}"
        yield make(name, seen, "freeze them, or give the loss a way to them")
    else:
        yield ok(name, "a step reaches every trainable tensor")
