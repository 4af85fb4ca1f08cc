"""Safetensors checkpoints at the byte level: which file holds a tensor, and rewriting a matrix's rows. Torch-free."""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import attrs

from coordcore.checkpoint import read_json, write_json
from coordcore.records import InputError

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


def weight_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> the safetensors file that holds it, for a single-file or a sharded checkpoint.

    Raises InputError when the folder has no safetensors weights, or the index names files that are not there.
    """
    folder = Path(folder)
    if (folder / INDEX_FILE).exists():
        index = read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(index, dict) or not index:
            raise InputError(f"{folder / INDEX_FILE}: has no weight_map; download or save the checkpoint again")
        missing = sorted({name for name in index.values() if not (folder / name).exists()})
        if missing:
            raise InputError(f"{folder}: {INDEX_FILE} names {', '.join(missing)}, which is missing; download it again")
        return {name: folder / file for name, file in index.items()}
    if (folder / SINGLE_FILE).exists():
        header, _ = read_header(folder / SINGLE_FILE)
        return {name: folder / SINGLE_FILE for name in header if name != "__metadata__"}
    if any(folder.glob("*.bin")):
        raise InputError(f"{folder}: has .bin weights only; load it and save it again with transformers (safetensors)")
    raise InputError(f"{folder}: has no {SINGLE_FILE} and no {INDEX_FILE}; is this a checkpoint folder?")


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file and the offset of its data. Raises InputError when it is damaged."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if 8 + length > size:
            raise InputError(f"{path}: not a safetensors file, or cut off; download or save it again")
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise InputError(f"{path}: not a safetensors file: {error}; download or save it again") from error
    end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    if 8 + length + end != size:
        raise InputError(f"{path}: {size} bytes, but its header needs {8 + length + end}; download or save it again")
    return header, 8 + length


def vocabulary_matrices(folder: Path) -> dict[str, Matrix]:
    """The matrices with one row per token id: "embedding", and "head" where the checkpoint stores one.

    Raises InputError when the embedding cannot be told, or when the weights are quantised.
    """
    files = weight_files(folder)
    found = {}
    for role, suffix in (("embedding", _EMBEDDING), ("head", _HEAD)):
        names = [name for name in files if name == suffix or name.endswith(f".{suffix}")]
        if len(names) > 1 or (role == "embedding" and not names):
            raise InputError(f"{folder}: needs one tensor called *{suffix}, found {names or 'none'}")
        for name in names:
            entry = read_header(files[name])[0].get(name)
            if entry is None:
                raise InputError(f"{files[name]}: lacks {name}, which {INDEX_FILE} promises; download it again")
            if entry["dtype"] not in _HALF_OR_FULL or len(entry["shape"]) != 2:
                raise InputError(
                    f"{files[name]}: {name} is {entry['dtype']} {entry['shape']}, not a BF16, F16 or F32 matrix; "
                    "expand the original checkpoint and quantise afterwards"
                )
            rows, columns = entry["shape"]
            found[role] = Matrix(name=name, file=files[name], rows=rows, columns=columns)
    return found


def copy_weights(base: Path, folder: Path, blocks: Mapping[str, RowBlock]) -> None:
    """Copy the weights of the checkpoint `base` to `folder`, shard by shard, with the rows of `blocks` written."""
    files = weight_files(base)
    for file in sorted(set(files.values())):
        copy_with_rows(file, folder / file.name, {name: blocks[name] for name in blocks if files[name] == file})
    if not (base / INDEX_FILE).exists():
        return
    headers = [read_header(folder / file.name)[0] for file in set(files.values())]
    tensors = [entry for header in headers for name, entry in header.items() if name != "__metadata__"]
    index = read_json(base / INDEX_FILE)
    metadata = index.setdefault("metadata", {})
    metadata["total_size"] = sum(high - low for low, high in (entry["data_offsets"] for entry in tensors))
    if "total_parameters" in metadata:
        metadata["total_parameters"] = sum(math.prod(entry["shape"]) for entry in tensors)
    write_json(folder / INDEX_FILE, index)


def copy_with_rows(source: Path, target: Path, blocks: Mapping[str, RowBlock]) -> None:
    """Copy a safetensors file, with the rows of the named matrices replaced, and appended where they are new.

    Streams: holds no tensor in memory. Every other byte of data stays what it was. Without blocks it is a plain copy.
    """
    if not blocks:
        shutil.copyfile(source, target)
        return
    header, start = read_header(source)
    metadata = header.pop("__metadata__", None)
    entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"][0])
    new_header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, entry in entries:
        low, high = entry["data_offsets"]
        size, shape = high - low, list(entry["shape"])
        if name in blocks:
            row_bytes = size // shape[0]
            shape[0] = max(shape[0], blocks[name].first + blocks[name].rows)
            size = shape[0] * row_bytes
        new_header[name] = {"dtype": entry["dtype"], "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(new_header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # the data starts aligned, as safetensors itself writes it
    with source.open("rb") as reader, target.open("wb") as writer:
        writer.write(struct.pack("<Q", len(raw)) + raw)
        for name, entry in entries:
            low, high = (start + offset for offset in entry["data_offsets"])
            block = blocks.get(name)
            if block is None:
                _copy_range(reader, writer, low, high)
                continue
            row_bytes = (high - low) // entry["shape"][0]
            _copy_range(reader, writer, low, low + block.first * row_bytes)
            writer.write(block.data)
            _copy_range(reader, writer, low + (block.first + block.rows) * row_bytes, high)
    read_header(target)  # its size check notices a source that shrank meanwhile


def _copy_range(reader: IO[bytes], writer: IO[bytes], low: int, high: int) -> None:
    reader.seek(low)
    step = 1 << 22
    for at in range(low, high, step):
        writer.write(reader.read(min(step, high - at)))
