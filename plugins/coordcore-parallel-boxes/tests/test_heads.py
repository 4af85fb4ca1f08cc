"""The heads and their file: what is saved is loaded, for the model that it was trained for and no other."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from boxes_support import checkpoint, model_of
from safetensors.torch import load_file, save_file

from coordcore.coords import CoordFormat, CoordVocab
from coordcore.errors import InputError
from coordcore_parallel_boxes.heads import (
    FILE,
    FOLDER,
    Heads,
    coord_rows,
    fingerprint,
    layers_of,
    load,
    require_place,
    save,
)

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def asked(base: Path) -> tuple[Any, Any, CoordVocab]:
    return model_of(base)


def heads_of(asked: tuple[Any, Any, CoordVocab], rank: int = 4) -> Heads:
    rows = coord_rows(asked[0], asked[2])
    return Heads(layers_of(asked[0]), rows.shape[1], rank, rows)


@pytest.fixture
def saved(asked: tuple[Any, Any, CoordVocab], tmp_path: Path) -> Path:
    save(heads_of(asked), tmp_path, asked[0], asked[2], overwrite=False)
    return tmp_path / FOLDER


def rewrite(folder: Path, **changes: Any) -> None:
    """The file with other things said of it."""
    from safetensors import safe_open

    with safe_open(folder / FILE, "pt") as file:
        said = json.loads(file.metadata()["heads"])
    tensors = load_file(folder / FILE)
    (folder / FILE).unlink()
    save_file(tensors, folder / FILE, metadata={"format": "1", "heads": json.dumps({**said, **changes})})


def test_one_of_the_bins_for_each_further_corner(asked: tuple[Any, Any, CoordVocab]) -> None:
    heads = heads_of(asked)
    hidden = torch.randn(5, len(heads.layers), 32)
    assert heads.logits(hidden).shape == (5, 3, 1000)
    assert torch.equal(heads(hidden), heads.logits(hidden).argmax(-1))


def test_half_precision_states_are_seen_in_full(asked: tuple[Any, Any, CoordVocab]) -> None:
    heads = heads_of(asked)
    hidden = torch.randn(3, len(heads.layers), 32).bfloat16()
    assert torch.equal(heads.logits(hidden), heads.logits(hidden.float()))


def test_what_is_saved_is_loaded(asked: tuple[Any, Any, CoordVocab], tmp_path: Path) -> None:
    model, _, vocab = asked
    heads = heads_of(asked)
    path = save(heads, tmp_path, model, vocab, overwrite=False)
    found = load(tmp_path / FOLDER, model, vocab)
    hidden = torch.randn(5, len(heads.layers), 32)
    assert torch.equal(found.logits(hidden), heads.logits(hidden))
    assert (found.layers, len(found.digest)) == (heads.layers, 16)
    assert path == tmp_path / "parallel_boxes" / "heads.safetensors"
    assert not any(weight.requires_grad for weight in found.parameters())


def test_no_weights_lie_beside_those_of_the_model(saved: Path) -> None:
    assert [path.name for path in saved.parent.iterdir()] == [FOLDER]


def test_heads_are_replaced_only_when_asked(asked: tuple[Any, Any, CoordVocab], saved: Path) -> None:
    model, _, vocab = asked
    with pytest.raises(InputError, match="parallel_boxes"):
        save(heads_of(asked), saved.parent, model, vocab, overwrite=False)
    save(heads_of(asked, rank=7), saved.parent, model, vocab, overwrite=True)
    assert load(saved, model, vocab).down.out_features == 7


def test_the_fingerprint_is_of_the_numbers(base: Path, asked: tuple[Any, Any, CoordVocab]) -> None:
    half = model_of(base, torch.bfloat16)[0]
    assert fingerprint(half) == fingerprint(half.float())
    assert fingerprint(half) != fingerprint(asked[0])


def test_a_fingerprint_reads_a_large_matrix_to_its_end() -> None:
    class Large:
        def state_dict(self) -> dict[str, torch.Tensor]:
            return {"weight": torch.zeros(1, dtype=torch.uint8).expand(2**25)}

    assert len(fingerprint(Large())) == 64


def test_others_may_read_what_was_saved(saved: Path) -> None:
    usual = saved / "usual"
    usual.write_text("")
    assert (saved / FILE).stat().st_mode == usual.stat().st_mode


def test_heads_of_other_weights_are_refused(saved: Path, tmp_path: Path) -> None:
    other, _, vocab = model_of(checkpoint(tmp_path / "other", seed=1))
    with pytest.raises(InputError, match="was trained for other weights than those it lies beside; train them"):
        load(saved, other, vocab)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 64}, "is of a model with hidden_size 64, this one has 32"),
        ({"bins": 1024}, "is of a model with bins 1024, this one has 1000"),
        ({"order": "yx"}, "is of a model with order 'yx', this one has 'xy'"),
        ({"rank": 5}, "holds other tensors than it says"),
        ({"rank": "5"}, "holds other tensors than it says"),
        ({"layers": None}, "holds other tensors than it says"),
        ({"model": None}, "was trained for other weights"),
    ],
)
def test_heads_that_do_not_fit(
    asked: tuple[Any, Any, CoordVocab], saved: Path, changes: dict[str, Any], message: str
) -> None:
    rewrite(saved, **changes)
    with pytest.raises(InputError, match=message):
        load(saved, asked[0], asked[2])


@pytest.mark.parametrize("layer", [9, -1, 0.5, "9", [1]])
def test_layers_that_the_model_lacks(asked: tuple[Any, Any, CoordVocab], saved: Path, layer: Any) -> None:
    count = len(layers_of(asked[0]))
    rewrite(saved, layers=[layer] * count)
    with pytest.raises(InputError, match=re.escape(f"reads the hidden states {layer!r} of a model that has")):
        load(saved, asked[0], asked[2])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "format None is not '1'"),
        ({"format": "1"}, "does not say of which model its heads are; train them"),
        ({"format": "1", "heads": "[]"}, "does not say of which model its heads are"),
        ({"format": "1", "heads": "[" * 100_000}, "cannot be read: "),
    ],
)
def test_files_that_say_nothing_of_a_model(
    asked: tuple[Any, Any, CoordVocab], saved: Path, metadata: dict[str, str], message: str
) -> None:
    tensors = load_file(saved / FILE)
    (saved / FILE).unlink()
    save_file(tensors, saved / FILE, metadata=metadata)
    with pytest.raises(InputError, match=message):
        load(saved, asked[0], asked[2])


def test_a_folder_that_is_read_only_is_told_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_place(tmp_path, overwrite=False)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # as root, every folder is writable
    with pytest.raises(InputError, match="must be writable, since heads lie in it"):
        require_place(tmp_path, overwrite=True)
    (tmp_path / FOLDER).mkdir()
    with pytest.raises(InputError, match="exists; replace it with --overwrite"):
        require_place(tmp_path, overwrite=False)


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"no tensors at all"])
def test_damaged_files(asked: tuple[Any, Any, CoordVocab], saved: Path, content: bytes) -> None:
    (saved / FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"heads\.safetensors: "):
        load(saved, asked[0], asked[2])


def test_a_folder_without_its_file(asked: tuple[Any, Any, CoordVocab], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"heads\.safetensors: no such file; train them for this checkpoint"):
        load(tmp_path, asked[0], asked[2])


def test_coord_tokens_in_another_order(asked: tuple[Any, Any, CoordVocab], saved: Path) -> None:
    vocab = CoordVocab(ids=asked[2].ids, format=CoordFormat(order="yx"))
    with pytest.raises(InputError, match="is of a model with order 'xy', this one has 'yx'"):
        load(saved, asked[0], vocab)
