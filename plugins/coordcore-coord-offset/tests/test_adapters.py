"""Several PEFT adapters, each with offsets of its own, which go with the adapter's other weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from coordcore_coord_offset import install_coord_offset_adapter, live_coord_offset_adapter, merge_coord_offsets

Load = Callable[..., Any]
NAMES = ("default", "second")


def config(*, offsets: bool = True) -> LoraConfig:
    saved = ["coord_offset_adapter"] if offsets else None
    return LoraConfig(target_modules=["q_proj"], modules_to_save=saved, init_lora_weights=False)


@pytest.fixture
def pair(load: Load, coord_ids: list[int]) -> Any:
    """A model with the adapters "default" (active) and "second", whose LoRA and offsets all differ."""
    model = load()
    install_coord_offset_adapter(model, coord_ids)
    model = get_peft_model(model, config()).eval()
    model.add_adapter("second", config())
    generator = torch.Generator().manual_seed(3)
    for name in NAMES:
        model.set_adapter(name)
        offset = live_coord_offset_adapter(model).embed_offset
        offset.data.copy_(0.3 * torch.randn(offset.shape, generator=generator))
    model.set_adapter("default")
    return model


@torch.no_grad()
def logits(model: Any, tokens: torch.Tensor, **arguments: Any) -> torch.Tensor:
    result: torch.Tensor = model(input_ids=tokens, **arguments).logits
    return result


def live(model: Any, tokens: torch.Tensor, name: str) -> torch.Tensor:
    model.set_adapter(name)
    found = logits(model, tokens)
    model.set_adapter("default")
    return found


def test_an_adapter_that_is_named_is_merged_with_its_own_offsets(pair: Any, tokens: torch.Tensor) -> None:
    expected = live(pair, tokens, "second")
    merged = pair.merge_and_unload(adapter_names=["second"])
    merge_coord_offsets(merged)
    torch.testing.assert_close(logits(merged, tokens), expected, rtol=1e-4, atol=1e-4)


def test_merging_several_with_offsets_is_refused_before_anything_changes(pair: Any, tokens: torch.Tensor) -> None:
    before = logits(pair, tokens)
    with pytest.raises(ValueError, match="default, second each have a coord_offset_adapter of their own"):
        pair.merge_and_unload(adapter_names=list(NAMES))
    assert torch.equal(logits(pair, tokens), before)


def test_an_adapter_without_offsets_is_merged_without_any(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, pair: Any
) -> None:
    pair.add_adapter("plain", config(offsets=False))
    expected = live(pair, tokens, "plain")
    merged = pair.merge_and_unload(adapter_names=["plain"])
    assert not live_coord_offset_adapter(merged).embed_offset.any()
    torch.testing.assert_close(logits(merged, tokens), expected, rtol=1e-4, atol=1e-4)


def test_unloading_gives_the_base(load: Load, pair: Any, tokens: torch.Tensor) -> None:
    expected = logits(load(), tokens)
    assert not torch.equal(logits(pair, tokens), expected)
    assert torch.equal(logits(pair.unload(), tokens), expected)


def test_merging_in_place_keeps_the_active_adapter_alone(pair: Any, tokens: torch.Tensor) -> None:
    before = logits(pair, tokens)
    with pytest.raises(ValueError, match=r"merging second in place .* set_adapter\('second'\) first"):
        pair.merge_adapter(adapter_names=["second"])
    assert torch.equal(logits(pair, tokens), before)
    pair.merge_adapter()
    torch.testing.assert_close(logits(pair, tokens), before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(pair.unload(), tokens), before, rtol=1e-4, atol=1e-4)


def test_merging_in_place_for_a_while(pair: Any, tokens: torch.Tensor) -> None:
    before = logits(pair, tokens)
    pair.merge_adapter()
    pair.unmerge_adapter()
    torch.testing.assert_close(logits(pair, tokens), before, rtol=1e-4, atol=1e-4)
    merged = pair.merge_and_unload()
    torch.testing.assert_close(logits(merged, tokens), before, rtol=1e-4, atol=1e-4)


def test_a_weighted_combination_is_refused(pair: Any) -> None:
    pair.add_adapter("plain", config(offsets=False))
    with pytest.raises(ValueError, match="default have a coord_offset_adapter, which PEFT leaves out"):
        pair.add_weighted_adapter(["default", "plain"], [0.5, 0.5], "both", combination_type="linear")


def test_set_adapter_brings_its_own_offsets_and_none_when_it_is_disabled(
    load: Load, pair: Any, tokens: torch.Tensor
) -> None:
    first, second = live(pair, tokens, "default"), live(pair, tokens, "second")
    assert not torch.allclose(first, second)
    pair.set_adapter("second")
    with pair.disable_adapter():
        assert torch.equal(logits(pair, tokens), logits(load(), tokens))
    assert torch.equal(logits(pair, tokens), second)


@pytest.mark.parametrize("names", [["default", "second"], ["second", "__base__"], ["plain", "default"]])
def test_samples_of_several_adapters_get_the_offsets_of_their_own(
    load: Load, pair: Any, tokens: torch.Tensor, names: list[str]
) -> None:
    pair.add_adapter("plain", config(offsets=False))
    rows = []
    for sample, name in enumerate(names):
        whole = logits(load(), tokens) if name == "__base__" else live(pair, tokens, name)
        rows.append(whole[sample])
    torch.testing.assert_close(logits(pair, tokens, adapter_names=names), torch.stack(rows), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(pair, tokens), live(pair, tokens, "default"))


def test_generating_for_several_adapters_at_once(pair: Any, tokens: torch.Tensor) -> None:
    settings = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    found = pair.generate(input_ids=tokens, adapter_names=list(NAMES), **settings)
    for sample, name in enumerate(NAMES):
        pair.set_adapter(name)
        assert torch.equal(found[sample], pair.generate(input_ids=tokens, **settings)[sample])


@pytest.mark.parametrize("name", [*NAMES, "__base__"])
def test_samples_of_one_adapter_get_its_offsets(load: Load, pair: Any, tokens: torch.Tensor, name: str) -> None:
    expected = logits(load(), tokens) if name == "__base__" else live(pair, tokens, name)
    found = logits(pair, tokens, adapter_names=[name, name])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_deleting_the_active_adapter(pair: Any, tokens: torch.Tensor) -> None:
    expected = live(pair, tokens, "second")
    pair.delete_adapter("default")
    assert torch.equal(logits(pair, tokens), expected)
