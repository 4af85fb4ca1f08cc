"""The doctor's checks of the base's files: every fault is planted in a copy of a tiny checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from doctor_support import (
    EMBEDDING,
    HEAD,
    change_json,
    change_weights,
    copied,
    doctor_plugin,
    everything,
    examined,
    finding,
)

from coordcore.coords import CoordVocab
from coordcore.quantisation import quantisation
from coordcore_train.checkpoint.folder import read_vocab, write_checkpoint_info
from coordcore_train.testing.tiny import tiny_qwen3vl


@pytest.fixture(scope="module", autouse=True)
def _plugin(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with doctor_plugin(tmp_path_factory.mktemp("plugin")):
        yield


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen3vl(tmp_path_factory.mktemp("tied") / "base", padding_rows=40)


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen3vl(tmp_path_factory.mktemp("untied") / "base", tie_word_embeddings=False)


@pytest.fixture
def base(tied: Path, tmp_path: Path) -> Path:
    return copied(tied, tmp_path)


def ids(base: Path) -> slice:
    vocab = read_vocab(base)
    return slice(vocab.ids[0], vocab.ids[-1] + 1)


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_special_coord_tokens_vanish_from_answers(base: Path, tmp_path: Path) -> None:
    def special(data: dict[str, Any]) -> None:
        for token in data["added_tokens"]:
            token["special"] = token["special"] or token["content"] in ("<|coord_7|>", "<|coord_8|>")

    change_json(base / "tokenizer.json", special)
    found = finding("coord tokens", examined(tmp_path, base))
    assert found.state == "error"
    assert found.seen == "2 of 1000 are special (<|coord_7|>, <|coord_8|>): they vanish from decoded answers"
    assert found.cure.startswith('set "special": false in tokenizer.json')


def test_a_coord_token_that_is_read_in_pieces(base: Path, tmp_path: Path) -> None:
    def one_word(data: dict[str, Any]) -> None:  # which it is not beside a letter
        for token in data["added_tokens"]:
            token["single_word"] = token["content"] == "<|coord_7|>"

    change_json(base / "tokenizer.json", one_word)
    change_json(base / "tokenizer_config.json", lambda data: data.pop("added_tokens_decoder", None))
    found = finding("coord tokens", examined(tmp_path, base))
    assert (found.state, found.seen) == ("error", "1 of 1000 are read in pieces (<|coord_7|>)")
    assert "not single_word" in found.cure


def test_a_missing_coord_token(base: Path, tmp_path: Path) -> None:
    def without(data: dict[str, Any]) -> None:
        data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] != "<|coord_999|>"]

    change_json(base / "tokenizer.json", without)
    change_json(base / "tokenizer_config.json", lambda data: data.pop("added_tokens_decoder", None))
    run = examined(tmp_path, base)
    with pytest.raises(Exception, match="lacks 1 of the 1000 coord tokens") as caught:
        finding("coord tokens", run)
    assert "coordcore expand" in str(caught.value)


# --- ids and rows ---------------------------------------------------------------------------------------------------


def test_ids_outside_the_matrix(base: Path, tmp_path: Path) -> None:
    last = ids(base).stop - 1

    def shrink(tensors: dict[str, torch.Tensor]) -> None:
        tensors[EMBEDDING] = tensors[EMBEDDING][: last - 5].clone()

    change_weights(base, shrink)
    found = finding("coord ids", examined(tmp_path, base))
    assert found.state == "error"
    assert found.seen == f"the last coord token is id {last}, but embedding has {last - 5} rows"
    assert found.cure.startswith("tokenizer and weights are not of one checkpoint")


def test_a_config_of_another_size(base: Path, tmp_path: Path) -> None:
    change_json(base / "config.json", lambda data: data["text_config"].update(vocab_size=5000))
    found = finding("coord ids", examined(tmp_path, base))
    assert (found.state, found.seen.endswith("config.json vocab_size 5000")) == ("error", True)


def test_coord_rows_that_nobody_wrote(base: Path, tmp_path: Path) -> None:
    rows = ids(base)
    change_weights(base, lambda tensors: tensors[EMBEDDING][rows][:267].zero_())
    found = finding("coord rows", examined(tmp_path, base))
    assert found.state == "error"
    assert found.seen == "embedding: 267 rows are zero (<|coord_0|>, <|coord_1|>, and 265 more)"
    assert found.cure.startswith("all 1000 rows must be written: expand the original base")


def test_coord_rows_that_resizing_left_in_padding(base: Path, tmp_path: Path) -> None:
    rows = ids(base)

    def resize(tensors: dict[str, torch.Tensor]) -> None:  # as transformers does: old padding rows stay
        matrix = tensors[EMBEDDING]
        fresh = matrix[: rows.start].mean(0) + 1e-6 * torch.randn(733, matrix.shape[1])
        matrix[rows.start + 267 : rows.stop] = fresh

    change_weights(base, resize)
    found = finding("coord rows", examined(tmp_path, base))
    assert found.state == "error"
    assert "733 rows are practically one, the others (<|coord_0|>, <|coord_1|>, and 265 more) are not" in found.seen


def test_coord_rows_that_start_alike(base: Path, tmp_path: Path) -> None:
    rows = ids(base)

    def resize(tensors: dict[str, torch.Tensor]) -> None:
        matrix = tensors[EMBEDDING]
        matrix[rows] = matrix[: rows.start].mean(0) + 1e-6 * torch.randn(1000, matrix.shape[1])

    change_weights(base, resize)
    found = finding("coord rows", examined(tmp_path, base))
    assert (found.state, found.cure.startswith("expand the original base")) == ("warning", True)


def test_two_coord_tokens_with_one_row(base: Path, tmp_path: Path) -> None:
    first = ids(base).start

    def repeat(tensors: dict[str, torch.Tensor]) -> None:
        tensors[EMBEDDING][first + 1] = tensors[EMBEDDING][first]

    change_weights(base, repeat)
    found = finding("coord rows", examined(tmp_path, base))
    assert (found.state, found.seen) == ("error", "embedding: 999 distinct rows for 1000 tokens")


def test_rows_of_other_tokens_that_are_not_finite(base: Path, tmp_path: Path) -> None:
    first = ids(base).start
    change_weights(base, lambda tensors: tensors[EMBEDDING][5].fill_(torch.nan))
    found = finding("coord rows", examined(tmp_path, base))
    assert (found.state, found.seen) == (
        "error",
        f"embedding: 1 of the first {first} rows, of other tokens, are not finite",
    )


def test_padding_rows_longer_than_those_of_tokens(base: Path, tmp_path: Path) -> None:
    change_weights(base, lambda tensors: tensors[EMBEDDING][-1].mul_(100))
    found = finding("padding rows", examined(tmp_path, base))
    assert found.state == "warning"
    assert "40 rows belong to no token" in found.seen
    assert found.cure == "set those rows to the mean of the others, and save the base anew"


def test_padding_rows_that_are_not_finite(base: Path, tmp_path: Path) -> None:
    change_weights(base, lambda tensors: tensors[EMBEDDING][-2:].fill_(torch.nan))
    found = finding("padding rows", examined(tmp_path, base))
    assert (found.state, found.seen) == ("error", "embedding: 2 of 40 are not finite")


# --- tie ------------------------------------------------------------------------------------------------------------


def tie(base: Path, **values: bool) -> None:
    def change(data: dict[str, Any]) -> None:
        data["tie_word_embeddings"] = values["top"]
        data["text_config"]["tie_word_embeddings"] = values["text"]

    change_json(base / "config.json", change)


def test_a_config_that_unties_what_is_one_matrix(base: Path, tmp_path: Path) -> None:
    tie(base, top=False, text=False)
    found = finding("tied head", examined(tmp_path, base))
    assert (found.state, found.seen.endswith("the head would be random")) == ("error", True)
    assert found.cure.startswith("set tie_word_embeddings = true")


def test_a_config_that_ties_two_matrices(untied: Path, tmp_path: Path) -> None:
    base = copied(untied, tmp_path)
    tie(base, top=True, text=True)
    found = finding("tied head", examined(tmp_path, base))
    assert found.state == "error"
    assert f"{HEAD} is stored and differs: it would be dropped" in found.seen
    assert found.cure.startswith("set tie_word_embeddings = false")


def test_a_config_that_contradicts_itself(base: Path, tmp_path: Path) -> None:
    tie(base, top=True, text=False)
    found = finding("tied head", examined(tmp_path, base))
    assert found.seen == "tie_word_embeddings: config.json says True, its text_config says False"


def test_two_matrices_are_well(untied: Path, tmp_path: Path) -> None:
    found = finding("tied head", examined(tmp_path, untied))
    assert (found.state, found.seen) == ("ok", "embedding and head are two matrices")


# --- weights --------------------------------------------------------------------------------------------------------

UP = "model.language_model.layers.0.mlp.up_proj.weight"


def test_weights_that_lack_a_tensor(base: Path, tmp_path: Path) -> None:
    change_weights(base, lambda tensors: tensors.pop(UP))
    found = everything(examined(tmp_path, base))["base weights"]
    assert (found.state, found.seen) == (
        "error",
        f"{base}: lacks {UP} (1 tensors of the model)",
    )


def test_weights_of_another_shape(base: Path, tmp_path: Path) -> None:
    change_weights(base, lambda tensors: tensors.update({UP: tensors[UP][:-1].clone()}))
    found = everything(examined(tmp_path, base))["base weights"]
    assert (found.state, found.seen.startswith(f"{base / 'model.safetensors'}: {UP} is [")) == ("error", True)


def test_weights_that_are_read_otherwise_than_tensor_by_tensor(untied: Path, tmp_path: Path) -> None:
    base = copied(untied, tmp_path)
    tie(base, top=True, text=True)
    found = finding("base weights", examined(tmp_path, base))
    assert (found.state, found.seen) == (
        "not applicable",
        f"looked at when the model is loaded: {base} stores {HEAD}, which its config ties to another tensor",
    )


# --- quantisation ---------------------------------------------------------------------------------------------------


def test_a_base_of_another_convention(base: Path, tmp_path: Path) -> None:
    write_checkpoint_info(base, quantisation=quantisation("qwen_1000"), vocab=read_vocab(base))
    found = finding("quantisation", examined(tmp_path, base))
    assert found.state == "error"
    assert found.seen.startswith("the base is quantised as qwen_1000 (version 1), the manifest as nearest_999")
    assert found.cure.startswith("use one convention throughout")


def test_a_base_with_the_ids_of_another(base: Path, tmp_path: Path) -> None:
    write_checkpoint_info(base, quantisation=quantisation("nearest_999"), vocab=CoordVocab(ids=range(1000)))
    found = finding("quantisation", examined(tmp_path, base))
    assert (found.state, found.seen.startswith("coordcore.json says ids CoordVocab(ids=0..999)")) == ("error", True)


# --- the base itself ------------------------------------------------------------------------------------------------


def test_a_base_without_coord_tokens(tmp_path: Path) -> None:
    base = tiny_qwen3vl(tmp_path / "base", coord_tokens=False)
    run = examined(tmp_path, base)
    with pytest.raises(Exception, match="has no coord tokens; add a \\[vocab\\] section"):
        finding("base", run)


def test_a_base_that_vocab_expands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDCORE_CACHE", str(tmp_path / "cache"))
    base = tiny_qwen3vl(tmp_path / "base", coord_tokens=False)
    run = examined(tmp_path, base, vocab={})
    names = ("base", "coord tokens", "coord ids", "coord rows", "padding rows", "tied head", "quantisation")
    assert [(name, finding(name, run).state) for name in names] == [(name, "ok") for name in names]


# --- code -----------------------------------------------------------------------------------------------------------


def test_python_in_the_base_is_an_error_and_is_not_run(base: Path, tmp_path: Path) -> None:
    marker = tmp_path / "EXECUTED"
    (base / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    for file, name in (("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")):
        change_json(base / file, lambda data, name=name: data.update(auto_map={name: "evil.C"}))
    found = everything(examined(tmp_path, base))
    assert not marker.exists()
    assert found["manifest"].state == "error"
    assert "tokenizer_config.json: auto_map.AutoTokenizer names the class 'evil.C'" in found["manifest"].seen
    assert "trust_remote_code = true" in found["manifest"].cure
    assert found["base"].state == "error"
    assert "auto_map" in found["base"].seen
