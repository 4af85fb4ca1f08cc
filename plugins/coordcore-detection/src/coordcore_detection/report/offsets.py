"""Plots of the rows that a surgery trained for the coord tokens, from the last checkpoint of a run. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coordcore import InputError
from coordcore_detection.extra import has_train
from coordcore_detection.report import charts
from coordcore_detection.report.page import Picture

if TYPE_CHECKING:
    from coordcore_train.checkpoint.tensorfile import Stored

_NUMPY = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


def plots(run: Path) -> list[Picture] | None:
    """The norm of each coord token's row in the last checkpoint of `run`; None where coordcore-train is not installed.

    Every table that a checkpoint holds beside LoRA's matrices with one row for each bin is one of a surgery.
    """
    if not has_train():
        return None
    import tomli

    from coordcore.coords import DEFAULT_COORDS
    from coordcore_train.run.folder import RunDir

    checkpoint = RunDir(run).last_checkpoint()
    if checkpoint is None:
        return []
    manifest = tomli.loads(RunDir(run).manifest.read_text(encoding="utf-8"))  # the plugins it names may be gone
    bins = manifest.get("coords", {}).get("bins", DEFAULT_COORDS.bins)
    tables = {stored.name.rpartition(".")[2]: _matrix(stored) for stored in _tables(checkpoint, bins)}
    return [
        charts.lines(
            f"offset-norms-{charts.file_name(name)}",
            [charts.Line(name="", x=range(len(rows)), y=np.linalg.norm(rows, axis=1).tolist())],
            title=name if len(tables) > 1 else "offset of each coord token",
            x="bin k",
            y="Euclidean norm of the row",
            caption=f"{checkpoint.name}: {rows.shape[1]} numbers in each row",
        )
        for name, rows in tables.items()
    ]


def _tables(checkpoint: Path, bins: int) -> Iterator[Stored]:
    """The tensors that hold one row for each bin."""
    from coordcore_train.checkpoint.tensorfile import tensors_in

    for file in sorted(checkpoint.glob("*.safetensors")):
        for stored in tensors_in(file):
            if len(stored.shape) == 2 and stored.shape[0] == bins and ".lora_" not in stored.name:
                yield stored


def _matrix(stored: Stored) -> np.ndarray[Any, np.dtype[np.float64]]:
    from coordcore_train.checkpoint.tensorfile import read_bytes

    data = bytearray(stored.size)
    read_bytes(stored, memoryview(data))
    if stored.dtype == "BF16":  # the upper half of a float32
        numbers = (np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
    elif stored.dtype in _NUMPY:
        numbers = np.frombuffer(data, dtype=_NUMPY[stored.dtype])
    else:
        raise InputError(f"{stored.file}: {stored.name} is of type {stored.dtype}; expected {', '.join(_NUMPY)}, BF16")
    return numbers.reshape(stored.shape).astype(np.float64)
