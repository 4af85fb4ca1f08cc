"""What other people's code writes of a model with offsets, and reads of an adapter that has some."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import Trainer, TrainingArguments

from coordcore import InputError
from coordcore_coord_offset import (
    check_saved_offsets,
    install_coord_offset_adapter,
    live_coord_offset_adapter,
    merge_coord_offsets,
    reattach_coord_offset_hooks,
    verify_coord_offsets,
)

Load = Callable[..., Any]
Randomise = Callable[[nn.Module], None]


@torch.no_grad()
def logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=tokens).logits
    return found


def lora(**options: Any) -> LoraConfig:
    return LoraConfig(target_modules=["q_proj"], modules_to_save=["coord_offset_adapter"], **options)


def reloaded(model: Any, folder: Path) -> Any:
    """The folder loaded as anybody would, and what was left over."""
    loaded, report = type(model).from_pretrained(folder, output_loading_info=True)
    assert (set(report["missing_keys"]), set(report["unexpected_keys"])) == (set(), set())
    return loaded.eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("tie_head", [True, False])
def test_save_pretrained_after_merge_and_unload_writes_the_rows(
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
    model = get_peft_model(model, lora(init_lora_weights=False)).eval()
    randomise(model)
    live = logits(model, tokens)
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "a")
    torch.testing.assert_close(logits(reloaded(merged, tmp_path / "a"), tokens), live, rtol=1e-4, atol=1e-4)

    # The model that was saved is as it was: it goes on, it is saved again, and it can be merged as ever.
    verify_coord_offsets(merged)
    assert merged.config.tie_word_embeddings is tied
    assert (merged.get_input_embeddings().weight is merged.get_output_embeddings().weight) is tied
    torch.testing.assert_close(logits(merged, tokens), live, rtol=1e-4, atol=1e-4)
    merged.save_pretrained(tmp_path / "b")
    same = [logits(reloaded(merged, tmp_path / folder), tokens) for folder in ("a", "b")]
    assert torch.equal(*same)
    merge_coord_offsets(merged)
    merged.save_pretrained(tmp_path / "c")
    assert torch.equal(logits(reloaded(merged, tmp_path / "c"), tokens), same[0])


def test_a_trainer_saves_an_ordinary_model_and_loads_it_again(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, randomise: Randomise, tmp_path: Path
) -> None:
    model = load()
    install_coord_offset_adapter(model, coord_ids)
    randomise(model)
    live = logits(model, tokens)
    trainer = Trainer(model, TrainingArguments(str(tmp_path / "t"), use_cpu=True, report_to=[], disable_tqdm=True))
    trainer.save_model(str(tmp_path / "saved"))
    loaded = reloaded(model, tmp_path / "saved")
    torch.testing.assert_close(logits(loaded, tokens), live, rtol=1e-4, atol=1e-4)
    # As `load_best_model_at_end` does: the weights hold the rows, which must not be added twice.
    trainer._load_from_checkpoint(str(tmp_path / "saved"))
    assert not live_coord_offset_adapter(model).embed_offset.any()
    torch.testing.assert_close(logits(model, tokens), live, rtol=1e-4, atol=1e-4)


def test_its_own_state_is_loaded_as_it_is(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, randomise: Randomise
) -> None:
    model, other = load(), load()
    for item in (model, other):
        install_coord_offset_adapter(item, coord_ids)
    randomise(model)
    other.load_state_dict(model.state_dict())
    assert torch.equal(logits(other, tokens), logits(model, tokens))


def test_weights_that_were_gathered_elsewhere_are_refused(load: Load, coord_ids: list[int], tmp_path: Path) -> None:
    model = load()
    install_coord_offset_adapter(model, coord_ids)
    with pytest.raises(RuntimeError, match="gathered without the rows of coord_offset_adapter"):
        model.save_pretrained(tmp_path, state_dict=model.state_dict())


def test_the_model_inside_peft_is_not_saved_past_it(load: Load, coord_ids: list[int], tmp_path: Path) -> None:
    model = load()
    install_coord_offset_adapter(model, coord_ids)
    wrapped = get_peft_model(model, lora())
    with pytest.raises(RuntimeError, match=r"still wrapped by PEFT; call merge_and_unload\(\)"):
        wrapped.get_base_model().save_pretrained(tmp_path)


@pytest.fixture
def saved(load: Load, coord_ids: list[int], randomise: Randomise, tmp_path: Path) -> Path:
    """An adapter with offsets, saved by PEFT."""
    model = load()
    install_coord_offset_adapter(model, coord_ids)
    wrapped = get_peft_model(model, lora())
    randomise(wrapped)
    wrapped.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_with_offsets_is_not_loaded_onto_a_plain_base(load: Load, saved: Path) -> None:
    with pytest.raises(RuntimeError, match=r"size mismatch for .*embed_tokens\.weight"):
        PeftModel.from_pretrained(load(), saved)


def test_a_process_without_coordcore_is_told_what_it_would_lose(saved: Path) -> None:
    script = f"from peft import PeftConfig; PeftConfig.from_pretrained({str(saved)!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "LORA with coord_offset_adapter, which this program would lose" in done.stderr
    assert "coordcore merge RUN" in done.stderr


@pytest.mark.parametrize("safe", [True, False])
def test_adapters_of_two_names_are_loaded_where_they_lie(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, tmp_path: Path, safe: bool
) -> None:
    model = load()
    install_coord_offset_adapter(model, coord_ids)
    model = get_peft_model(model, lora(init_lora_weights=False), adapter_name="boxes").eval()
    model.add_adapter("points", lora(init_lora_weights=False))
    model.add_adapter("plain", LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    live = {}
    for name in ("boxes", "points", "plain"):
        model.set_adapter(name)
        if name != "plain":
            live_coord_offset_adapter(model).embed_offset.data.normal_()
        live[name] = logits(model, tokens)
    model.save_pretrained(tmp_path / "saved", safe_serialization=safe)
    shutil.move(tmp_path / "saved", tmp_path / "moved")

    base = load()
    install_coord_offset_adapter(base, coord_ids)
    again = PeftModel.from_pretrained(base, tmp_path / "moved" / "points", adapter_name="p").eval()
    again.load_adapter(tmp_path / "moved" / "boxes", adapter_name="b")
    again.load_adapter(tmp_path / "moved" / "plain", adapter_name="x")
    reattach_coord_offset_hooks(again)
    for name, other in (("p", "points"), ("b", "boxes"), ("x", "plain")):
        again.set_adapter(name)
        assert torch.equal(logits(again, tokens), live[other])
    again.set_adapter("p")
    check_saved_offsets(tmp_path / "moved" / "points", again)
    again.set_adapter("b")
    check_saved_offsets(tmp_path / "moved" / "boxes", again)
    with pytest.raises(InputError, match="embed_offset was not loaded"):
        check_saved_offsets(tmp_path / "moved" / "points", again)
    # One that has no offsets is an ordinary adapter.
    assert torch.equal(logits(PeftModel.from_pretrained(load(), tmp_path / "moved" / "plain"), tokens), live["plain"])


def test_the_rows_of_other_ids_are_refused(load: Load, coord_ids: list[int], saved: Path) -> None:
    base = load()
    install_coord_offset_adapter(base, coord_ids[::-1])
    with pytest.raises(InputError, match="the adapter's rows belong to the token ids"):
        PeftModel.from_pretrained(base, saved)


def test_adapters_saved_before_there_was_a_guard_are_loaded(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, saved: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base = load()
    install_coord_offset_adapter(base, coord_ids)
    new = logits(PeftModel.from_pretrained(base, saved), tokens)
    file = saved / "adapter_model.safetensors"
    save_file({key: value for key, value in load_file(file).items() if value.dtype != torch.int64}, file)
    config = json.loads((saved / "adapter_config.json").read_text())
    (saved / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "LORA"}))
    base = load()
    install_coord_offset_adapter(base, coord_ids)
    assert torch.equal(logits(PeftModel.from_pretrained(base, saved), tokens), new)
