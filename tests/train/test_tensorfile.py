"""Safetensors files written piece by piece: bytes in place, and an error for what is missing."""

from __future__ import annotations

import errno
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from coordcore.errors import InputError, RunError
from coordcore_train.checkpoint.tensorfile import (
    Stored,
    TensorSpec,
    WeightFile,
    metadata_of,
    read_bytes,
    read_header,
    tensors_in,
)

MATRIX = TensorSpec(name="matrix", dtype="U8", shape=(4, 3), size=12)
VECTOR = TensorSpec(name="vector", dtype="BF16", shape=(2,), size=4)


def written(path: Path) -> list[Stored]:
    """A file of both tensors: the numbers 0 .. 11, and 20 .. 23."""
    file = WeightFile(path, [MATRIX, VECTOR], {"format": "pt"})
    file.write("vector", bytes(range(20, 24)))
    file.write("matrix", bytes(range(6, 12)), 6)
    file.write("matrix", bytes(range(6)))
    file.close()
    return tensors_in(path)


def content(stored: Stored) -> list[int]:
    data = bytearray(stored.size)
    read_bytes(stored, memoryview(data))
    return list(data)


def test_tensors_written_in_any_order_lie_where_the_header_says(tmp_path: Path) -> None:
    matrix, vector = written(tmp_path / "file")
    assert (content(matrix), content(vector)) == (list(range(12)), [20, 21, 22, 23])
    assert metadata_of(tmp_path / "file") == {"format": "pt"}
    assert read_header(tmp_path / "file")[1] % 8 == 0


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "not a safetensors file: Expected `object`, got `array`"),
        (3, "not a safetensors file: Expected `object`, got `int`"),
        ({"x": 1}, "the header's x: expected object, got int"),
        ({"x": {"dtype": "F32", "shape": [2]}}, "the header's x: object missing required field data_offsets"),
        ({"x": entry(data_offsets=["0", "8"])}, r"the header's x: expected int, got str - at \$\.data_offsets\[0\]"),
        ({"x": entry(data_offsets=[-8, 0])}, r"the header's x: expected int >= 0 - at \$\.data_offsets\[0\]"),
        (
            {"x": entry(data_offsets=[8, 0])},
            r"the header puts x, F32 \[2\], at bytes \[8, 0\], which should be \[0, 8\]",
        ),
        ({"x": entry(data_offsets=[4, 12])}, r"the header puts x, F32 \[2\], at bytes \[4, 12\], which should be"),
        ({"x": entry(shape=[4])}, r"the header puts x, F32 \[4\], at bytes \[0, 8\], which should be \[0, 16\]"),
        ({"x": entry(shape=[-2])}, r"the header's x: expected int >= 0 - at \$\.shape\[0\]"),
        ({"x": entry(dtype="FLOAT")}, "the header's x: unknown dtype 'FLOAT'"),
        ({"x": entry(), "y": entry()}, r"the header puts y, F32 \[2\], at bytes \[0, 8\], which should be \[8, 16\]"),
        ({"x": entry(shape=[1], data_offsets=[0, 4])}, r"\d+ bytes, but its header needs \d+"),
        (b'{"x": "\xff"}', "not a safetensors file: (?i:.*utf-8)"),  # in the words of msgspec's version
        (b'{"x": ' + b"[" * 100_000, "not a safetensors file: maximum recursion depth exceeded"),
        ("{}".encode("utf-16"), "not a safetensors file: JSON is malformed"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_header_that_is_none(tmp_path: Path, header: Any, message: str) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(8))
    with pytest.raises(InputError, match=f"file: {message}.*; download or save it again$"):
        tensors_in(tmp_path / "file")


@pytest.mark.parametrize(
    ("dtype", "count"), [("BOOL", 8), ("F8_E4M3", 8), ("F4", 16), ("C64", 1), ("BF16", 4), ("F64", 1), ("U16", 4)]
)
def test_what_a_number_takes(tmp_path: Path, dtype: str, count: int) -> None:
    raw = json.dumps({"x": entry(dtype=dtype, shape=[count])}).encode()
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(8))
    assert [(tensor.dtype, tensor.size) for tensor in tensors_in(tmp_path / "file")] == [(dtype, 8)]


