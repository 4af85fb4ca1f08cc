"""Puts a report together from an evaluation and, where there is one, its run; writes the page and its plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coordcore import InputError
from coordcore.coords import Quantisation
from coordcore_detection.evaluate import distributions, results, tables
from coordcore_detection.evaluate.evaluate import Evaluated
from coordcore_detection.evaluate.results import Result
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.report import charts, coordinates, drawings, quality, training
from coordcore_detection.report.page import (
    Group,
    Picture,
    Section,
    items,
    key_figures,
    page,
    paragraph,
    preformatted,
    short,
    table,
)
from coordcore_detection.report.training import Run
from coordcore_train.run.folder import RunDir

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

    evaluated, truth: the boxes behind `result` and the images, in the order of the evaluation; None leaves out errors
    and pictures. recorded: a file of `distributions`. run_dir: the run that was evaluated, for what it tells of its
    training. A section that has nothing to show says so. A report that is there already is replaced.
    Raises InputError when a file cannot be read or written.
    """
    run = training.read_run(run_dir) if run_dir is not None and RunDir(run_dir).manifest.is_file() else None
    with charts.own_style():
        sections = _sections(result, evaluated, truth, recorded, run)
    name = run.name if run is not None else Path(result.checkpoint).name
    counts = result.counts
    subtitle = (
        f"{result.checkpoint}: {counts['images']} images, {counts['true_boxes']} true boxes, "
        f"{counts['predicted_boxes']} predicted"
    )
    pictures = [picture for section in sections for group in section.groups for picture in group.pictures]
    _write_plots(output, pictures)
    results.write_text(page(f"Detection report: {name}", subtitle, sections), output / FILE)
    return output / FILE


def _sections(
    result: Result, evaluated: Evaluated | None, truth: Sequence[TruthImage], recorded: Path | None, run: Run | None
) -> list[Section]:
    return [
        _headline(result),
        _training(run),
        _offsets(run),
        _pictures(evaluated, truth),
        _distributions(evaluated, truth, recorded, run),
        _precision(result),
        _calibration(result),
        _errors(evaluated),
        _contract(result),
        _manifest(run),
    ]


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


# --- sections -------------------------------------------------------------------------------------------------------


def _headline(result: Result) -> Section:
    figures = []
    for name, remark in _KEYS.items():
        value, ceiling = result.metrics.get(name), result.metrics.get(f"oracle_{name}")
        note = remark if ceiling is None else f"{remark}; ceiling {ceiling:.3f}"
        figures.append((name, "none" if value is None else f"{value:.3f}", note))
    rows = [(name, *map(tables.number, values)) for name, values in tables.metric_rows(result)]
    plain = [(name, tables.number(result.metrics.get(name))) for name in tables.PLAIN]
    return Section(
        anchor="metrics",
        title="Metrics",
        body=key_figures(figures)
        + paragraph(
            "The ceiling is what the true boxes reach when they are written in bins, read back and scored against "
            "themselves: no model does better whose coordinates are read as whole bins. Read as expectations they are "
            "finer, and may pass it."
        )
        + table(["metric", *tables.COLUMNS], rows)
        + table(["rate", "value"], plain)
        + _notes(result),
    )


def _notes(result: Result) -> str:
    if not result.notes:
        return paragraph("Nothing was left out or repaired.")
    return paragraph("What was left out, repaired, or should be known:") + items(result.notes)


def _contract(result: Result) -> Section:
    rows = list(_flat(result.contract))
    return Section(
        anchor="contract",
        title="Evaluation contract and counts",
        body=paragraph("Two results are comparable only when they agree on all of this.")
        + table(["setting", "value"], rows, wide=True)
        + table(["count", "number"], result.counts.items()),
    )


