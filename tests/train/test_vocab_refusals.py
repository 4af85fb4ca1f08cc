"""What `expand` refuses, with the path, the value seen and the cure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from coordcore.errors import InputError
from coordcore_train.checkpoint.expand import expand

EMBEDDING = "model.language_model.embed_tokens.weight"
TOKENS = 282  # of the tiny tokenizer, without coord tokens


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_base_that_has_the_tokens(coord_base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"base: has the 1000 coord tokens already; use it as it is"):
        expand(coord_base, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_base_that_has_some_of_the_tokens(base: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<|coord_3|>", "<|coord_4|>"])
    tokenizer.save_pretrained(base)
    with pytest.raises(InputError, match="has 2 of the 1000 coord tokens; expand a base that has none of them"):
        expand(base, tmp_path / "out")


def test_coord_tokens_in_the_base_vocabulary(base: Path, tmp_path: Path) -> None:
    data = json.loads((base / "tokenizer.json").read_text())
    data["model"]["vocab"]["<|coord_5|>"] = TOKENS
    (base / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="has some coord tokens in its base vocabulary"):
        expand(base, tmp_path / "out")


def test_an_existing_output_is_kept_unless_asked(plain_base: Path, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    with pytest.raises(InputError, match="already exists; choose another folder, or ask for it to be replaced"):
        expand(plain_base, tmp_path)
    assert (tmp_path / "old").read_text() == "old"
    expand(plain_base, tmp_path, overwrite=True)
    assert not (tmp_path / "old").exists()


@pytest.mark.parametrize("output", [".", "inside", ".."])
def test_an_output_in_or_around_the_base(base: Path, output: str) -> None:
    with pytest.raises(InputError, match="lies in or around the base"):
        expand(base, base / output, overwrite=True)


def remove_everything(base: Path) -> None:
    shutil.rmtree(base)


def remove_tokenizer(base: Path) -> None:
    (base / "tokenizer.json").unlink()


def remove_weights(base: Path) -> None:
    (base / "model.safetensors").unlink()


def leave_bin_weights(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


def cut_weights(base: Path) -> None:
    data = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(data[:-100])


def lose_a_shard(base: Path) -> None:
    (base / "model.safetensors").unlink()
    (base / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')


def quantise(base: Path) -> None:
    edit_json(base / "config.json", quantization_config={"quant_method": "awq"})


def store_integers(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    save_file({**weights, EMBEDDING: weights[EMBEDDING].to(torch.int8)}, base / "model.safetensors")


def untie_without_a_head(base: Path) -> None:
    edit_json(base / "config.json", tie_word_embeddings=False)


def take_another_config(base: Path) -> None:
    edit_json(base / "config.json", text_config={"vocab_size": 9})


def lose_rows(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    save_file({**weights, EMBEDDING: weights[EMBEDDING][:100].clone()}, base / "model.safetensors")
    edit_json(base / "config.json", text_config={"vocab_size": 100})


def damage_a_value(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    weights[EMBEDDING][:] = float("nan")
    save_file(weights, base / "model.safetensors")


def damage_one_token(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    weights[EMBEDDING][5] = float("nan")
    save_file(weights, base / "model.safetensors")


def train_nothing(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    save_file({**weights, EMBEDDING: torch.ones_like(weights[EMBEDDING])}, base / "model.safetensors")


def take_a_digit_away(base: Path) -> None:
    data = json.loads((base / "tokenizer.json").read_text())
    data["model"]["vocab"]["seven"] = data["model"]["vocab"].pop("7")
    (base / "tokenizer.json").write_text(json.dumps(data))


def let_tokenizer_files_disagree(base: Path) -> None:
    extra = {"content": "<extra>", "special": False, "normalized": False, "lstrip": False, "rstrip": False}
    edit_json(base / "tokenizer_config.json", added_tokens_decoder={str(TOKENS): {**extra, "single_word": False}})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_everything, r"base/config.json: no such file; is .*base a checkpoint folder\?"),
        (remove_tokenizer, r"base: has no tokenizer.json; load and save its tokenizer once"),
        (remove_weights, r"base: has no model.safetensors and no .*; is this a checkpoint folder\?"),
        (leave_bin_weights, r"base: has \.bin weights only, and safetensors are read; convert it: load it with"),
        (cut_weights, r"model.safetensors: \d+ bytes, but its header needs \d+; download or save it again"),
        (lose_a_shard, r"base: .* names model-00001-of-00002.safetensors, which is missing; download it again"),
        (quantise, r"base: holds quantised weights; expand the original checkpoint and quantise afterwards"),
        (store_integers, r"embed_tokens.weight is I8 \[282, 32\], not a BF16, F16 or F32 matrix"),
        (untie_without_a_head, r"says tie_word_embeddings = false, but there is no lm_head.weight"),
        (take_another_config, r"vocabulary sizes differ: .*embed_tokens.weight 282, config.json vocab_size 9; these"),
        (lose_rows, r"base: the tokenizer has ids up to 281, the matrix 100 rows; not one checkpoint"),
        (damage_a_value, r"embed_tokens.weight holds values that are not finite; the checkpoint is damaged"),
        (damage_one_token, r"embed_tokens.weight holds values that are not finite; the checkpoint is damaged"),
        (train_nothing, r"initialiser digits gives 1 distinct rows of 1000 for .*; choose another one, or a base that"),
        (take_a_digit_away, "tokenizer.json: digits are not single tokens: 7; coordcore expects"),
        (let_tokenizer_files_disagree, r"base: tokenizer.json and the other tokenizer files disagree about ids; load"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_base_that_cannot_be_expanded(base: Path, tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(base)
    with pytest.raises(InputError, match=message):
        expand(base, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name != "base"] == []


def test_an_unknown_initialiser(plain_base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown initialiser 'zeros'; available: mean, digits, smooth"):
        expand(plain_base, tmp_path / "out", initialiser="zeros")