def test_what_a_file_says_of_itself_is_text(tmp_path: Path) -> None:
    raw = b'{"__metadata__": {"format": 1}}'
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(raw)) + raw)
    with pytest.raises(
        InputError, match=r"file: the header's __metadata__: expected str, got int - at \$\[\.\.\.\]; dow"
    ):
        metadata_of(tmp_path / "file")


def test_rows_of_a_stored_tensor(tmp_path: Path) -> None:
    matrix, _ = written(tmp_path / "file")
    assert (matrix.rows(1, 3).shape, content(matrix.rows(1, 3))) == ((2, 3), [3, 4, 5, 6, 7, 8])


def copied(source: Stored, path: Path) -> list[int]:
    """`source` through copies of its parts, with the third byte written anew."""
    file = WeightFile(path, [MATRIX])
    file.copy("matrix", source, 3)
    file.write("matrix", b"\xff", 2)
    file.copy("matrix", source, 0, 2)
    file.close()
    return content(tensors_in(path)[0])


def test_parts_are_copied_to_the_same_place(tmp_path: Path) -> None:
    matrix, _ = written(tmp_path / "file")
    assert copied(matrix, tmp_path / "copy") == [0, 1, 255, *range(3, 12)]


def test_a_copy_lies_in_its_pages_as_its_source_does(tmp_path: Path) -> None:
    matrix, vector = written(tmp_path / "file")
    file = WeightFile(tmp_path / "copy", [MATRIX, VECTOR], copied={"matrix": matrix, "vector": vector})
    for name, source in (("matrix", matrix), ("vector", vector)):
        file.copy(name, source)
    file.close()
    found = {tensor.name: tensor for tensor in tensors_in(tmp_path / "copy")}
    assert (found["matrix"].offset - matrix.offset) % 4096 == 0
    assert [content(found[item.name]) for item in (matrix, vector)] == [content(matrix), content(vector)]


def test_bytes_are_written_over(tmp_path: Path) -> None:
    file = WeightFile(tmp_path / "file", [VECTOR])
    file.write("vector", bytes(4))
    file.rewrite("vector", b"\x07", 2)
    file.close()
    assert content(tensors_in(tmp_path / "file")[0]) == [0, 0, 7, 0]


def test_the_same_where_the_kernel_does_not_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.EXDEV, "between file systems")

    matrix, _ = written(tmp_path / "file")
    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    assert copied(matrix, tmp_path / "copy") == [0, 1, 255, *range(3, 12)]


def test_any_other_error_of_a_copy_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "no room")

    matrix, _ = written(tmp_path / "file")
    monkeypatch.setattr(os, "copy_file_range", full, raising=False)
    file = WeightFile(tmp_path / "copy", [MATRIX])
    with pytest.raises(OSError, match="no room"):
        file.copy("matrix", matrix)
    file.abandon()


@pytest.mark.parametrize("data", [b"", b"12345", b"1234567890abc"])
def test_a_tensor_that_is_not_written_once_and_whole(tmp_path: Path, data: bytes) -> None:
    file = WeightFile(tmp_path / "file", [MATRIX, VECTOR])
    file.write("vector", bytes(4))
    file.write("matrix", data)
    with pytest.raises(RunError, match="file: matrix was not written once and whole"):
        file.close()


def test_a_source_that_became_shorter(tmp_path: Path) -> None:
    _, vector = written(tmp_path / "file")
    os.truncate(tmp_path / "file", vector.offset)
    file = WeightFile(tmp_path / "copy", [VECTOR])
    with pytest.raises(InputError, match="copy: its source became shorter meanwhile"):
        file.copy("vector", vector)
    file.abandon()
    with pytest.raises(InputError, match="file: ends within vector"):
        content(vector)
