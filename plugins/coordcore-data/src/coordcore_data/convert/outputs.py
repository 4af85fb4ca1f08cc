"""The files that a conversion writes: all of them whole, or none of them. Torch-free."""

from __future__ import annotations

import fcntl
import glob
import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from coordcore import InputError


class Outputs:
    """The output files: written beside their names, renamed when all of them are complete, removed otherwise.

    What a conversion that was killed left beside them is removed; one that goes on has its files locked.
    """

    def __init__(self, output: Path, overwrite: bool, inputs: Iterable[Path | None] = ()) -> None:
        """inputs: files that are read, and so never replaced. Raises InputError for an output that is a folder."""
        if not output.name or os.path.isdir(output):  # without a name it has no suffix that could be exchanged
            raise InputError(f"{output}: is a folder; name a file")
        self._output = output
        self._overwrite = overwrite
        self._inputs = [item for item in inputs if item is not None and os.path.exists(item)]
        self._files: dict[Path, tuple[BinaryIO, Path]] = {}

    def __enter__(self) -> Outputs:
        return self

    def path(self, split: str | None) -> Path:
        """`train.jsonl`, or for the split "val" `train.val.jsonl`."""
        return self._output if split is None else self._output.with_suffix(f".{split}{self._output.suffix}")

    @property
    def account(self) -> Path:
        return self._output.with_suffix(".account.json")

    def check(self, path: Path) -> None:
        """Raise InputError if `path` is there and must not be replaced."""
        if os.path.isdir(path):  # which never raises, as a Path's does for a name that is too long
            raise InputError(f"{path}: is a folder; name a file")
        if os.path.exists(path) and any(map(path.samefile, self._inputs)):
            raise InputError(f"{path}: is the source, or read beside it; name another file")
        if os.path.lexists(path) and not self._overwrite:
            raise InputError(f"{path}: already there; --overwrite replaces it")

    def open(self, path: Path) -> BinaryIO:
        self.check(path)
        if path in self._files:
            raise InputError(f"{path}: would be written twice; name the split or the output differently")
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        fresh = beside.with_name(f"{beside.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path)
            file = fresh.open("wb", buffering=1 << 20)
            _try_lock(file)
            os.rename(fresh, beside)  # under the name that others look at it is locked from the start
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            raise InputError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error
        self._files[path] = (file, beside)
        return file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            for file, _beside in self._files.values():
                file.flush()
            if error is None:
                # Killed between two of these, no older account speaks for files of two conversions.
                self.account.unlink(missing_ok=True)
                for path, (_file, beside) in self._files.items():
                    os.replace(beside, path)
        finally:
            for file, beside in self._files.values():
                beside.unlink(missing_ok=True)
                with suppress(OSError):  # where the disk is full, which `flush` has told
                    file.close()


def _remove_abandoned(path: Path) -> None:
    """Remove what conversions that were killed have left of `path`."""
    for beside in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}"):
        with suppress(FileNotFoundError, IsADirectoryError), beside.open("rb") as file:
            if _try_lock(file):
                beside.unlink(missing_ok=True)


def _try_lock(file: BinaryIO) -> bool:
    """Lock a file for as long as it is open; False when another process has it, or the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
