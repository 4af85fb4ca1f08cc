"""Expanding a checkpoint with the coord tokens: weights, tokenizer, config and the other files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoTokenizer

from coordcore.coords import CoordVocab, ints_to_tokens
from coordcore.quantisation import quantisation
from coordcore.testing.closeness import assert_close_to_scale
from coordcore_train.checkpoint.expand import expand
from coordcore_train.checkpoint.folder import read_checkpoint_info, read_vocab
from coordcore_train.testing.tiny import tiny_qwen3vl

EMBEDDING = "model.language_model.embed_tokens.weight"
HEAD = "lm_head.weight"
TOKENS = 282  # of the tiny tokenizer, without coord tokens


def tensors(folder: Path) -> dict[str, Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# --- weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"tie_word_embeddings": True},
        {"tie_word_embeddings": False},
        {"tie_word_embeddings": True, "max_shard_size": "50KB"},
        {"tie_word_embeddings": False, "max_shard_size": "50KB", "dtype": "bfloat16"},
        {"tie_word_embeddings": True, "padding_rows": 5, "dtype": "float16"},
        {"tie_word_embeddings": False, "padding_rows": 1100, "dtype": "bfloat16"},
    ],
    ids=str,
)
def test_the_result_loads_whole_and_keeps_the_old_logits(tmp_path: Path, settings: dict[str, Any]) -> None:
    base = tiny_qwen3vl(tmp_path / "base", coord_tokens=False, **settings)
    expand(base, tmp_path / "out")
    before = AutoModelForImageTextToText.from_pretrained(base)
    after, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    assert after.dtype == before.dtype == getattr(torch, settings.get("dtype", "float32"))
    tied = after.lm_head.weight is after.get_input_embeddings().weight
    assert (tied, after.config.tie_word_embeddings) == (settings["tie_word_embeddings"],) * 2
    ids = torch.arange(TOKENS)[None]
    with torch.no_grad():
        old, new = before(input_ids=ids).logits, after(input_ids=ids).logits
    # A head with more rows is another product, which may round otherwise.
    assert_close_to_scale(new[..., :TOKENS], old[..., :TOKENS], what="the logits")


def test_nothing_but_rows_changes_in_the_weights(plain_base: Path, tmp_path: Path) -> None:
    expand(plain_base, tmp_path / "out")
    old, new = tensors(plain_base), tensors(tmp_path / "out")
    grown = new.pop(EMBEDDING)
    assert torch.equal(grown[:TOKENS], old.pop(EMBEDDING))
    assert list(new) == list(old)
    assert all(torch.equal(new[name], old[name]) for name in old)


def test_a_matrix_that_must_grow_ends_on_a_multiple_of_64(plain_base: Path, tmp_path: Path) -> None:
    report = expand(plain_base, tmp_path / "out")
    rows = tensors(tmp_path / "out")[EMBEDDING]
    assert (report.rows_before, report.rows_after, len(rows)) == (TOKENS, 1344, 1344)
    # 62 rows nobody asked for must never win: their logit is the mean of the others.
    assert torch.allclose(rows[TOKENS + 1000 :], rows[:TOKENS].mean(0), atol=1e-6)


def test_padding_rows_are_used_and_all_thousand_rows_are_written(tmp_path: Path) -> None:
    base = tiny_qwen3vl(tmp_path / "base", coord_tokens=False, padding_rows=1100)
    report = expand(base, tmp_path / "out")
    old, new = tensors(base)[EMBEDDING], tensors(tmp_path / "out")[EMBEDDING]
    assert (report.rows_before, report.rows_after) == (TOKENS + 1100,) * 2
    changed = (old != new).any(1).nonzero().squeeze(1)
    assert changed.tolist() == list(range(TOKENS, TOKENS + 1000))


def test_padding_rows_do_not_enter_the_statistics(tmp_path: Path) -> None:
    base = tiny_qwen3vl(tmp_path / "base", coord_tokens=False, padding_rows=2)
    weights = load_file(base / "model.safetensors")
    weights[EMBEDDING][TOKENS:] = 1e6
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    expand(base, tmp_path / "out", initialiser="smooth")
    assert tensors(tmp_path / "out")[EMBEDDING].abs().max() < 1


@pytest.mark.parametrize("initialiser", ["mean", "digits", "smooth"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_two_rows_are_alike(tmp_path: Path, initialiser: Any, dtype: str) -> None:
    base = tiny_qwen3vl(tmp_path / "base", coord_tokens=False, dtype=dtype, tie_word_embeddings=False)
    vocab = expand(base, tmp_path / "out", initialiser=initialiser).vocab
    weights = tensors(tmp_path / "out")
    ids = vocab.ids_tensor()
    assert [len(weights[name][ids].unique(dim=0)) for name in (EMBEDDING, HEAD)] == [1000, 1000]


def test_an_untied_head_starts_from_its_own_rows(tmp_path: Path) -> None:
    base = tiny_qwen3vl(tmp_path / "base", coord_tokens=False, tie_word_embeddings=False)
    ids = expand(base, tmp_path / "out", initialiser="mean").vocab.ids_tensor()
    weights = tensors(tmp_path / "out")
    for name in (EMBEDDING, HEAD):
        known = weights[name][:TOKENS]
        away = (weights[name][ids] - known.mean(0)) / known.std(0)
        assert 0.019 < away.std() < 0.021


def test_a_tied_model_that_stores_its_head_keeps_both_equal(base: Path, tmp_path: Path) -> None:
    weights = load_file(base / "model.safetensors")
    save_file({**weights, HEAD: weights[EMBEDDING].clone()}, base / "model.safetensors", {"format": "pt"})
    report = expand(base, tmp_path / "out", initialiser="smooth")
    new = tensors(tmp_path / "out")
    assert (report.tied, torch.equal(new[HEAD], new[EMBEDDING])) == (True, True)


def test_shards_keep_their_layout(tmp_path: Path) -> None:
    base = tiny_qwen3vl(tmp_path / "base", coord_tokens=False, max_shard_size="50KB")
    out = expand(base, tmp_path / "out").output
    old, new = (json.loads((folder / "model.safetensors.index.json").read_text()) for folder in (base, out))
    assert new["weight_map"] == old["weight_map"]
    changed = {file.name for file in base.glob("*.safetensors") if file.read_bytes() != (out / file.name).read_bytes()}
    assert changed == {old["weight_map"][EMBEDDING]}
    added = (1344 - TOKENS) * 32
    assert new["metadata"]["total_size"] == old["metadata"]["total_size"] + 4 * added
    assert new["metadata"]["total_parameters"] == old["metadata"]["total_parameters"] + added


def test_the_header_keeps_its_metadata(plain_base: Path, tmp_path: Path) -> None:
    expand(plain_base, tmp_path / "out")
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


# --- tokenizer, config, other files ---------------------------------------------------------------------------------


def test_tokens_stay_whole_and_survive_skip_special_tokens(plain_base: Path, tmp_path: Path) -> None:
    vocab = expand(plain_base, tmp_path / "out").vocab
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "a[<|coord_0|>, <|coord_999|><|coord_12|>]"
    ids = tokenizer.encode(text)
    assert [k for k in vocab.bins(ids).tolist() if k >= 0] == [0, 999, 12]
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == text


def test_ids_follow_the_old_ones_and_every_reader_agrees(plain_base: Path, tmp_path: Path) -> None:
    vocab = expand(plain_base, tmp_path / "out").vocab
    assert vocab.ids == tuple(range(TOKENS, TOKENS + 1000))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert CoordVocab.from_tokenizer(tokenizer, embedding_rows=1344, config_vocab_size=1344) == vocab
    assert read_vocab(tmp_path / "out") == vocab


def test_the_wildcard_of_a_base_is_no_coord_token(tmp_path: Path) -> None:
    base = tiny_qwen3vl(tmp_path / "base", coord_tokens=False, padding_rows=1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<|coord_*|>"])
    tokenizer.save_pretrained(base)
    assert expand(base, tmp_path / "out").vocab.ids[0] == TOKENS + 1


def test_older_tokenizer_files_get_the_tokens_too(base: Path, tmp_path: Path) -> None:
    data = json.loads((base / "tokenizer.json").read_text())
    (base / "vocab.json").write_text(json.dumps(data["model"]["vocab"]))
    (base / "merges.txt").write_text("#version: 0.2\n")
    decoder = {str(token.pop("id")): token for token in data["added_tokens"]}
    edit_json(base / "tokenizer_config.json", added_tokens_decoder=decoder)
    (base / "added_tokens.json").write_text(json.dumps({"<think>": 280}))
    expand(base, tmp_path / "out")
    decoder = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    added = json.loads((tmp_path / "out" / "added_tokens.json").read_text())
    names = ints_to_tokens(range(1000))
    assert [decoder[str(TOKENS + k)]["content"] for k in range(1000)] == names
    assert not any(decoder[str(TOKENS + k)]["special"] for k in range(1000))
    assert added == {"<think>": 280, **{name: TOKENS + k for k, name in enumerate(names)}}


def test_every_vocab_size_is_updated(base: Path, tmp_path: Path) -> None:
    edit_json(base / "config.json", vocab_size=TOKENS, other_config={"vocab_size": 77})
    expand(base, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    sizes = (config["vocab_size"], config["text_config"]["vocab_size"], config["other_config"]["vocab_size"])
    assert sizes == (1344, 1344, 77)


def test_other_files_are_copied_and_stale_weights_are_not(base: Path, tmp_path: Path) -> None:
    (base / "templates").mkdir()
    (base / "templates" / "a.jinja").write_text("template")
    (base / "pytorch_model.bin").write_bytes(b"old weights")
    (base / ".cache").mkdir()
    out = expand(base, tmp_path / "out").output
    same = ["chat_template.jinja", "processor_config.json", "tokenizer_config.json", "templates/a.jinja"]
    assert all((base / name).read_bytes() == (out / name).read_bytes() for name in same)
    assert {path.name for path in out.iterdir()} - {path.name for path in base.iterdir()} == {"coordcore.json"}
    assert {path.name for path in base.iterdir()} - {path.name for path in out.iterdir()} == {
        "pytorch_model.bin",
        ".cache",
    }


def test_the_checkpoint_says_its_quantisation_and_ids(plain_base: Path, tmp_path: Path) -> None:
    spec = quantisation("qwen_1000")
    report = expand(plain_base, tmp_path / "out", quantisation=spec)
    info = read_checkpoint_info(tmp_path / "out")
    assert info is not None
    assert (info.quantisation, info.vocab) == (spec, report.vocab)
