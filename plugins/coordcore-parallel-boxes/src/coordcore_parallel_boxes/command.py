"""`coordcore heads`: heads that propose the corners of a box together, trained for a run's merged checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Device(StrEnum):
    """Where the model runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder, with its merged checkpoint.")],
    examples: Annotated[int, typer.Option(min=1, help="Training examples of the run to learn from, at most.")] = 6_000,
    rank: Annotated[int, typer.Option(min=1, max=4096, help="Width of the heads.")] = 128,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples that the model reads at a time.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of their start, and of which examples come when.")] = 0,
    device: Annotated[Device, typer.Option(help="auto takes a GPU when there is one.")] = Device.AUTO,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace heads that are there.")] = False,
) -> None:
    """Train heads for the merged checkpoint of RUN: at a corner of a box they propose those behind it.

    The model stays as it is; the heads lie beside it, for `coordcore predict --parallel`.
    """
    from coordcore_train.run.quiet import quiet, quiet_transformers

    quiet()
    import torch
    from rich.console import Console
    from rich.progress import track

    from coordcore.errors import InputError, RunError
    from coordcore_parallel_boxes.heads import require_place, save
    from coordcore_parallel_boxes.model import loaded_from
    from coordcore_parallel_boxes.training import train

    if device is Device.CUDA and not torch.cuda.is_available():
        raise InputError("device cuda: torch sees no GPU; use cpu")
    quiet_transformers()
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device is Device.AUTO else device.value
    asked = loaded_from(run, where)
    require_place(asked.folder, overwrite=overwrite)
    console = Console(stderr=True)

    def told(batches: Iterator[Any], total: int) -> Iterator[Any]:
        yield from track(batches, description="heads", total=total, console=console, transient=True)

    try:
        heads, report = train(
            asked.model,
            asked.processor,
            asked.vocab,
            asked.examples,
            examples=examples,
            batch_size=batch_size,
            rank=rank,
            seed=seed,
            max_pixels=asked.max_pixels,
            told=told,
        )
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"{batch_size} examples at a time do not fit the GPU's memory ({str(error).splitlines()[0]}); "
            "lower --batch-size"
        ) from error
    path = save(heads, asked.folder, asked.model, asked.vocab, overwrite=overwrite)
    typer.echo(
        f"{path}: learned from {report.boxes} boxes of {report.examples} examples; half of what is proposed at the "
        f"first corner lies within {report.within:.0f} bins of what the model says of the others"
    )
