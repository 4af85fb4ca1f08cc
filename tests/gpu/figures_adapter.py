"""A training step with offsets, against the frozen model and PEFT's trainable tokens."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from models import wide_qwen2
from reference import BINS, default_terms
from setting import Setting, side_by_side, variants
from torch import Tensor

from coordcore.coords import CoordVocab
from coordcore_coord_offset import CoordOffsetSurgery
from coordcore_train.objective import Objective, loss_in_forward, make_targets
from coordcore_train.surgery.rows import LiveRows

FROZEN, OURS, PEFT = "frozen", "ours", "PEFT trainable tokens"


def offsets(setting: Setting) -> dict[str, Any]:
    """Forward and backward of a model of 8 layers, H = 2048, a quarter of its tokens coord tokens; and of 0 layers."""
    rows = {}
    for layers in (setting.size(8, 1), 0):
        rows[f"{layers} layers"] = _step(setting, layers)
    rows["0 layers, all logits"] = _all_logits(setting)
    return {"rows": rows}


def _step(setting: Setting, layers: int) -> dict[str, Any]:
    vocab, ids, targets = _batch(setting)
    compute = Objective(default_terms(), vocab)

    def step(model: Any, surgeries: list[LiveRows]) -> Callable[[], None]:
        def run() -> None:
            model.zero_grad(set_to_none=True)
            with loss_in_forward(model, compute, targets, surgeries=surgeries) as outputs:
                model(input_ids=ids, use_cache=False)
            outputs[0].loss.backward()

        return run

    runs = []
    for name in (FROZEN, OURS):
        model, surgeries = _model(setting, vocab, layers, name)
        runs.append((name, step(model, surgeries)))
    return {
        "title": f"a step of a model of {layers} layers, H = {setting.size(2048, 64):,}, {ids.numel():,} tokens, V = "
        f"{vocab.ids[-1] + 1:,}, bfloat16, through the objective",
        "variants": side_by_side(runs, setting, repeats=25),
    }


def _all_logits(setting: Setting) -> dict[str, Any]:
    """Without the objective, which PEFT's rows would make build their matrix once a chunk."""
    vocab, ids, _ = _batch(setting)
    ids = ids[:, : setting.size(2048, 16)]
    runs = []
    for name in (FROZEN, OURS, *([PEFT] if find_spec("peft") else [])):
        model, _ = _model(setting, vocab, 0, name)

        def run(model: Any = model) -> None:
            model.zero_grad(set_to_none=True)
            logits = model(input_ids=ids, use_cache=False).logits
            logits.backward(torch.ones_like(logits))

        runs.append((name, run))
    return {
        "title": f"embedding and head, the logits of {ids.numel():,} tokens, V = {vocab.ids[-1] + 1:,}, bfloat16",
        "variants": variants(runs, setting, repeats=9, ours=(FROZEN, OURS)),
    }


def _batch(setting: Setting) -> tuple[CoordVocab, Tensor, dict[str, Tensor]]:
    size, tokens = setting.size(152_670, 1800), setting.size(8192, 64)
    first = size - BINS
    vocab = CoordVocab(ids=range(first, size))
    random = torch.Generator().manual_seed(0)
    is_coord = torch.arange(tokens) % 4 == 0
    ids = torch.where(
        is_coord,
        torch.randint(first, size, (tokens,), generator=random),
        torch.randint(first, (tokens,), generator=random),
    )[None]
    labels = ids.clone()
    labels[:, : tokens // 2] = -100
    targets = {name: target.to(setting.device) for name, target in make_targets(labels, vocab).items()}
    return vocab, ids.to(setting.device), targets


def _model(setting: Setting, vocab: CoordVocab, layers: int, kind: str) -> tuple[Any, list[LiveRows]]:
    """A frozen text model whose embeddings take a gradient, as under LoRA with gradient checkpointing."""
    width = setting.size(2048, 64)
    model = wide_qwen2(width=width, vocabulary=vocab.ids[-1] + 1, layers=layers, device=setting.device)
    model.to(torch.bfloat16)
    model.requires_grad_(False)
    model.enable_input_require_grads()
    if kind == OURS:
        surgery = LiveRows(CoordOffsetSurgery())
        surgery.install(model, vocab)
        return model, [surgery]
    if kind == PEFT:
        from peft import TrainableTokensConfig, get_peft_model

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
            config = TrainableTokensConfig(target_modules=["embed_tokens"], token_indices=list(vocab.ids))
            return get_peft_model(model, config), []
    return model, []
