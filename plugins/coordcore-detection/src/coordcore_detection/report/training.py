"""What a run folder tells of its training: metrics over time, learning rates, what its losses train on. Torch-free."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from coordcore import kinds
from coordcore.components import Selected
from coordcore.errors import InputError, ManifestError
from coordcore.manifest import load
from coordcore_detection.report import charts
from coordcore_detection.report.page import Picture

# The files of a run folder, as its documentation names them: a report is written where coordcore-train is not, too.
_MANIFEST, _METRICS = "manifest.resolved.toml", "metrics.jsonl"

_CHECKPOINT_METRICS = ("AP", "AP50", "F1", "mean_iou")
_FAR_APART = 20.0


@attrs.frozen(kw_only=True)
class SoftTarget:
    """The Gaussian that a loss trains coord positions on. loss: its manifest path. sigma: in bins."""

    loss: str
    sigma: float


@attrs.frozen(kw_only=True, eq=False)
class Run:
    """A run folder, read.

    name: from the manifest. text: the resolved manifest. metrics: the rows of metrics.jsonl. units: of each part of
    the loss by its name in the metrics, "text_ce/ce". soft_target: None when no loss has one. Both are what the
    components say of themselves: nothing where a plugin of the run is not installed.
    """

    path: Path
    name: str
    text: str
    metrics: Sequence[Mapping[str, float]]
    units: Mapping[str, str]
    soft_target: SoftTarget | None


def is_run(path: Path) -> bool:
    """Whether `path` is a run folder."""
    return (path / _MANIFEST).is_file()


def find_run(path: Path) -> Path | None:
    """The run folder that `path` is or lies in, up to three folders down; None when it belongs to no run."""
    absolute = path.absolute()
    return next((folder for folder in (absolute, *absolute.parents[:3]) if is_run(folder)), None)


def read_run(path: Path) -> Run:
    """Raises InputError for a folder that holds no readable manifest."""
    import tomli

    file = path / _MANIFEST
    try:
        text = file.read_text(encoding="utf-8")
        name = str(tomli.loads(text).get("name", path.name))
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    losses = _losses(file)
    targets = {loss.path: loss.component.soft_target(loss.config) for loss in losses}
    return Run(
        path=path,
        name=name,
        text=text,
        metrics=list(_rows(path / _METRICS)),
        units={f"{loss.component.name}/{part}": unit for loss in losses for part, unit in loss.component.units.items()},
        soft_target=next((SoftTarget(loss=loss, sigma=sigma) for loss, sigma in targets.items() if sigma), None),
    )


def _losses(manifest: Path) -> tuple[Selected, ...]:
    """The losses of a run; none when its plugins are not all installed here, which the report can do without."""
    try:
        return load(manifest).manifest.of(kinds.LOSS)
    except ManifestError:
        return ()


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


def plots(run: Run) -> list[Picture]:
    """Everything below."""
    return [*loss_plots(run), *rate_plots(run), *checkpoint_plots(run)]


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
                f"training-{charts.file_name(name)}",
                series,
                title=f"{part} of {section}" if part else _TITLES[name],
                x="optimizer step",
                y=run.units.get(name, part) if part else "norm" if name == "grad_norm" else name,
            )
        )
    return pictures


_TITLES = {"loss": "loss: the weighted sum of all parts", "grad_norm": "gradient norm before clipping"}


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
        charts.Line(name=name.removeprefix("eval/detection/").removeprefix("eval/"), x=steps, y=values, dots=True)
        for metric in _CHECKPOINT_METRICS
        for name, (steps, values) in columns.items()
        if _of_checkpoint(name, metric, columns)
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


def _of_checkpoint(name: str, metric: str, columns: Mapping[str, object]) -> bool:
    """Whether it is this metric of `[eval.detection]`, or of an evaluator that measures as it does, ceilings too."""
    evaluator, _, last = name.rpartition("/")
    alike = evaluator == "eval/detection" or (evaluator.startswith("eval/") and f"{evaluator}/oracle_AP" in columns)
    return alike and last == metric


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
