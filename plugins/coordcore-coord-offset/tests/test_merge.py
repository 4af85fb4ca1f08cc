"""Merging: the same logits from ordinary weights, in memory and after a round trip through the disk."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from coordcore.testing.closeness import assert_close_to_scale
from coordcore_coord_offset import install_coord_offset_adapter, merge_coord_offsets

Load = Callable[..., Any]
Randomise = Callable[[nn.Module], None]


def _generate(model: Any, tokens: torch.Tensor) -> list[list[int]]:
    ids = model.generate(
        input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=8, do_sample=False, pad_token_id=0
    )
    return ids.tolist()


def _exact(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """The logits of a plain model in float64."""
    return copy.deepcopy(model).double()(input_ids=tokens).logits


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("tie_head", [True, False])
def test_a_merged_checkpoint_has_the_live_logits(
    load: Load,
    coord_ids: list[int],
    tokens: torch.Tensor,
    randomise: Randomise,
    tmp_path: Path,
    tied: bool,
    tie_head: bool,
) -> None:
    model = load(tied=tied)
    install_coord_offset_adapter(model, coord_ids, tie_head=tie_head)
    randomise(model)
    with torch.no_grad():
        live = model(input_ids=tokens).logits
    answer = _generate(model, tokens)
    merge_coord_offsets(model)
    model.save_pretrained(tmp_path)
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    for merged in (model, loaded):
        assert_close_to_scale(merged(input_ids=tokens).logits, live, _exact(merged, tokens), what="the logits")
        assert _generate(merged, tokens) == answer
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


@pytest.mark.parametrize(
    ("tied", "tie_head", "stays_tied"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_weights_and_every_config_agree_on_being_tied(
    load: Load, coord_ids: list[int], randomise: Randomise, tied: bool, tie_head: bool, stays_tied: bool
) -> None:
    model = load(tied=tied)
    install_coord_offset_adapter(model, coord_ids, tie_head=tie_head)
    randomise(model)
    merge_coord_offsets(model)
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) is stays_tied
    assert model.config.tie_word_embeddings is stays_tied
    assert model.config.get_text_config().tie_word_embeddings is stays_tied
    model.tie_weights()
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) is stays_tied


def test_merging_touches_the_coord_rows_alone(load: Load, coord_ids: list[int], randomise: Randomise) -> None:
    model = load()
    before = model.get_input_embeddings().weight.clone()
    install_coord_offset_adapter(model, coord_ids)
    randomise(model)
    merge_coord_offsets(model)
    changed = (model.get_input_embeddings().weight != before).any(-1).nonzero().flatten().tolist()
    assert changed == sorted(coord_ids)


def test_merging_leaves_no_module_and_no_hook(load: Load, coord_ids: list[int]) -> None:
    model = load()
    names = list(model.state_dict())
    install_coord_offset_adapter(model, coord_ids)
    merge_coord_offsets(model)
    assert list(model.state_dict()) == names
    assert not any(module._forward_hooks for module in model.modules())
    install_coord_offset_adapter(model, coord_ids)


@pytest.mark.parametrize("tie_head", [True, False])
@torch.no_grad()
def test_in_bfloat16_live_embeddings_have_the_bits_of_merged_ones(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, randomise: Randomise, tie_head: bool
) -> None:
    model = load(dtype=torch.bfloat16)
    install_coord_offset_adapter(model, coord_ids, tie_head=tie_head)
    randomise(model)
    live = model.get_input_embeddings()(tokens)
    logits = model(input_ids=tokens).logits.float()
    merge_coord_offsets(model)
    assert torch.equal(model.get_input_embeddings()(tokens), live)
    # A logit is rounded at 2**-8 of itself, and so is each of the 16 products that a merged row sums.
    assert float((model(input_ids=tokens).logits.float() - logits).abs().max()) <= 2**-6 * float(logits.abs().max())


def test_offsets_under_peft_are_merged_after_lora(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, randomise: Randomise
) -> None:
    model = load()
    install_coord_offset_adapter(model, coord_ids)
    wrapped = get_peft_model(
        model,
        LoraConfig(target_modules=["q_proj"], modules_to_save=["coord_offset_adapter"], init_lora_weights=False),
    ).eval()
    randomise(wrapped)
    with torch.no_grad():
        live = wrapped(input_ids=tokens).logits
    with pytest.raises(RuntimeError, match=r"still wrapped by PEFT; call merge_and_unload\(\)"):
        merge_coord_offsets(wrapped)
    merged = wrapped.merge_and_unload()
    merge_coord_offsets(merged)
    assert_close_to_scale(merged(input_ids=tokens).logits, live, _exact(merged, tokens), what="the logits")
