"""Puts a report together from an evaluation and, where there is one, its run; writes the page and its plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from coordcore import InputError
from coordcore.quantisation import Quantisation
from coordcore_detection.evaluate import distributions, results, tables
from coordcore_detection.evaluate.evaluation import Evaluated
from coordcore_detection.evaluate.results import Result
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.extra import INSTALL
from coordcore_detection.report import charts, coordinates, drawings, offsets, quality, training
from coordcore_detection.report.page import Group, Picture, page, short

FILE = "report.html"
PLOTS = "report"

_LABELS = 30
_KEYS = {
    "AP": "mean over IoU .50 to .95",
    "AP50": "at IoU .50",
    "AP75": "at IoU .75",
    "F1": "mean over IoU .50 to .95",
    "mean_iou": "over the true boxes",
    "ece": "expected calibration error",
    "parse_failure_rate": "of answers",
    "duplicate_rate": "of boxes",
    "box_count_error": "boxes per image",
}


def write_report(
    output: Path,
    result: Result,
    *,
    evaluated: Evaluated | None = None,
    truth: Sequence[TruthImage] = (),
    recorded: Path | None = None,
    run_dir: Path | None = None,
) -> Path:
    """Write `report.html` and the folder `report` with its plots as PNG files into `output`; returns the page.

    evaluated, truth: the boxes behind `result` and the images as they were given to the evaluation; None leaves out
    errors and pictures. recorded: a file of `distributions`. run_dir: the run that was evaluated, for what it tells of
    its training. A section that has nothing to show says so. A report that is there already is replaced.
    Raises InputError when a file cannot be read or written.
    """
    run = training.read_run(run_dir) if run_dir is not None and training.is_run(run_dir) else None
    kept = distributions.read(recorded) if recorded is not None else []
    with charts.own_style():
        plots = _plots(result, evaluated, run)
        groups = _groups(result, evaluated, truth, kept, run)
    text = page(
        name=run.name if run is not None else Path(result.checkpoint).name,
        result=result,
        run=run,
        file=results.FILE,
        recorded=bool(kept),
        install=INSTALL,
        soft_target=run.soft_target if run is not None else None,
        **_numbers(result),
        **plots,
        **groups,
    )
    pictures = [picture for found in plots.values() for picture in found or ()]
    pictures += [picture for found in groups.values() for group in found for picture in group.pictures]
    _write_plots(output, pictures)
    results.write_text(text, output / FILE)
    return output / FILE


def require_free(output: Path, *, overwrite: bool) -> None:
    """Raise InputError when `output` holds a report that was not asked to be replaced."""
    if (output / FILE).exists() and not overwrite:
        raise InputError(f"{output / FILE}: exists; replace it with --overwrite, or name another folder")


def _write_plots(output: Path, pictures: Sequence[Picture]) -> None:
    folder = output / PLOTS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (output / FILE).exists():  # an earlier report: it may have had pictures that this one has not
            for old in folder.glob("*.png"):
                old.unlink()
        for picture in pictures:
            (folder / f"{picture.name}.png").write_bytes(picture.png)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {(error.strerror or str(error)).lower()}") from error


# --- what the template shows ----------------------------------------------------------------------------------------


def _plots(
    result: Result, evaluated: Evaluated | None, run: training.Run | None
) -> dict[str, Sequence[Picture] | None]:
    """Section -> its plots; None for offsets that cannot be read here."""
    return {
        "training": training.plots(run) if run is not None else (),
        "offsets": offsets.plots(run.path) if run is not None else (),
        "curves": quality.recall_plots(result),
        "calibration": quality.calibration_plots(result),
        "errors": quality.error_plots(evaluated) if evaluated is not None else (),
    }


def _groups(
    result: Result,
    evaluated: Evaluated | None,
    truth: Sequence[TruthImage],
    kept: Sequence[distributions.Distribution],
    run: training.Run | None,
) -> dict[str, Sequence[Group]]:
    """Section -> its pictures under headings."""
    if evaluated is None:
        return {"drawings": (), "distributions": ()}
    quantisation = Quantisation.from_dict(result.contract["quantisation"], source="the contract")
    sigma = run.soft_target.sigma if run is not None and run.soft_target is not None else None
    return {
        "drawings": [group for group in drawings.drawings(evaluated, truth) if group.pictures],
        "distributions": coordinates.distribution_groups(kept, evaluated, truth, quantisation, sigma),
    }


def _numbers(result: Result) -> dict[str, Any]:
    """The figures and tables."""
    key_figures = []
    for name, remark in _KEYS.items():
        value, ceiling = result.metrics.get(name), result.metrics.get(f"oracle_{name}")
        note = remark if ceiling is None else f"{remark}; ceiling {ceiling:.3f}"
        name = tables.marked(name, distorted=bool(result.caveats))
        key_figures.append((name, "none" if value is None else f"{value:.3f}", note))
    return {
        "key_figures": key_figures,
        "metric_titles": ["metric", *tables.COLUMNS],
        "metric_rows": [(name, *map(tables.number, values)) for name, values in tables.metric_rows(result)],
        "tasks": [line.split(": ", 1) for line in tables.task_lines(result)],
        "rates": [(name, tables.number(result.metrics.get(name))) for name in tables.PLAIN],
        "ap_titles": [tables.marked(name, distorted=bool(result.caveats)) for name in ("AP", "AP50")],
        "labels": [
            (
                short(row["label"]),
                row["true_boxes"],
                row["predicted_boxes"],
                tables.number(row["AP"]),
                tables.number(row["AP50"]),
            )
            for row in result.labels[:_LABELS]
        ],
        "more_labels": max(0, len(result.labels) - _LABELS),
        "contract": list(_flat(result.contract)),
    }


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names and their values."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", str(value)
