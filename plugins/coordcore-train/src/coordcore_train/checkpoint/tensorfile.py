"""One safetensors file at the byte level: what it holds, and writing one piece by piece. Torch-free."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import struct
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import attrs
import msgspec

from coordcore.errors import InputError, RunError
from coordcore.files import require_regular
from coordcore_train.checkpoint.folder import NOT_JSON

_T = TypeVar("_T")
_STEP = 1 << 24
_PAGE = 4096
_NO_KERNEL_COPY = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@attrs.frozen(kw_only=True)
class TensorSpec:
    """A tensor of a safetensors file. dtype: as the format writes it ("BF16"). size: bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


@attrs.frozen(kw_only=True)
class Stored(TensorSpec):
    """A tensor where it lies: `size` bytes of `file`, from `offset` on."""

    file: Path
    offset: int

    def rows(self, first: int, stop: int) -> Stored:
        """The part `first` .. `stop` of the first dimension."""
        width = self.size // self.shape[0]
        return attrs.evolve(
            self, shape=(stop - first, *self.shape[1:]), size=(stop - first) * width, offset=self.offset + first * width
        )


_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Entry(msgspec.Struct):
    """What a header says of one tensor."""

    dtype: str
    shape: list[_Count]
    data_offsets: tuple[_Count, _Count]


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file as it is, and the offset of its data. Raises InputError where there is none."""
    try:
        require_regular(path)
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
            if 8 + length > size:
                raise InputError(f"{path}: not a safetensors file, or cut off; download or save it again")
            raw = file.read(length)
        return msgspec.json.decode(raw, type=dict[str, Any]), 8 + length
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{path}: cannot be read: {reason}; download or save it again") from error
    except NOT_JSON as error:
        raise InputError(f"{path}: not a safetensors file: {error}; download or save it again") from error


def tensors_in(path: Path) -> list[Stored]:
    """The tensors of one safetensors file, in the order they lie in. Raises InputError when it is damaged."""
    header, start = read_header(path)
    entries = {name: _part(path, name, said, _Entry) for name, said in header.items() if name != "__metadata__"}
    found: list[Stored] = []
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        size = math.prod(entry.shape) * _bits(path, name, entry.dtype) // 8
        if entry.data_offsets != (end, end + size):  # as they are written, one behind the other
            raise InputError(
                f"{path}: the header puts {name}, {entry.dtype} {entry.shape}, at bytes {list(entry.data_offsets)}, "
                f"which should be {[end, end + size]}; download or save it again"
            )
        shape = tuple(entry.shape)
        found.append(Stored(name=name, dtype=entry.dtype, shape=shape, size=size, file=path, offset=start + end))
        end += size
    actual = path.stat().st_size
    if start + end != actual:
        raise InputError(f"{path}: {actual} bytes, but its header needs {start + end}; download or save it again")
    return found


def metadata_of(file: Path) -> dict[str, str] | None:
    """What a safetensors file says of itself. Raises InputError when it is damaged."""
    said = read_header(file)[0].get("__metadata__")
    return None if said is None else _part(file, "__metadata__", said, dict[str, str])


def order_metadata(file: Path) -> None:
    """Put what a safetensors file says of itself in the order of its keys.

    safetensors leaves that order to chance, so that files that hold the same differ in their bytes.
    """
    header, start = read_header(file)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(start - 8)
    if len(raw) == start - 8:  # as safetensors has written it, but for the order
        with file.open("r+b") as opened:
            opened.seek(8)
            opened.write(raw)


def _part(path: Path, name: str, said: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(said, kind)
    except msgspec.ValidationError as error:
        why = str(error)
        why = why[:1].lower() + why[1:].replace("`", "")
        raise InputError(f"{path}: the header's {name}: {why}; download or save it again") from error


def _bits(path: Path, name: str, dtype: str) -> int:
    """What one number takes, which the name of a dtype says: BF16, F8_E4M3, C64."""
    if dtype == "BOOL":
        return 8
    found = re.match(r"[A-Z]+(\d+)", dtype)
    if found is None:
        raise InputError(f"{path}: the header's {name}: unknown dtype {dtype!r}; download or save it again")
    return int(found.group(1))


class WeightFile:
    """A safetensors file of known layout, filled tensor by tensor in any order and from several threads.

    Holds no tensor in memory. `close` proves that every byte was written.
    copied: what will be copied, by name. The largest gets a place in its pages as in its source, which makes a copy
    within the kernel three times as fast.
    """

    def __init__(
        self,
        path: Path,
        tensors: Sequence[TensorSpec],
        metadata: Mapping[str, str] | None = None,
        copied: Mapping[str, Stored] | None = None,
    ) -> None:
        header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
        end = 0
        for tensor in tensors:
            offsets = [end, end := end + tensor.size]
            header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        raw = json.dumps(header, separators=(",", ":")).encode()
        raw += b" " * (-len(raw) % 8)  # the data starts aligned, as safetensors itself writes it
        if copied:
            name = max(copied, key=lambda name: copied[name].size)
            shift = (copied[name].offset - header[name]["data_offsets"][0] - 8 - len(raw)) % _PAGE
            raw += b" " * (shift if shift % 8 == 0 else 0)
        self.path = path
        self._start = {tensor.name: 8 + len(raw) + header[tensor.name]["data_offsets"][0] for tensor in tensors}
        self._left = {tensor.name: tensor.size for tensor in tensors}
        self._turn = threading.Lock()  # the kernel lets one writer in at a time, and the others wait at full speed
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        _write_all(self._file, struct.pack("<Q", len(raw)) + raw, 0)
        os.truncate(self._file, 8 + len(raw) + end)

    def write(self, name: str, data: bytes | memoryview, at: int = 0) -> None:
        """Write `data` into the tensor `name`, from its byte `at` on."""
        with self._turn:
            self._left[name] -= _write_all(self._file, data, self._start[name] + at)

    def rewrite(self, name: str, data: bytes | memoryview, at: int) -> None:
        """Write `data` over bytes of the tensor `name` that were written before."""
        with self._turn:
            _write_all(self._file, data, self._start[name] + at)

    def copy(self, name: str, source: Stored, low: int = 0, high: int | None = None) -> None:
        """Copy the bytes `low` .. `high` of `source` (to its end when None) to the same place of the tensor `name`."""
        high = source.size if high is None else high
        reader = os.open(source.file, os.O_RDONLY)
        try:
            self._copy(reader, source.offset + low, self._start[name] + low, high - low)
        finally:
            os.close(reader)
        self._left[name] -= high - low

    def _copy(self, reader: int, source: int, target: int, size: int) -> None:
        """Copy bytes, within the kernel where it can: a file system may even share the blocks."""
        end = source + size
        in_kernel = hasattr(os, "copy_file_range")
        while source < end:
            step = min(_STEP, end - source)
            with self._turn:
                if in_kernel:
                    try:
                        count = os.copy_file_range(reader, self._file, step, source, target)
                    except OSError as error:
                        if error.errno not in _NO_KERNEL_COPY:
                            raise
                        in_kernel = False
                        continue
                else:
                    count = _write_all(self._file, os.pread(reader, step, source), target)
            if count == 0:
                raise InputError(f"{self.path.name}: its source became shorter meanwhile; download or save it again")
            source, target = source + count, target + count

    def close(self) -> None:
        """Close the file. Raises RunError when a tensor was not written whole, or some of it twice."""
        self.abandon()
        wrong = [name for name, left in self._left.items() if left]
        if wrong:
            raise RunError(f"{self.path}: {', '.join(wrong)} was not written once and whole; report this as a bug")

    def abandon(self) -> None:
        """Close the file as it stands. May be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def read_bytes(source: Stored, target: memoryview) -> None:
    """Fill `target` with the bytes of `source`. Raises InputError when the file ends early."""
    view = target.cast("B")
    reader = os.open(source.file, os.O_RDONLY)
    try:
        done = 0
        while done < len(view):
            count = os.preadv(reader, [view[done:]], source.offset + done)
            if count == 0:
                raise InputError(f"{source.file}: ends within {source.name}; download or save it again")
            done += count
    finally:
        os.close(reader)


def _write_all(file: int, data: bytes | memoryview, at: int) -> int:
    """Write all of `data` at the byte `at` of a file; its size in bytes."""
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        done += os.pwrite(file, view[done:], at + done)
    return done
