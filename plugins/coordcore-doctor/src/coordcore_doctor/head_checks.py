"""The check of the way through the output head, on a narrow copy of the base. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from coordcore.errors import RunError
from coordcore_doctor.examined import ExaminedRun
from coordcore_doctor.findings import Finding, error, ok
from coordcore_train.objective.in_forward import capped, head_of, soft_cap_of

ROUNDING = 1e-3
"""Of the largest logit. A path past the offsets is off by more than one."""


def check_head(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether training, forward and generation all go through the output head and what surgeries add to it."""
    _ = run.step  # made here: the trainer itself refuses a loss that was computed past the head
    model: Any = run.trainer.model
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    plain.eval()
    _move_offsets(run)
    cure = f"something replaces the forward of {type(plain).__name__} (Liger or its kin); take it out"
    for where, logits_of in (("the forward", _forward), ("generation", _generation)):
        with _watched(plain) as hidden:
            logits = logits_of(plain, _ids(run))
        if not hidden:
            yield error(name, f"{where} does not call the output head", cure)
            return
        difference = _difference(plain, run, hidden[0][:, -1], logits)
        if not difference < ROUNDING:
            yield error(name, f"{where} gives logits that differ by {difference:.2g} from the output head's", cure)
            return
    yield ok(name, "training, forward and generation go through it")


@torch.no_grad()
def _move_offsets(run: ExaminedRun) -> None:
    """Away from zero, where a path past them would show nothing. The copy is thrown away."""
    generator = torch.Generator().manual_seed(0)
    for surgery in run.rehearsal.plan.surgeries:
        for parameters in surgery.parameters(run.trainer.model).values():
            for parameter in parameters:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter))


@torch.no_grad()
def _forward(model: Any, ids: Tensor) -> Tensor:
    """The logits behind the last token of `ids`, [1, V], from a forward."""
    logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -1]
    return logits


@torch.no_grad()
def _generation(model: Any, ids: Tensor) -> Tensor:
    """The same from one generated token."""
    made = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=1,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    logits: Tensor = made.logits[0]
    return logits


@contextmanager
def _watched(model: Any) -> Iterator[list[Tensor]]:
    """Within this context the list receives what the output head is given."""
    hidden: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _module, args: hidden.append(args[0].detach())
    )
    try:
        yield hidden
    finally:
        hook.remove()


@torch.no_grad()
def _difference(model: Any, run: ExaminedRun, hidden: Tensor, logits: Tensor) -> float:
    """The largest difference from the head as the objective projects it, of its largest logit."""
    module = model.get_output_embeddings()
    head = head_of(module, run.trainer.model, module.forward, run.rehearsal.plan.surgeries)
    cap = soft_cap_of(model)
    ours = (head if cap is None else capped(head, cap)).full(hidden.float())
    return float((ours - logits.float()).abs().max() / ours.abs().max())


def _ids(run: ExaminedRun) -> Tensor:
    """A short text with a few coord tokens: [1, T] int64."""
    ids = run.rehearsal.encoder.tokenizer("Where is it? ", add_special_tokens=False)["input_ids"]
    coords = [] if run.vocab is None else list(run.vocab.ids[100:500:100])
    if not ids and not coords:
        raise RunError("the tokenizer makes no tokens of a plain question; is it the model's own?")
    return torch.tensor([[*ids, *coords]])