def _flat(values: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and their values."""
    found = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{path}{key}.")
        else:
            found.append((f"{path}{key}", str(value)))
    return found


_NO_RUN = "The predictions come from no run folder."


def _training(run: Run | None) -> Section:
    body, groups = paragraph(_NO_RUN), []
    if run is not None:
        pictures = [*training.loss_plots(run), *training.rate_plots(run), *training.checkpoint_plots(run)]
        groups = [Group(pictures=pictures)]
        body = paragraph(
            "Means over the positions of each logging interval in training, and over all examples held out."
            if pictures
            else "The run folder holds no metrics."
        )
    return Section(anchor="training", title="Training", body=body, groups=groups)


def _offsets(run: Run | None) -> Section:
    pictures = training.offset_plots(run) if run is not None else []
    body = (
        "How far training moved the row of each coord token, in the last checkpoint."
        if pictures
        else (_NO_RUN if run is None else "The last checkpoint holds no offset rows of coord tokens.")
    )
    return Section(anchor="offsets", title="Offset rows", body=paragraph(body), groups=[Group(pictures=pictures)])


def _pictures(evaluated: Evaluated | None, truth: Sequence[TruthImage]) -> Section:
    groups = drawings.drawings(evaluated, truth) if evaluated is not None else []
    body = (
        "True boxes are dashed and blue, predicted ones solid, orange and numbered. Images are ranked by the IoU of "
        "their pairs of equal label, over the number of true or of predicted boxes, whichever is larger."
        if any(group.pictures for group in groups)
        else "No images: the evaluation holds no boxes, or was read without its predictions and ground truth."
    )
    return Section(anchor="images", title="Ground truth and predictions", body=paragraph(body), groups=groups)


def _distributions(
    evaluated: Evaluated | None, truth: Sequence[TruthImage], recorded: Path | None, run: Run | None
) -> Section:
    groups: list[Group] = []
    kept = distributions.read(recorded) if recorded is not None else []
    sigma = run.sigma if run is not None else None
    if evaluated is not None and kept:
        quantisation = Quantisation.from_dict(evaluated.result.contract["quantisation"], source="the contract")
        groups = coordinates.distribution_groups(kept, evaluated, truth, quantisation, sigma and sigma[1])
    body = "No distribution was recorded: [eval.detection] records some while it predicts."
    if kept:
        body = "None of the recorded boxes overlaps a true one."
    if groups:
        body = "What the model gave each bin where it wrote the first box of an answer, before any constraint. "
        body += (
            f"The soft target is the Gaussian of {sigma[0]}, sigma {sigma[1]:g} bins, around the true position."
            if sigma
            else "The line is the true position."
        )
    return Section(anchor="distributions", title="Distributions over the bins", body=paragraph(body), groups=groups)


def _precision(result: Result) -> Section:
    pictures = quality.recall_plots(result)
    rows = [
        (
            short(row["label"]),
            row["true_boxes"],
            row["predicted_boxes"],
            tables.number(row["AP"]),
            tables.number(row["AP50"]),
        )
        for row in result.labels[:_LABELS]
    ]
    more = len(result.labels) - len(rows)
    body = paragraph("The mean over labels at each recall, as COCO accumulates it.") if pictures else ""
    body = body or paragraph("No curves: the ground truth holds no boxes.")
    body += table(["label", "true boxes", "predicted", "AP", "AP50"], rows) if rows else ""
    body += paragraph(f"{more} more labels are in {results.FILE}.") if more > 0 else ""
    return Section(anchor="precision", title="Precision and recall", body=body, groups=[Group(pictures=pictures)])


def _calibration(result: Result) -> Section:
    pictures = quality.calibration_plots(result)
    fitted = result.contract.get("calibration")
    body = f"The score is {result.contract.get('score')}, {f'calibrated ({fitted})' if fitted else 'not calibrated'}."
    if not pictures:
        body = "No predicted box has a score in 0..1."
    return Section(anchor="calibration", title="Calibration", body=paragraph(body), groups=[Group(pictures=pictures)])


def _errors(evaluated: Evaluated | None) -> Section:
    pictures = quality.error_plots(evaluated) if evaluated is not None else []
    body = (
        "Predicted boxes are paired with true ones by falling IoU, labels aside; every pair that overlaps counts."
        if pictures
        else "No errors: the evaluation holds no boxes, or was read without its predictions and ground truth."
    )
    return Section(anchor="errors", title="Errors in pixels", body=paragraph(body), groups=[Group(pictures=pictures)])


def _manifest(run: Run | None) -> Section:
    body = paragraph(_NO_RUN) if run is None else preformatted(run.text)
    return Section(anchor="manifest", title="Resolved manifest", body=body)
