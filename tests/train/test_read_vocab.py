"""The coord vocabulary of a checkpoint folder, from its files alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import support

from coordcore.coords import MissingCoordTokensError, ints_to_tokens
from coordcore.errors import InputError
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_train.checkpoint.base import base_checkpoint
from coordcore_train.checkpoint.folder import read_vocab, write_checkpoint_info
from coordcore_train.swift.check import check


def table(start: int = 100) -> dict[str, int]:
    return {token: start + k for k, token in enumerate(ints_to_tokens(range(1000)))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    added = [{"id": token_id, "content": token, "special": False} for token, token_id in table().items()]
    tokenizer = {"added_tokens": [{"id": 5, "content": "<|coord_*|>"}, *added], "model": {"vocab": {"a": 0}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"vocab_size": 1100}, "vocab_size": 7}))
    return tmp_path


def test_ids_from_a_checkpoint_folder(folder: Path) -> None:
    assert read_vocab(folder).ids == tuple(range(100, 1100))


def test_ids_from_added_tokens_json(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "added_tokens.json").write_text(json.dumps(table(90)))
    assert read_vocab(folder).ids == tuple(range(90, 1090))


def test_a_folder_whose_config_is_too_small(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"vocab_size": 1000}))
    with pytest.raises(InputError, match=r"coord token ids outside the 1000 config.vocab_size: <\|coord_900\|> = 1000"):
        read_vocab(folder)


def test_a_folder_that_was_never_expanded(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"added_tokens": []}')
    with pytest.raises(MissingCoordTokensError, match="the tokenizer has no coord tokens; add the 1000 tokens with"):
        read_vocab(folder)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tokenizer.json; is this a checkpoint folder\?"):
        read_vocab(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"added_tokens": [{"id": "x", "content": "a"}]}'])
def test_a_damaged_tokenizer(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match=r"tokenizer.json: not a tokenizer file"):
        read_vocab(folder)


def test_ids_that_the_tokenizer_does_not_have_are_refused_where_a_run_and_a_check_read_them(
    coord_base: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(coord_base, tmp_path / "base"))
    write_checkpoint_info(base, quantisation=DEFAULT_QUANTISATION, vocab=read_vocab(base))
    file = base / "coordcore.json"
    info = json.loads(file.read_text())
    manifest = support.loaded(tmp_path, base).manifest
    assert [problem for problem in check(manifest) if problem.path == "model.base"] == []

    file.write_text(json.dumps({**info, "coord_ids": info["coord_ids"][::-1]}))
    first, last = info["coord_ids"][0], info["coord_ids"][-1]
    message = (
        rf"coordcore\.json: coord_ids says that <\|coord_0\|> is {last}, and the tokenizer beside it has {first}; "
        "the files are not of one checkpoint"
    )
    for read in (lambda: read_vocab(base), lambda: base_checkpoint(manifest)):
        with pytest.raises(InputError, match=message):
            read()
    [problem] = [problem for problem in check(manifest) if problem.path == "model.base"]
    assert re.search(message, problem.message)


def test_a_coordcore_json_beside_a_tokenizer_without_the_tokens_is_refused(
    plain_base: Path, coord_base: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(plain_base, tmp_path / "base"))
    write_checkpoint_info(base, quantisation=DEFAULT_QUANTISATION, vocab=read_vocab(coord_base))
    manifest = support.loaded(tmp_path, base, vocab={}).manifest
    with pytest.raises(InputError, match=r"coord_ids says that <\|coord_0\|> is \d+, .* has no such token") as caught:
        base_checkpoint(manifest)
    assert type(caught.value) is InputError  # not that of a base without coord tokens, which [vocab] would expand
