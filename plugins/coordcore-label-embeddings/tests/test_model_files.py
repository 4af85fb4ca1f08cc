"""What identifies a text embedding model: its files, wherever they lie."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from embedding_support import changed
from safetensors.torch import load_file, save_file

from coordcore import InputError
from coordcore_label_embeddings.model_files import files, identity


def test_a_copy_elsewhere_is_the_same_model(model: Path, tmp_path: Path) -> None:
    copy = changed(model, tmp_path, "config.json")
    (copy / "config.json").write_bytes((model / "config.json").read_bytes())
    (copy / "README.md").write_text("words")
    assert identity(copy) == identity(model)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "tokenizer_config.json", "1_Pooling/config.json"])
def test_another_tokenizer_or_setting_is_another_model(model: Path, tmp_path: Path, name: str) -> None:
    assert identity(changed(model, tmp_path, name, something=1)) != identity(model)


def test_one_weight_makes_another_model(model: Path, tmp_path: Path) -> None:
    copy = changed(model, tmp_path, "config.json")
    (copy / "config.json").write_bytes((model / "config.json").read_bytes())
    weights = load_file(copy / "model.safetensors")
    weights["embeddings.LayerNorm.bias"][0] += 1e-3
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert identity(copy) != identity(model)


def test_weights_that_transformers_does_not_read_do_not_count(model: Path, tmp_path: Path) -> None:
    copy = changed(model, tmp_path, "config.json")
    torch.save({}, copy / "pytorch_model.bin")
    assert copy / "model.safetensors" in files(copy)
    assert copy / "pytorch_model.bin" not in files(copy)
    (copy / "model.safetensors").unlink()
    assert copy / "pytorch_model.bin" in files(copy)


def test_a_folder_without_weights_is_refused(model: Path, tmp_path: Path) -> None:
    copy = changed(model, tmp_path, "config.json")
    (copy / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        identity(copy)
