"""`coordcore eval`: predictions against a record file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coordcore.errors import InputError
from coordcore.options import SpaceName
from coordcore_detection.commands.options import OutsideName, SynonymFile, held_against, require_unused, told
from coordcore_detection.evaluate.radius import RADIUS, Radius


def command(
    context: typer.Context,
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="What `coordcore predict` or another tool wrote.")
    ],
    records: Annotated[Path, typer.Argument(metavar="RECORDS", help="The record file that was predicted.")],
    space: Annotated[SpaceName, typer.Option(help="What the numbers of RECORDS are.")] = SpaceName.BIN,
    outside: Annotated[
        OutsideName, typer.Option(help="A true box that reaches over its image: an error, or clipped.")
    ] = OutsideName.ERROR,
    image_root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where image paths begin, for the pictures of the report.")
    ] = None,
    images_within: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where images must lie that absolute paths or '..' name."),
    ] = None,
    numbers: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What numbers in another tool's answers are: qwen_1000, pixel, norm1 ..."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The run or checkpoint that another tool asked: how its answers are written, and what their numbers "
            "are.",
        ),
    ] = None,
    max_detections: Annotated[
        int | None,
        typer.Option(min=1, help="How many boxes of an image and label AP looks at: 100; for LVIS 300 of an image."),
    ] = None,
    synonyms: SynonymFile = None,
    radius: Annotated[
        str, typer.Option(help="How far a predicted point may be from a true one: 12px, or 5% of the longer side.")
    ] = RADIUS,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many records.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the evaluation, as `coordcore compare` reads it.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write report.html and its plots, for a person to look at.")
    ] = None,
    coco_results: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the predicted boxes as a COCO results file.")
    ] = None,
    categories: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="COCO file whose category ids COCO results have, read or written."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE or the report if it is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure PREDICTIONS against RECORDS: AP, AR, F1, IoU, calibration, and the ceiling of the quantisation.

    Polygons and quads are also measured by their outlines (shape_...), points by distance (point_...).

    PREDICTIONS may be answers of vLLM, `swift infer` or a script, lines of JSON with the image's path and the answer,
    or COCO results.
    """
    from json import dumps

    from rich.console import Console

    from coordcore.coords import CoordFormat
    from coordcore.errors import printable
    from coordcore.files import require_writable
    from coordcore.quantisation import Quantisation
    from coordcore_detection.evaluate import coco_results as coco_files
    from coordcore_detection.evaluate import distributions, results, tables
    from coordcore_detection.evaluate import synonyms as synonym_files
    from coordcore_detection.evaluate.evaluation import evaluate
    from coordcore_detection.evaluate.truth_records import declared
    from coordcore_detection.evaluate.truth_sources import truth_from_records
    from coordcore_detection.extra import require_train
    from coordcore_detection.predict import answer_files, coco_detections, foreign, prediction_files
    from coordcore_detection.report.training import find_run
    from coordcore_detection.report.write import require_free, write_report

    require_writable(output, predictions, records, overwrite=overwrite)
    require_writable(coco_results, predictions, records, overwrite=overwrite)
    if image_root is not None and not image_root.is_dir():
        raise InputError(f"--image-root: {image_root}: no such folder; name the one where image paths begin")
    if report is not None:
        require_free(report, overwrite=overwrite)
    try:
        Radius.read(radius)
    except InputError as error:
        raise InputError(f"--radius: {error}") from error
    written = foreign.Written.said(numbers)
    data = answer_files.read_bytes(predictions)
    is_foreign = answer_files.is_foreign(data)
    items = answer_files.items(predictions, data) if is_foreign else []
    is_coco = coco_detections.is_results(items)
    if categories is not None and coco_results is None and not is_coco:
        raise InputError(
            f"--categories: is for --coco-results, which is not given, or for COCO results, which {predictions} is not"
        )
    ids = None if categories is None else coco_files.read_categories(categories)
    if is_coco:
        for option in ("numbers", "checkpoint"):
            require_unused(context, (option,), f"{predictions} is a COCO results file, which has pixels and categories")
        detections = coco_detections.read(items)
        header = coco_detections.header(predictions, categories)
    elif is_foreign:
        if checkpoint is not None:
            require_train("eval --checkpoint")
            from coordcore_detection.predict.written import written_by

            written = written_by(checkpoint, numbers)
        answers = answer_files.read(items)
        header = foreign.header(predictions, written)
    else:
        if answer_files.is_own(data):
            of_others = f"is for answers of other tools; {predictions} says itself"
            require_unused(context, ("numbers",), f"{of_others} what its numbers are")
            require_unused(context, ("checkpoint",), f"{of_others} how its answers are written")
        header, rows = prediction_files.parse(predictions, data)
    quantisation = Quantisation.from_dict(header.quantisation, source=f"{predictions}:1: quantisation")
    truth = truth_from_records(
        records,
        space=space.value,
        quantisation=declared(records) if is_foreign and checkpoint is None else quantisation,
        question="",
        coords=None if header.coords is None else CoordFormat(**header.coords),
        outside=outside.value,
        image_root=image_root,
        images_within=images_within,
    )
    if is_coco:
        rows, account = coco_detections.rows(detections, truth, ids)
        typer.echo(told(f"{predictions}: {account}"), err=True)
    elif is_foreign:
        rows = foreign.rows(answers, truth, written)
    table = None if synonyms is None else synonym_files.read(synonyms)
    with held_against(predictions, records):
        evaluated = evaluate(
            truth[:limit],
            header,
            rows,
            max_detections=max_detections,
            synonyms=table,
            radius=radius,
        )
    result = evaluated.result
    if output is not None:
        results.write(result, output)
    if coco_results is not None:
        if ids is None:  # of all records: what is read again, or converted, is counted so whatever the limit
            ids = coco_files.numbered_labels(coco_files.numbered_images(truth)[0])
        typer.echo(printable(coco_files.write(coco_results, truth[:limit], rows, ids, table)), err=json)
    if report is not None:
        page = write_report(
            report,
            result,
            evaluated=evaluated,
            truth=truth,
            recorded=distributions.beside(predictions),
            run_dir=find_run(Path(header.checkpoint)),
        )
        typer.echo(printable(str(page)), err=json)
    if json:
        typer.echo(dumps(results.summary(result), indent=2))
        return
    console = Console(highlight=False)
    counts = result.counts
    pointed = "{true_points} true points, {predicted_points} predicted; " if "true_points" in counts else ""
    console.print(
        f"{counts['images']} images, {counts['true_boxes']} true boxes, {counts['predicted_boxes']} predicted; "
        f"{pointed.format(**counts)}{quantisation}, score {told(header.score)}",
        markup=False,
        soft_wrap=True,
    )
    console.print(tables.evaluation_table(result))
    console.print(tables.rates(result), markup=False, soft_wrap=True)
    for line in tables.task_lines(result):
        console.print(line, markup=False, soft_wrap=True)
    for caveat in result.caveats:
        console.print(told(f"{tables.CAVEAT} {caveat}"), markup=False, soft_wrap=True)
    for note in result.notes:
        console.print(told(f"note: {note}"), markup=False, soft_wrap=True)
