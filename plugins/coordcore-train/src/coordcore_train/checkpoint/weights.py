"""Safetensors checkpoints: which file holds a tensor, and copying one with rows of a matrix rewritten. Torch-free."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from coordcore.errors import InputError
from coordcore_train.checkpoint.folder import read_json, write_json
from coordcore_train.checkpoint.tensorfile import Stored, TensorSpec, WeightFile, metadata_of, tensors_in

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"

_EMBEDDING = "embed_tokens.weight"
_HEAD = "lm_head.weight"
_HALF_OR_FULL = ("BF16", "F16", "F32")


@attrs.frozen(kw_only=True)
class Matrix:
    """A two-dimensional tensor in a safetensors file: `rows` x `columns`."""

    name: str
    file: Path
    rows: int
    columns: int


@attrs.frozen(kw_only=True)
class RowBlock:
    """New rows for a matrix, from row `first` on: `rows` of them, as the raw bytes of the file's own dtype."""

    first: int
    rows: int
    data: bytes


# --- reading ----------------------------------------------------------------------------------------------------------


def weights_entry(folder: Path) -> Path | None:
    """Where transformers starts to load: the single file, else the index, else None.

    It never takes a variant (`model.fp16.safetensors`) that it is not asked for. Raises InputError when `config.json`
    names another file.
    """
    config = Path(folder) / "config.json"
    named = read_json(config).get("transformers_weights") if config.is_file() else None
    if named is not None:
        raise InputError(
            f"{config}: transformers_weights is {named!r}, and only {SINGLE_FILE} or {INDEX_FILE} is read; "
            "load the checkpoint and save it again with transformers"
        )
    return next((file for name in (SINGLE_FILE, INDEX_FILE) if (file := config.with_name(name)).is_file()), None)


def is_sharded(folder: Path) -> bool:
    """Whether the safetensors weights in `folder` are read by their index. Raises as `weights_entry`."""
    entry = weights_entry(folder)
    return entry is not None and entry.name == INDEX_FILE


def weight_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> the safetensors file that holds it, for a single-file or a sharded checkpoint.

    Raises InputError when the folder has no safetensors weights, or the index is damaged or names files that are not
    there.
    """
    folder = Path(folder)
    entry = weights_entry(folder)
    if entry is not None and entry.name == SINGLE_FILE:
        return {tensor.name: entry for tensor in tensors_in(entry)}
    if entry is not None:
        files = _read_index(folder)["weight_map"]
        missing = sorted({file for file in files.values() if not (folder / file).is_file()})
        if missing:
            raise InputError(f"{folder}: {INDEX_FILE} names {', '.join(missing)}, which is missing; download it again")
        return {name: folder / file for name, file in files.items()}
    if any(folder.glob("*.bin")):
        raise InputError(
            f"{folder}: has .bin weights only, and safetensors are read; convert it: load it with transformers' "
            "AutoModelForImageTextToText and AutoProcessor, and save both with save_pretrained into a new folder"
        )
    raise InputError(f"{folder}: has no {SINGLE_FILE} and no {INDEX_FILE}; is this a checkpoint folder?")


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of a single-file or sharded checkpoint by name, file after file, in the order they lie in.

    Raises InputError as `weight_files`, when a file lacks a tensor that the index promises, and when two files hold
    the same one.
    """
    files = weight_files(folder)
    found: dict[str, Stored] = {}
    for item in (tensor for file in sorted(set(files.values())) for tensor in tensors_in(file)):
        first = found.setdefault(item.name, item)
        if first is not item:
            both = f"{first.file.name} and {item.file.name}"
            raise InputError(f"{folder}: {both} both hold {item.name}, and only one may; download it again")
    for name, file in files.items():
        if name not in found or found[name].file != file:
            raise InputError(f"{file}: lacks {name}, which {INDEX_FILE} promises; download it again")
    return found


def _read_index(folder: Path) -> dict[str, Any]:
    """The index of sharded weights, its `weight_map` and `metadata` as they should be. Raises InputError."""
    path = folder / INDEX_FILE
    index = read_json(path)
    index["metadata"] = {} if index.get("metadata") is None else index["metadata"]
    files = index.get("weight_map")
    if not isinstance(files, dict) or not files:
        raise InputError(f"{path}: has no weight_map; download or save the checkpoint again")
    if not isinstance(index["metadata"], dict):
        raise InputError(f"{path}: metadata is {index['metadata']!r}, not an object; download it again")
    for name, file in files.items():
        if not isinstance(file, str):
            raise InputError(f"{path}: weight_map says {file!r} for {name}, which names no file; download it again")
        if Path(file).name != file:
            raise InputError(
                f"{path}: weight_map puts {name} into {file!r}, but files are read only where the index is; "
                "load the checkpoint and save it again with transformers"
            )
    return index


