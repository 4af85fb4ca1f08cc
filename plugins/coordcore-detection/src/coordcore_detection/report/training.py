"""What a run folder tells of its training: metrics over time, learning rates, the rows it moved. Torch-free."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from coordcore import InputError
from coordcore.coords import NUM_BINS
from coordcore_detection.report import charts
from coordcore_detection.report.page import Picture
from coordcore_train.checkpoint.tensorfile import Stored, read_bytes, tensors_in
from coordcore_train.run.folder import RunDir

_CHECKPOINT_METRICS = ("AP", "AP50", "F1", "mean_iou")
_FAR_APART = 20.0


@attrs.frozen(kw_only=True, eq=False)
class Run:
    """A run folder, read. name: from the manifest. text: the resolved manifest. metrics: the rows of metrics.jsonl."""

    path: Path
    name: str
    text: str
    manifest: Mapping[str, Any]
    metrics: Sequence[Mapping[str, float]]

    @property
    def sigma(self) -> tuple[str, float] | None:
        """The loss that trains on a Gaussian soft target, as the manifest writes it, and its width in bins."""
        for name, config in self.manifest.get("loss", {}).items():
            if isinstance(config, Mapping) and isinstance(config.get("sigma"), float | int) and config["sigma"] > 0:
                return f"loss.{name}", float(config["sigma"])
        return None


def find_run(path: Path) -> Path | None:
    """The run folder that `path` is or lies in, up to three folders down; None when it belongs to no run."""
    absolute = path.absolute()
    return next((one for one in (absolute, *absolute.parents[:3]) if RunDir(one).manifest.is_file()), None)


def read_run(path: Path) -> Run:
    """Raises InputError for a folder that holds no readable manifest."""
    import tomli

    folder = RunDir(path)
    try:
        text = folder.manifest.read_text(encoding="utf-8")
        manifest = tomli.loads(text)
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as error:
        raise InputError(f"{folder.manifest}: cannot be read: {error}") from error
    name = manifest.get("name", path.name)
    return Run(path=path, name=str(name), text=text, manifest=manifest, metrics=list(_rows(folder.metrics)))


def _rows(path: Path) -> Iterator[dict[str, float]]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the line that was being written when the run was cut off
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield {name: float(value) for name, value in row.items() if isinstance(value, float | int)}


# --- metrics over time ----------------------------------------------------------------------------------------------


def loss_plots(run: Run) -> list[Picture]:
    """The loss, each of its parts and diagnostics, and the gradient norm: in training, and on what was held out."""
    train = _columns([row for row in run.metrics if "loss" in row])
    held_out = _columns([row for row in run.metrics if "eval_loss" in row])
    names = [name for name in train if name == "loss" or ("/" in name and not name.startswith("lr/"))]
    names += [name for name in train if name == "grad_norm"]
    pictures = []
    for name in names:
        series = [charts.Line(name="training", x=train[name][0], y=train[name][1])]
        if f"eval_{name}" in held_out:
            steps, values = held_out[f"eval_{name}"]
            series.append(charts.Line(name="held out", x=steps, y=values, dots=True))
        section, _, part = name.partition("/")
        pictures.append(
            charts.lines(
                f"training-{_file_name(name)}",
                series,
                title=f"{part} of {section}" if part else _TITLES[name],
                x="optimizer step",
                y=_UNITS.get(part or name, part or name),
            )
        )
    return pictures


_TITLES = {"loss": "loss: the weighted sum of all parts", "grad_norm": "gradient norm before clipping"}
_UNITS = {
    "ce": "nats per token",
    "soft_ce": "nats per token",
    "gate": "nats per token",
    "text_gate": "nats per token",
    "w1": "share of the bin range",
    "mae": "bins",
    "coord_mass": "probability",
    "p_target": "probability",
    "top5": "share of coordinates",
    "grad_norm": "norm",
}


def rate_plots(run: Run) -> list[Picture]:
    """The learning rate of each group of parameters."""
    columns = _columns(run.metrics)
    groups = [name for name in columns if name.startswith("lr/")] or [name for name in columns if name == _RATE]
    if not groups:
        return []
    series = [
        charts.Line(name=name.removeprefix("lr/").replace(_RATE, ""), x=columns[name][0], y=columns[name][1])
        for name in groups
    ]
    highest = [max(columns[name][1]) for name in groups]
    far = min(highest) > 0 and max(highest) / min(highest) > _FAR_APART
    return [
        charts.lines(
            "training-learning-rate",
            series,
            title="learning rate of each group",
            x="optimizer step",
            y="learning rate",
            logarithmic=far,
        )
    ]


_RATE = "learning_rate"


def checkpoint_plots(run: Run) -> list[Picture]:
    """The metrics of checkpoints that were evaluated in training."""
    columns = _columns(run.metrics)
    series = [
        charts.Line(name=metric, x=steps, y=values, dots=True)
        for metric in _CHECKPOINT_METRICS
        for name, (steps, values) in columns.items()
        if name == f"eval/detection/{metric}"
    ]
    if not series:
        return []
    return [
        charts.lines(
            "training-checkpoints",
            series,
            title="metrics of the checkpoints evaluated in training",
            x="optimizer step",
            y="metric",
            share=True,
        )
    ]


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, tuple[list[float], list[float]]]:
    """Name -> steps and values, finite ones."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "epoch") and math.isfinite(value):
                steps, values = found.setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(value)
    return found


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)


# --- offset rows ----------------------------------------------------------------------------------------------------


def offset_plots(run: Run) -> list[Picture]:
    """The norm of each coord token's offset in the last checkpoint, embedding and head apart where they differ."""
    checkpoint = RunDir(run.path).last_checkpoint()
    if checkpoint is None:
        return []
    tables = {stored.name.rpartition(".")[2]: _matrix(stored) for stored in _offsets(checkpoint)}
    return [
        charts.lines(
            f"offset-norms-{_file_name(name)}",
            [charts.Line(name="", x=range(NUM_BINS), y=np.linalg.norm(rows, axis=1).tolist())],
            title=_TABLES.get(name, name) if len(tables) > 1 else "offset of each coord token",
            x="bin k",
            y="Euclidean norm of the row",
            caption=f"{checkpoint.name}: {rows.shape[1]} numbers in each row",
        )
        for name, rows in tables.items()
    ]


_TABLES = {"embed_offset": "offset of each input row", "head_offset": "offset of each head row"}


def _offsets(checkpoint: Path) -> Iterator[Stored]:
    """The tensors that are one row for each bin and call themselves an offset."""
    for file in sorted(checkpoint.glob("*.safetensors")):
        for stored in tensors_in(file):
            if len(stored.shape) == 2 and stored.shape[0] == NUM_BINS and "offset" in stored.name:
                yield stored


def _matrix(stored: Stored) -> np.ndarray[Any, np.dtype[np.float64]]:
    data = bytearray(stored.size)
    read_bytes(stored, memoryview(data))
    if stored.dtype == "BF16":  # the upper half of a float32
        numbers = (np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
    elif stored.dtype in _NUMPY:
        numbers = np.frombuffer(data, dtype=_NUMPY[stored.dtype])
    else:
        raise InputError(f"{stored.file}: {stored.name} is of type {stored.dtype}; expected {', '.join(_NUMPY)}, BF16")
    return numbers.reshape(stored.shape).astype(np.float64)


_NUMPY = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
