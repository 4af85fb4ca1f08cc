"""Several examples in one row, kept apart by their positions: what each costs alone, by every attention there is."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from models import Live, inputs_of, live
from setting import Setting, check, error
from torch import Tensor

from coordcore_train.objective import make_targets


def packing(setting: Setting) -> dict[str, Any]:
    """Loss and gradients of four packed examples against four rows of a batch. left_out: what is not there."""
    checks, left_out = [], []
    for attention, dtype, there in _attentions(setting):
        if there is not None:
            left_out.append(f"{attention}: {there}")
            continue
        rows = live(setting, dtype=dtype, attention=attention)
        loss, gradients = rows.step(rows.objective()), rows.gradients()
        packed = _packed(live(setting, dtype=dtype, attention=attention))
        length = rows.labels.shape[1]
        positions = torch.arange(length, device=setting.device).repeat(len(rows.labels))[None]
        found = packed.step(packed.objective(), input_ids=packed.ids, position_ids=positions)
        differ = max(error(packed.gradients()[name], gradients[name]) for name in gradients)
        half = dtype != torch.float32
        checks.append(check(f"loss ({attention})", error(found, loss), 5e-3 if half else 1e-5))
        checks.append(check(f"largest difference of a gradient ({attention})", differ, 5e-2 if half else 1e-3))
    return {"checks": checks, "left_out": left_out}


def _attentions(setting: Setting) -> list[tuple[str, torch.dtype, str | None]]:
    """Name, dtype, and why it is left out, None where it is not."""
    from transformers.utils import is_flash_attn_2_available

    flash = None if setting.cuda and is_flash_attn_2_available() else "needs a GPU and the package flash-attn"
    return [("sdpa", torch.float32, None), ("eager", torch.float32, None), ("flash_attention_2", torch.bfloat16, flash)]


def _packed(made: Live) -> Live:
    labels: Tensor = made.labels.reshape(1, -1)
    targets = {name: target.to(made.ids.device) for name, target in make_targets(labels, made.vocab).items()}
    return attrs.evolve(made, labels=labels, ids=inputs_of(labels).to(made.ids.device), targets=targets)
