"""PEFT's `trainable_token_indices` computes the same, and is the oracle."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from coordcore.testing.closeness import assert_close_to_scale
from coordcore_coord_offset import install_coord_offset_adapter, live_coord_offset_adapter


@pytest.mark.parametrize("tied", [True, False])
def test_logits_and_sgd_steps_are_those_of_peft(
    load: Callable[..., Any], coord_ids: list[int], tokens: torch.Tensor, tied: bool
) -> None:
    """Tied base: one table. Untied base: one row table per matrix, which is `tie_head=False`."""
    targets: Any = coord_ids if tied else {"embed_tokens": coord_ids, "lm_head": coord_ids}
    torch.manual_seed(1)
    oracle = get_peft_model(load(tied=tied), LoraConfig(target_modules=["q_proj"], trainable_token_indices=targets))
    exact = copy.deepcopy(oracle).double()

    base = load(tied=tied)
    install_coord_offset_adapter(base, coord_ids, tie_head=tied)
    torch.manual_seed(1)
    ours = get_peft_model(base, LoraConfig(target_modules=["q_proj"], modules_to_save=["coord_offset_adapter"]))

    start = base.get_input_embeddings().weight[coord_ids].detach()
    models = (ours, oracle, exact)
    optimizers = [torch.optim.SGD([p for p in item.parameters() if p.requires_grad], lr=1e-1) for item in models]
    for _ in range(4):
        losses = []
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            loss = model(input_ids=tokens, labels=tokens).loss
            loss.backward()
            optimizer.step()
            losses.append(loss)
        assert_close_to_scale(*losses, what="the loss")

    rows = [
        item.base_model.model.get_input_embeddings().token_adapter.trainable_tokens_delta["default"]
        for item in (oracle, exact)
    ]
    live = live_coord_offset_adapter(ours).embed_offset.detach()
    assert float(live.abs().max()) > 3e-3
    assert_close_to_scale(start + live, *rows, what="the rows")
    assert_close_to_scale(*(model(input_ids=tokens).logits for model in models), what="the logits")