def vocabulary_matrices(folder: Path) -> dict[str, Matrix]:
    """The matrices with one row per token id: "embedding", and "head" where the checkpoint stores one.

    Raises InputError when the embedding cannot be told, or when the weights are quantised.
    """
    tensors = stored_tensors(folder)
    found = {}
    for role, suffix in (("embedding", _EMBEDDING), ("head", _HEAD)):
        names = [name for name in tensors if name == suffix or name.endswith(f".{suffix}")]
        if len(names) > 1 or (role == "embedding" and not names):
            raise InputError(f"{folder}: needs one tensor called *{suffix}, found {names or 'none'}")
        for name in names:
            tensor = tensors[name]
            if tensor.dtype not in _HALF_OR_FULL or len(tensor.shape) != 2:
                raise InputError(
                    f"{tensor.file}: {name} is {tensor.dtype} {list(tensor.shape)}, not a BF16, F16 or F32 matrix; "
                    "expand the original checkpoint and quantise afterwards"
                )
            found[role] = Matrix(name=name, file=tensor.file, rows=tensor.shape[0], columns=tensor.shape[1])
    return found


# --- writing ----------------------------------------------------------------------------------------------------------


def copy_weights(base: Path, folder: Path, blocks: Mapping[str, RowBlock]) -> None:
    """Copy the weights of the checkpoint `base` to `folder`, shard by shard, with the rows of `blocks` written."""
    # Not as the index says: transformers loads what lies in the files, also what the index does not name.
    files = {name: tensor.file for name, tensor in stored_tensors(base).items()}
    written = {}
    for file in sorted(set(files.values())):
        target = folder / file.name
        copy_with_rows(file, target, {name: blocks[name] for name in blocks if files[name] == file})
        written[file.name] = tensors_in(target)  # its size check notices a source that shrank meanwhile
    if is_sharded(base):
        write_index(folder, written, like=base)


def copy_with_rows(source: Path, target: Path, blocks: Mapping[str, RowBlock]) -> None:
    """Copy a safetensors file, with the rows of the named matrices replaced, and appended where they are new.

    Streams: holds no tensor in memory. Every other byte of data stays what it was. Without blocks it is a plain copy.
    """
    if not blocks:
        shutil.copyfile(source, target)
        return
    tensors = tensors_in(source)
    specs = [_grown(tensor, blocks.get(tensor.name)) for tensor in tensors]
    output = WeightFile(target, specs, metadata_of(source), copied={tensor.name: tensor for tensor in tensors})
    try:
        for tensor in tensors:
            if tensor.name not in blocks:
                output.copy(tensor.name, tensor)
                continue
            block, row = blocks[tensor.name], tensor.size // tensor.shape[0]
            first, behind = block.first * row, (block.first + block.rows) * row
            output.copy(tensor.name, tensor, 0, first)
            output.write(tensor.name, block.data, first)
            output.copy(tensor.name, tensor, min(behind, tensor.size))
        output.close()
    finally:
        output.abandon()


def _grown(stored: Stored, block: RowBlock | None) -> TensorSpec:
    if block is None:
        return stored
    rows = max(stored.shape[0], block.first + block.rows)
    size = stored.size // stored.shape[0] * rows
    return TensorSpec(name=stored.name, dtype=stored.dtype, shape=(rows, *stored.shape[1:]), size=size)


def write_index(folder: Path, files: Mapping[str, Sequence[TensorSpec]], *, like: Path) -> None:
    """Write the index of sharded weights, file name -> tensors, with whatever else the index in `like` says."""
    tensors = [spec for specs in files.values() for spec in specs]
    index = _read_index(like)
    metadata = index["metadata"]
    metadata["total_size"] = sum(tensor.size for tensor in tensors)
    if "total_parameters" in metadata:
        metadata["total_parameters"] = sum(math.prod(tensor.shape) for tensor in tensors)
    names = {spec.name: file for file, specs in files.items() for spec in specs}
    known = {name: names.pop(name) for name in index["weight_map"] if name in names}
    index["weight_map"] = {**known, **names}
    write_json(folder / INDEX_FILE, index)
