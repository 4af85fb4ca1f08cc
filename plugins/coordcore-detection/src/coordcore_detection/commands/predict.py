"""`coordcore predict`: a model's answers to the images of a record file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordcore.errors import InputError
from coordcore.options import SpaceName
from coordcore_detection.commands.options import OutsideName, Score, is_given, require_unused, told

if TYPE_CHECKING:
    from coordcore_detection.evaluate.truth import TruthImage
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


class EngineName(StrEnum):
    """What runs the model in this process."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"


class Parallel(StrEnum):
    """What becomes of the corners that heads propose."""

    VERIFIED = "verified"
    FAST = "fast"


class GeometryName(StrEnum):
    """The geometry of an object."""

    BBOX_2D = "bbox_2d"
    POLY = "poly"
    POINT = "point"
    QUAD = "quad"


def command(
    context: typer.Context,
    checkpoint: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="A run folder, or a checkpoint folder.")
    ],
    records: Annotated[
        Path,
        typer.Argument(
            metavar="RECORDS", help="The record file whose images are asked about, or a folder of pictures."
        ),
    ],
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
        bool | None,
        typer.Option(
            "--constrained/--free",
            help="Allow only what writes the answer format; with --server only if this is given.",
            show_default="constrained",
        ),
    ] = None,
    ordered: Annotated[
        bool, typer.Option("--ordered/--unordered", help="Constrained: allow no x2 < x1 and no y2 < y1.")
    ] = True,
    geometry: Annotated[
        list[GeometryName] | None,
        typer.Option(
            help="Constrained: allow this kind only, instead of boxes, polygons and what RECORDS have, or of all where "
            "that is a folder. May be repeated."
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 2048,
    max_objects: Annotated[int, typer.Option(min=1, help="Objects of an answer.")] = 100,
    thinking: Annotated[
        int, typer.Option(min=0, help="Tokens of a thought before the answer; 0 switches thinking off.")
    ] = 0,
    repeats: Annotated[int, typer.Option(min=2, help="End an answer that says the same so often in a row.")] = 4,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 25,
    parallel: Annotated[
        Parallel | None,
        typer.Option(
            help="The corners of a box together, from a model that has learned it (train.parallel_boxes) or with heads "
            "beside it (`coordcore heads`). verified: what the model, corner by corner, does not say is thrown away; "
            "fast: what it nearly says is kept."
        ),
    ] = None,
    tolerance: Annotated[
        int,
        typer.Option(
            min=1,
            help="With --parallel fast: bins that a corner may be off; 999 keeps all, for a model that has learned it.",
        ),
    ] = 20,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    quantisation: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the answers, for a checkpoint that records none.")
    ] = None,
    coords: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Coord tokens of a base that records none: rex_omni, paligemma."),
    ] = None,
    numbers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The model writes plain numbers in this convention, as Qwen3-VL qwen_1000; no scores.",
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="auto takes a GPU when there is one.")] = Device.AUTO,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Ask an OpenAI-compatible server that has the checkpoint: http://HOST:PORT/v1."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name on the server, which may have one only.")
    ] = None,
    engine: Annotated[
        EngineName, typer.Option(help="What runs the model in this process: vllm where that is installed.")
    ] = EngineName.TRANSFORMERS,
    engine_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A setting of vLLM, as max_model_len=4096. May be repeated."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Requests to the server at a time.")] = 16,
    procs: Annotated[int, typer.Option(min=1, max=1024, help="Processes that share the images, on GPUs one each.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it is there.")] = False,
) -> None:
    """Ask RUN_OR_CHECKPOINT about the images of RECORDS, or of a folder, and write a row of text, boxes and scores for
    each."""
    from coordcore_detection.extra import require_train

    require_train("predict")
    from coordcore_train.run.quiet import quiet

    quiet()
    import attrs

    from coordcore.coords import PRESETS
    from coordcore.files import require_writable
    from coordcore.quantisation import quantisation as convention
    from coordcore.records.geometry import COUNTS
    from coordcore.tasks import TASKS
    from coordcore_detection.evaluate import calibration as calibrations
    from coordcore_detection.evaluate.truth_sources import truth_from_records
    from coordcore_detection.evaluate.truth_tasks import read_prompts
    from coordcore_detection.predict import prediction_files, shares
    from coordcore_detection.predict.in_vllm import AT_ONCE
    from coordcore_detection.predict.pictures import pictures
    from coordcore_detection.predict.settings import PredictSettings
    from coordcore_detection.predict.shares import OURS, Share
    from coordcore_train.run.launch import die_with_parent

    require_writable(output, records, calibration, overwrite=True)  # what is there is continued, if it can be
    if output.is_symlink():
        output = output.resolve()  # a file is written anew where its link leads, and the link stays
    if records.is_dir():
        require_unused(context, _OF_RECORDS, f"says how a record file is read, and {records} is a folder of pictures")
    if system is not None and question is None:
        raise InputError("--system: is given with --question; a run's own system message comes with its question")
    if parallel is not Parallel.FAST:
        require_unused(context, ("tolerance",), "is given with --parallel fast")
    in_vllm = engine is EngineName.VLLM
    apart = server is not None or in_vllm  # what answers gives text and probabilities, and keeps the rest to itself
    if server is None:
        require_unused(context, _OF_A_SERVER, "is given with --server")
    else:
        require_unused(context, ("engine", "batch_size"), "means nothing with --server, which decides that itself")
    if not in_vllm:
        require_unused(context, ("engine_option",), "is given with --engine vllm")
    if apart:
        other, whom = ("--server", "a server") if server is not None else ("--engine vllm", "vLLM")
        require_unused(context, _OF_THIS_PROCESS, f"means nothing with {other}, which decides that itself")
        if not constrained:
            require_unused(context, ("geometry",), f"is given to {whom} with --constrained")
    given = read_prompts(prompt or [])
    fitted = calibrations.read(calibration) if calibration else None
    usual = Score.GEOMETRIC_MEAN if apart else Score.NEAR
    try:
        settings = PredictSettings(
            coordinates=coordinates.value,
            window=None if window >= 999 else window,
            score=score.value if score else fitted.score if fitted else usual.value,
            calibration=fitted,
            constrained=not apart if constrained is None else constrained,
            ordered=ordered and not apart,
            max_new_tokens=max_new_tokens,
            max_objects=max_objects,
            thinking=thinking,
            repeats=repeats,
            batch_size=AT_ONCE if in_vllm and not is_given(context, "batch_size") else batch_size,
            tolerance=None if parallel is None else tolerance if parallel is Parallel.FAST else 0,
        )
        if geometry is not None:
            chosen: Any = tuple(kind.value for kind in geometry)
            settings = attrs.evolve(settings, geometry=chosen)
    except ValueError as error:
        raise InputError(str(error)) from error
    share = Share.here()
    if OURS in os.environ:
        die_with_parent()
    if share.world > 1:
        require_unused(context, ("engine",), "was started as one of several processes; vLLM spreads itself")
        _require_one_of_several(context)
    if overwrite:
        context.with_resource(shares.replaced(output))  # a command that comes to nothing loses nothing
    if procs > 1:
        from coordcore_detection.commands import processes

        processes.run(context, procs)
        typer.echo(f"{output}: {_account(prediction_files.read(output)[1])}")
        return
    from coordcore_detection.commands import asked
    from coordcore_detection.predict.loading import prompts_of, question_of

    prompts = {**prompts_of(checkpoint), **given}
    if question is None:
        question, system = question_of(checkpoint)
    if in_vllm:
        model_asked = asked.in_vllm(checkpoint, settings, engine_option or (), question, system)
    elif server is None:
        if coords is not None and coords not in PRESETS:
            raise InputError(f"--coords: {coords!r} is none of {', '.join(PRESETS)}")
        if numbers is not None and (coords or quantisation):
            raise InputError("--numbers: says the convention of plain numbers; leave out --quantisation and --coords")
        own, spec = (None, None) if coords is None else PRESETS[coords]
        spec = numbers or quantisation or (spec.format(last=own.bins - 1) if own and spec else None)
        used = convention(spec) if spec else None
        model_asked = asked.here(
            checkpoint,
            device.value,
            used,
            own,
            question,
            system,
            numbers=numbers is not None,
            parallel=parallel is not None,
        )
        if model_asked.numbers and (score or calibration):
            raise InputError("--score, --calibration: answers in plain numbers have no scores; leave them out")
    else:
        model_asked = asked.on_server(checkpoint, settings, server, model, concurrency, question, system)
    every: Sequence[TruthImage]
    if records.is_dir():
        every, others = pictures(records, question, system)
        if others:
            typer.echo(told(f"{records}: {others} files that are no pictures are passed over"), err=True)
    else:
        every = truth_from_records(
            records,
            space=space.value,
            quantisation=model_asked.quantisation,
            image_root=image_root,
            images_within=images_within,
            question=question,
            system=system,
            prompts=prompts,
            outside=outside.value,
            coords=model_asked.coords,
            coord_tokens=not model_asked.numbers,
        )
    truth = every[:limit]
    if geometry is None:  # pictures alone say nothing of what is on them: there the model chooses
        kinds = COUNTS if records.is_dir() else (kind for image in every for kind in image.kinds)
        settings = settings.also_for(kinds)
    header = model_asked.header(settings)
    if tasks := sorted({image.task for image in every} - {"detect"}):
        header.decoding["prompts"] = {name: prompts.get(name, TASKS[name].prompt) for name in tasks}
    from coordcore_detection.commands import answering

    if share.world > 1:
        rows = answering.of_share(model_asked, truth, settings, output, header, share)
    else:
        rows = answering.of_all(model_asked, truth, settings, output, header, in_order=apart)
    if rows is not None:
        typer.echo(f"{output}: {_account(rows)}")


_OF_RECORDS = ("space", "outside", "image_root", "images_within", "prompt")
_OF_A_SERVER = ("model", "concurrency")
_OF_THIS_PROCESS = (
    *("ordered", "max_objects", "repeats", "procs"),
    *("quantisation", "coords", "numbers", "device", "parallel"),
)


def _require_one_of_several(context: typer.Context) -> None:
    """Raise InputError for what the processes of a launcher cannot do, each by itself."""
    require_unused(context, ("procs",), "was started as one of several processes already")
    require_unused(context, ("overwrite",), "several processes cannot agree when; remove the file before")


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
