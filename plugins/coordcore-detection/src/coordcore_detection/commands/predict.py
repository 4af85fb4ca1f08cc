"""`coordcore predict`: a model's answers to the images of a record file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordcore.options import SpaceName
from coordcore_detection.commands.options import OutsideName, Score, told

if TYPE_CHECKING:
    from coordcore_detection.predict.predictions import Row


class Coordinates(StrEnum):
    """How a coordinate is read from its distribution over the bins."""

    EXPECTATION = "expectation"
    ARGMAX = "argmax"


class Device(StrEnum):
    """Where the model runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class GeometryName(StrEnum):
    """The geometry of an object."""

    BBOX_2D = "bbox_2d"
    POLY = "poly"
    POINT = "point"
    QUAD = "quad"


def command(
    model: Annotated[Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="A run folder, or a checkpoint folder.")],
    records: Annotated[Path, typer.Argument(metavar="RECORDS", help="The record file whose images are asked about.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where the predictions go; continued if it is there.")],
    space: Annotated[SpaceName, typer.Option(help="What the numbers of RECORDS are.")] = SpaceName.BIN,
    outside: Annotated[
        OutsideName, typer.Option(help="A true box that reaches over its image: an error, or clipped.")
    ] = OutsideName.ERROR,
    image_root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where image paths begin, instead of RECORDS' own folder.")
    ] = None,
    images_within: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where images must lie that absolute paths or '..' name."),
    ] = None,
    question: Annotated[
        str | None, typer.Option(help="What the model is asked, instead of what the run was trained on.")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK=TEXT", help="What records of a task are asked, instead of the run's. Repeatable."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message, with --question.")] = None,
    coordinates: Annotated[
        Coordinates, typer.Option(help="Read a coordinate as its most likely bin, or as the expected one.")
    ] = Coordinates.EXPECTATION,
    window: Annotated[
        int, typer.Option(min=0, help="Take the expectation within so many bins of the written one; 999 is all.")
    ] = 20,
    score: Annotated[Score | None, typer.Option(help="What ranks boxes: near, or the calibration's.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Apply what `coordcore calibrate` fitted.")
    ] = None,
    constrained: Annotated[
        bool, typer.Option("--constrained/--free", help="Allow only tokens that write the answer format.")
    ] = True,
    ordered: Annotated[
        bool, typer.Option("--ordered/--unordered", help="Constrained: allow no x2 < x1 and no y2 < y1.")
    ] = True,
    geometry: Annotated[
        list[GeometryName] | None,
        typer.Option(
            help="Constrained: allow this kind only, instead of boxes, polygons and what RECORDS have. May be repeated."
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 2048,
    max_objects: Annotated[int, typer.Option(min=1, help="Objects of an answer.")] = 100,
    thinking: Annotated[
        int, typer.Option(min=0, help="Tokens of a thought before the answer; 0 switches thinking off.")
    ] = 0,
    repeats: Annotated[int, typer.Option(min=2, help="End an answer that says the same so often in a row.")] = 4,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 25,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    quantisation: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the answers, for a checkpoint that records none.")
    ] = None,
    coords: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Coord tokens of a base that records none: rex_omni, paligemma."),
    ] = None,
    device: Annotated[Device, typer.Option(help="auto takes a GPU when there is one.")] = Device.AUTO,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it is there.")] = False,
) -> None:
    """Ask RUN_OR_CHECKPOINT about the images of RECORDS, and write a row of text, boxes and scores for each."""
    from coordcore_detection.extra import require_train

    require_train("predict")
    from coordcore_train.run.quiet import quiet, quiet_transformers

    quiet()
    import attrs

    from coordcore import InputError
    from coordcore.coords import PRESETS
    from coordcore.files import require_writable
    from coordcore.quantisation import quantisation as convention
    from coordcore.tasks import TASKS
    from coordcore_detection.evaluate import calibration as calibrations
    from coordcore_detection.evaluate.truth_sources import truth_from_records
    from coordcore_detection.evaluate.truth_tasks import read_prompts
    from coordcore_detection.predict import prediction_files
    from coordcore_detection.predict.settings import PredictSettings

    require_writable(output, records, calibration, overwrite=True)  # what is there is continued, if it can be
    if system is not None and question is None:
        raise InputError("--system: is given with --question; a run's own system message comes with its question")
    given = read_prompts(prompt or [])
    fitted = calibrations.read(calibration) if calibration else None
    try:
        settings = PredictSettings(
            coordinates=coordinates.value,
            window=None if window >= 999 else window,
            score=score.value if score else fitted.score if fitted else Score.NEAR.value,
            calibration=fitted,
            constrained=constrained,
            ordered=ordered,
            max_new_tokens=max_new_tokens,
            max_objects=max_objects,
            thinking=thinking,
            repeats=repeats,
            batch_size=batch_size,
        )
        if geometry is not None:
            chosen: Any = tuple(kind.value for kind in geometry)
            settings = attrs.evolve(settings, geometry=chosen)
    except ValueError as error:
        raise InputError(str(error)) from error
    import torch

    from coordcore_detection.predict import asking

    quiet_transformers()
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device is Device.AUTO else device.value
    prompts = {**asking.prompts_of(model), **given}
    if question is None:
        question, system = asking.question_of(model)
    if coords is not None and coords not in PRESETS:
        raise InputError(f"--coords: {coords!r} is none of {', '.join(PRESETS)}")
    own, spec = (None, None) if coords is None else PRESETS[coords]
    spec = quantisation or (spec.format(last=own.bins - 1) if own and spec else None)
    loaded = asking.load(model, where, quantisation=convention(spec) if spec else None, coords=own)
    every = truth_from_records(
        records,
        space=space.value,
        quantisation=loaded.quantisation,
        image_root=image_root,
        images_within=images_within,
        question=question,
        system=system,
        prompts=prompts,
        outside=outside.value,
        coords=loaded.vocab.format,
    )
    truth = every[:limit]
    tasks = {image.task for image in every} - {"detect"}
    asked = {name: prompts.get(name, TASKS[name].prompt) for name in sorted(tasks)}
    if geometry is None:
        settings = settings.also_for(kind for image in every for kind in image.kinds)
    header = asking.header(model, loaded, settings, question, system, asked)
    if overwrite:
        output.unlink(missing_ok=True)
    rows = prediction_files.resume(output, header)
    known = {row.image for row in rows}
    left = [image for image in truth if image.key not in known]
    if rows:
        typer.echo(f"{output}: holds {len(truth) - len(left)} of {len(truth)} images already", err=True)
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    answers = asking.predict(
        loaded.model,
        loaded.processor,
        left,
        settings,
        vocab=loaded.vocab,
        quantisation=loaded.quantisation,
        max_pixels=loaded.max_pixels,
        form=loaded.format,
        log=lambda line: console.print(told(line), markup=False, highlight=False, soft_wrap=True),
    )
    with prediction_files.appending(output, header) as add:
        for row in track(answers, description="predict", total=len(left), console=console, transient=True):
            add(row)
            rows.append(row)
    typer.echo(f"{output}: {_account(rows)}")


def _account(rows: list[Row]) -> str:
    """What the answers came to, in one line."""
    boxes = [box for row in rows for box in row.boxes]
    counts = {
        "boxes": len(boxes),
        "duplicates": sum(box.duplicate for box in boxes),
        "answers with unread parts": sum(bool(row.unread) for row in rows),
        "answers cut for length": sum(row.stopped == "length" for row in rows),
        "answers cut for repetition": sum(row.stopped == "repetition" for row in rows),
    }
    return ", ".join([f"{len(rows)} images", *(f"{number} {name}" for name, number in counts.items() if number)])
