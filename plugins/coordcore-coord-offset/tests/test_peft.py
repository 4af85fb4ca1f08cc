"""Life under PEFT: the live copy, switching off, saving and loading, checkpointing, copies of the model."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from coordcore import InputError
from coordcore.testing.closeness import assert_close_to_scale
from coordcore_coord_offset import (
    check_saved_offsets,
    install_coord_offset_adapter,
    live_coord_offset_adapter,
    reattach_coord_offset_hooks,
    save_offset_record,
    verify_coord_offsets,
)

Load = Callable[..., Any]
Randomise = Callable[[nn.Module], None]


def _wrap(model: Any, coord_ids: list[int], **options: Any) -> Any:
    install_coord_offset_adapter(model, coord_ids, **options)
    return get_peft_model(model, LoraConfig(target_modules=["q_proj"], modules_to_save=["coord_offset_adapter"]))


def test_the_copy_that_peft_trains_is_live(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, randomise: Randomise
) -> None:
    model = _wrap(load(), coord_ids)
    verify_coord_offsets(model)
    start = model(input_ids=tokens).logits
    randomise(model)
    assert not torch.equal(model(input_ids=tokens).logits, start)


def test_offsets_and_lora_are_all_that_train(load: Load, coord_ids: list[int]) -> None:
    model = _wrap(load(), coord_ids)
    trained = {name.rpartition(".layers.")[0] or name for name, p in model.named_parameters() if p.requires_grad}
    offsets = "base_model.model.coord_offset_adapter.modules_to_save.default.embed_offset"
    assert offsets in trained
    assert all(name == offsets or "lora_" in name for name, p in model.named_parameters() if p.requires_grad)


def test_reattaching_again_adds_no_second_hook(load: Load, coord_ids: list[int]) -> None:
    model = _wrap(load(), coord_ids)
    reattach_coord_offset_hooks(model)
    reattach_coord_offset_hooks(model)
    verify_coord_offsets(model)
    assert len(model.get_output_embeddings()._forward_hooks) == 1


def test_disable_adapter_switches_the_offsets_off(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, randomise: Randomise
) -> None:
    base = load()
    expected = base(input_ids=tokens).logits
    model = _wrap(base, coord_ids)
    randomise(model)
    live = model(input_ids=tokens).logits
    with model.disable_adapter():
        assert torch.equal(model(input_ids=tokens).logits, expected)
    assert torch.equal(model(input_ids=tokens).logits, live)


def test_a_second_adapter_brings_its_own_offsets(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, randomise: Randomise
) -> None:
    model = _wrap(load(), coord_ids)
    start = model(input_ids=tokens).logits
    model.add_adapter("second", LoraConfig(target_modules=["q_proj"], modules_to_save=["coord_offset_adapter"]))
    randomise(model)
    model.set_adapter("second")
    assert torch.equal(model(input_ids=tokens).logits, start)


@pytest.mark.parametrize("tie_head", [True, False])
def test_saved_offsets_come_back_bit_by_bit(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, randomise: Randomise, tmp_path: Path, tie_head: bool
) -> None:
    model = _wrap(load(), coord_ids, tie_head=tie_head).eval()
    randomise(model)
    model.save_pretrained(tmp_path)
    save_offset_record(model, tmp_path)

    base = load()
    install_coord_offset_adapter(base, coord_ids, tie_head=tie_head)
    loaded = PeftModel.from_pretrained(base, tmp_path)
    reattach_coord_offset_hooks(loaded)
    verify_coord_offsets(loaded)
    check_saved_offsets(tmp_path, loaded)
    check_saved_offsets(tmp_path / "adapter_model.safetensors", loaded)
    assert torch.equal(loaded(input_ids=tokens).logits, model(input_ids=tokens).logits)


def test_installing_after_loading_is_found(
    load: Load, coord_ids: list[int], randomise: Randomise, tmp_path: Path
) -> None:
    model = _wrap(load(), coord_ids)
    randomise(model)
    model.save_pretrained(tmp_path)
    base = load()
    with pytest.raises(RuntimeError, match="size mismatch"):
        PeftModel.from_pretrained(base, tmp_path)
    base = load()
    install_coord_offset_adapter(base, coord_ids)
    with pytest.raises(InputError, match="embed_offset was not loaded; install coord_offset_adapter before loading"):
        check_saved_offsets(tmp_path, base)


def test_a_checkpoint_without_offsets_is_found(load: Load, coord_ids: list[int], tmp_path: Path) -> None:
    get_peft_model(load(), LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    model = _wrap(load(), coord_ids)
    with pytest.raises(
        InputError, match=r"holds nothing of coord_offset_adapter, the model has \['embed_offset'\]; install it with"
    ):
        check_saved_offsets(tmp_path, model)


def test_offsets_of_a_separate_head_that_would_be_dropped_are_found(
    load: Load, coord_ids: list[int], tmp_path: Path
) -> None:
    _wrap(load(), coord_ids, tie_head=False).save_pretrained(tmp_path)
    base = load()
    install_coord_offset_adapter(base, coord_ids)
    loaded = PeftModel.from_pretrained(base, tmp_path)
    with pytest.raises(
        InputError, match=r"holds \['embed_offset', 'head_offset'\] of \w+, the model has \['embed_offset'\]"
    ):
        check_saved_offsets(tmp_path, loaded)


def test_offsets_of_another_size_are_found(load: Load, coord_ids: list[int], tmp_path: Path) -> None:
    _wrap(load(), coord_ids).save_pretrained(tmp_path)
    other = _wrap(load(), coord_ids[:-1])
    with pytest.raises(InputError, match=r"embed_offset has shape \(20, 16\), the model's \(19, 16\)"):
        check_saved_offsets(tmp_path, other)


def test_offsets_of_other_ids_are_found(load: Load, coord_ids: list[int], tmp_path: Path) -> None:
    model = _wrap(load(), coord_ids)
    model.save_pretrained(tmp_path)
    record = save_offset_record(model, tmp_path)
    assert json.loads(record.read_text()) == {"coord_ids": coord_ids}
    other = _wrap(load(), coord_ids[::-1])
    with pytest.raises(InputError, match="the saved offsets belong to token ids"):
        check_saved_offsets(tmp_path, other)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradient(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, randomise: Randomise, reentrant: bool
) -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = _wrap(load(), coord_ids).train()
        randomise(model)
        if checkpointing:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            # As after PEFT or a trainer has added hooks of its own, and before.
            reattach_coord_offset_hooks(model)
        model(input_ids=tokens, labels=tokens).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    # What is recomputed may be added up in another order.
    for found, expected in zip(gradients[1], gradients[0], strict=True):
        assert_close_to_scale(found, expected, what=f"a gradient of shape {tuple(expected.shape)}")


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_deep_copy_has_offsets_of_its_own(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, randomise: Randomise, wrapped: bool
) -> None:
    model = load()
    if wrapped:
        model = _wrap(model, coord_ids)
    else:
        install_coord_offset_adapter(model, coord_ids)
    start = model(input_ids=tokens).logits
    other = copy.deepcopy(model)
    randomise(other)
    assert torch.equal(model(input_ids=tokens).logits, start)
    verify_coord_offsets(other)
    assert live_coord_offset_adapter(other) is not live_coord_offset_adapter(model)


def test_a_pickled_model_keeps_its_offsets(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, randomise: Randomise
) -> None:
    model = load()
    install_coord_offset_adapter(model, coord_ids)
    randomise(model)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    verify_coord_offsets(loaded)
    assert torch.equal(loaded(input_ids=tokens).logits, model(input_ids=tokens).logits)


def test_an_embedding_that_outlives_its_model_says_so(load: Load, coord_ids: list[int]) -> None:
    model = load()
    install_coord_offset_adapter(model, coord_ids)
    embed = copy.deepcopy(model.get_input_embeddings())
    del model
    import gc

    gc.collect()
    with pytest.raises(RuntimeError, match="the model that holds coord_offset_adapter is gone"):
        embed(torch.tensor([0]))
