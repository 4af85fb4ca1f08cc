"""Expansions made once and found again."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from coordcore.errors import InputError, RunError
from coordcore.quantisation import quantisation
from coordcore_train.checkpoint.expand import cached_expansion
from coordcore_train.checkpoint.folder import read_vocab

EMBEDDING = "model.language_model.embed_tokens.weight"


def test_the_cache_gives_an_expansion_and_finds_it_again(plain_base: Path, tmp_path: Path) -> None:
    first = cached_expansion(plain_base, tmp_path)
    written = (first / "config.json").stat().st_mtime_ns
    second = cached_expansion(plain_base, tmp_path)
    assert (second, (second / "config.json").stat().st_mtime_ns) == (first, written)
    assert read_vocab(first).ids[0] == 282
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


def test_the_cache_knows_content_not_names(base: Path, plain_base: Path, tmp_path: Path) -> None:
    same = cached_expansion(plain_base, tmp_path / "cache")
    assert cached_expansion(base, tmp_path / "cache") == same
    (base / "chat_template.jinja").write_text("another template")
    assert cached_expansion(base, tmp_path / "cache") != same


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"initialiser": "smooth"}, {"quantisation": quantisation("qwen_1000")}], ids=str
)
def test_the_cache_knows_the_settings(plain_base: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    assert cached_expansion(plain_base, tmp_path) != cached_expansion(plain_base, tmp_path, **change)


def test_the_cache_folder_comes_from_the_environment(
    plain_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COORDCORE_CACHE", str(tmp_path / "here"))
    assert cached_expansion(plain_base).parent == tmp_path / "here" / "expanded"


def test_large_files_are_sampled_but_a_rewritten_one_is_noticed(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordcore_train.checkpoint.expand._HASHED_WHOLE", 1000)
    first = cached_expansion(base, tmp_path / "cache")
    weights = load_file(base / "model.safetensors")
    weights[EMBEDDING][0, 0] += 1
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    assert cached_expansion(base, tmp_path / "cache") != first


def test_a_cache_that_cannot_be_made_is_told_with_its_variable(
    plain_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COORDCORE_CACHE", str(tmp_path / "file"))

    with pytest.raises(InputError) as caught:
        cached_expansion(plain_base)
    assert str(caught.value) == (
        f"{tmp_path}/file: the cache folder cannot be made: file exists; make room there, or name another one in "
        "COORDCORE_CACHE"
    )


def test_a_cache_without_room_is_told_with_its_variable(plain_base: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(RunError, match=r"cannot be written: file too large; make room there, .*COORDCORE_CACHE"):
            cached_expansion(plain_base, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
