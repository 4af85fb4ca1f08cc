"""The objective against float64, term by term and in each dtype; and inside a model's own forward."""

from __future__ import annotations

from typing import Any

import torch
from models import live
from reference import TERMS, Batch, default_loss, dense, expected_parts, make_batch, objective
from setting import Setting, allowed_error, check, error
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def terms(setting: Setting) -> dict[str, Any]:
    """Loss and gradients of each term alone, of frozen and trained heads, with offsets, in three dtypes."""
    checks = []
    for dtype in DTYPES:
        for trained in (False, True):
            batch = make_batch(
                setting,
                tokens=setting.size(2048, 96),
                supervised=setting.size(1600, 64),
                vocabulary=setting.size(20_480, 1400),
                width=setting.size(512, 32),
                dtype=dtype,
                trainable_head=trained,
                boxes=True,
            )
            checks += _of(batch, f"{str(dtype).removeprefix('torch.')}, {'trained' if trained else 'frozen'} head")
    return {"checks": checks}


def _of(batch: Batch, where: str) -> list[dict[str, Any]]:
    exact = {name: leaf.detach().double().requires_grad_() for name, leaf in batch.leaves.items()}
    weight = exact.get("head", batch.head.weight.detach().double())
    logits = dense(batch, exact["hidden states"], weight, exact["offsets"])
    parts = expected_parts(batch.offset.ids, batch.targets, *logits)
    checks = []
    # What float16 holds of a gradient by one of 1600 positions: nothing, without a loss scale.
    scale = 4096.0 if batch.hidden.dtype == torch.float16 else 1.0
    # Several chunks, and blocks that do not divide the vocabulary.
    for name, term in TERMS.items():
        compute = objective(batch, term, chunk_rows=300, chunk_columns=7000)
        batch.forget_gradients()
        loss = compute(batch.hidden, batch.linear, batch.targets).loss
        (loss * scale).backward()
        by = torch.autograd.grad(parts[name] * scale, list(exact.values()), retain_graph=True, allow_unused=True)
        half = batch.hidden.dtype != torch.float32
        checks.append(check(f"{name}: loss ({where})", error(loss, parts[name]), 5e-4 if half else 2e-5))
        for leaf, gradient in zip(exact, by, strict=True):
            found = batch.leaves[leaf].grad
            assert found is not None
            right = torch.zeros_like(exact[leaf]) if gradient is None else gradient
            allowed = 2 * allowed_error(batch.hidden.dtype)
            checks.append(check(f"{name}: gradient by {leaf} ({where})", error(found, right), allowed))
    return checks


def in_forward(setting: Setting) -> dict[str, Any]:
    """Tied and untied heads, with and without offsets: every parameter's gradient in a whole model."""
    checks = []
    for tied in (True, False):
        for offsets in (False, True):
            where = f"{'tied' if tied else 'untied'} head, {'offsets' if offsets else 'no offsets'}"
            made = live(setting, tied=tied, offsets=offsets)
            loss = made.step(made.objective())
            found = made.gradients()
            expected, gradients = exact_step(setting, tied=tied, offsets=offsets)
            checks.append(check(f"loss ({where})", error(loss, expected), 2e-5))
            differ = set(found) ^ set(gradients)
            checks.append(check(f"parameters with a gradient on one side only ({where})", len(differ), 0))
            worst = max(error(found[name], gradients[name]) for name in set(found) & set(gradients))
            checks.append(check(f"largest error of a gradient ({where})", worst, 1e-3))
    return {"checks": checks}


def exact_step(setting: Setting, *, tied: bool, offsets: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """The same step of the same model in float64, through whole logits."""
    made = live(setting, tied=tied, offsets=offsets, dtype=torch.float64)
    hidden = made.model.model(input_ids=made.ids, use_cache=False).last_hidden_state.flatten(0, 1)
    logits = hidden @ made.model.lm_head.weight.T
    ids, targets = made.vocab.ids_tensor(hidden.device), made.targets
    if made.adapter is not None:
        logits = logits.index_add(-1, ids, hidden @ made.adapter.embed_offset.T)
    loss = default_loss(expected_parts(ids, targets, logits[targets["coord_index"]], logits[targets["text_index"]]))
    loss.backward()
    return loss, made.gradients()
