"""Which file of a checkpoint holds a tensor, as transformers would find it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coordcore.errors import InputError
from coordcore_train.checkpoint.folder import read_json
from coordcore_train.checkpoint.tensorfile import TensorSpec, WeightFile
from coordcore_train.checkpoint.weights import RowBlock, copy_weights, stored_tensors, vocabulary_matrices, weight_files


def write(folder: Path, file: str, *names: str) -> None:
    """A safetensors file of one byte for each name."""
    folder.mkdir(exist_ok=True)
    output = WeightFile(folder / file, [TensorSpec(name=name, dtype="U8", shape=(1,), size=1) for name in names])
    for name in names:
        output.write(name, b"\0")
    output.close()


def index(folder: Path, **content: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A checkpoint of the tensors a and b, in a file each."""
    base = tmp_path / "base"
    write(base, "model-1.safetensors", "a")
    write(base, "model-2.safetensors", "b")
    index(base, weight_map={"a": "model-1.safetensors", "b": "model-2.safetensors"}, metadata={"total_size": 2})
    return base


def found(folder: Path) -> dict[str, str]:
    return {name: tensor.file.name for name, tensor in stored_tensors(folder).items()}


def test_shards_are_found_by_the_index(sharded: Path) -> None:
    assert found(sharded) == {"a": "model-1.safetensors", "b": "model-2.safetensors"}


def test_a_single_file_beside_an_index_is_what_counts(sharded: Path, tmp_path: Path) -> None:
    write(sharded, "model.safetensors", "a", "b")
    assert found(sharded) == {"a": "model.safetensors", "b": "model.safetensors"}
    (tmp_path / "copy").mkdir()
    copy_weights(sharded, tmp_path / "copy", {})
    assert [file.name for file in (tmp_path / "copy").iterdir()] == ["model.safetensors"]


def test_a_variant_is_no_checkpoint_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "model.fp16.safetensors", "a")
    with pytest.raises(InputError, match=r"has no model\.safetensors and no model\.safetensors\.index\.json"):
        weight_files(tmp_path)


def test_weights_that_the_config_names(sharded: Path) -> None:
    (sharded / "config.json").write_text('{"transformers_weights": "model-1.safetensors"}')
    with pytest.raises(InputError, match=r"config\.json: transformers_weights is 'model-1\.safetensors', and only "):
        vocabulary_matrices(sharded)


def test_a_tensor_in_two_shards(sharded: Path) -> None:
    (sharded / "model-2.safetensors").unlink()
    write(sharded, "model-2.safetensors", "a", "b")
    with pytest.raises(InputError) as caught:
        stored_tensors(sharded)
    both = "model-1.safetensors and model-2.safetensors both hold a, and only one may"
    assert str(caught.value) == f"{sharded}: {both}; download it again"


def test_a_tensor_that_its_shard_lacks(sharded: Path) -> None:
    (sharded / "model-2.safetensors").unlink()
    write(sharded, "model-2.safetensors", "c")
    with pytest.raises(InputError, match=r"model-2\.safetensors: lacks b, which model\.safetensors\.index\.json promi"):
        stored_tensors(sharded)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "has no weight_map; download or save the checkpoint again"),
        ({"weight_map": {}}, "has no weight_map; download or save the checkpoint again"),
        ({"weight_map": ["a"]}, "has no weight_map; download or save the checkpoint again"),
        ({"weight_map": {"a": 1}}, "weight_map says 1 for a, which names no file; download it again"),
        ({"weight_map": {"a": "model-1.safetensors"}, "metadata": [1]}, r"metadata is \[1\], not an object; download"),
        ({"weight_map": {"a": "sub/model-1.safetensors"}}, "weight_map puts a into 'sub/model-1.safetensors', but fil"),
        ({"weight_map": {"a": "../model-1.safetensors"}}, r"weight_map puts a into '\.\./model-1\.safetensors', but"),
    ],
)
def test_a_damaged_index(sharded: Path, content: dict[str, Any], message: str) -> None:
    index(sharded, **content)
    with pytest.raises(InputError, match=rf"base/model\.safetensors\.index\.json: {message}"):
        weight_files(sharded)


@pytest.mark.parametrize("name", ["model-3.safetensors", "", ".."])
def test_a_file_that_is_not_there(sharded: Path, name: str) -> None:
    index(sharded, weight_map={"a": name})
    with pytest.raises(InputError) as caught:
        weight_files(sharded)
    missing = f"model.safetensors.index.json names {name}, which is missing"
    assert str(caught.value) == f"{sharded}: {missing}; download it again"


def test_what_lies_in_a_shard_is_copied_and_named_where_the_index_does_not(sharded: Path, tmp_path: Path) -> None:
    (sharded / "model-2.safetensors").unlink()
    write(sharded, "model-2.safetensors", "b", "c")
    (tmp_path / "copy").mkdir()
    copy_weights(sharded, tmp_path / "copy", {"c": RowBlock(first=0, rows=1, data=b"\1")})
    assert found(tmp_path / "copy") == {"a": "model-1.safetensors", **dict.fromkeys("bc", "model-2.safetensors")}


@pytest.mark.parametrize("metadata", [{}, {"metadata": None}, {"metadata": {"made": "by hand"}}], ids=str)
def test_what_an_index_says_beside_its_map_is_kept(sharded: Path, tmp_path: Path, metadata: dict[str, Any]) -> None:
    files = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    index(sharded, weight_map=files, **metadata)
    (tmp_path / "copy").mkdir()
    copy_weights(sharded, tmp_path / "copy", {})
    expected = {"metadata": {**(metadata.get("metadata") or {}), "total_size": 2}, "weight_map": files}
    assert read_json(tmp_path / "copy" / "model.safetensors.index.json") == expected
