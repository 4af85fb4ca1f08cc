"""The commands run, plan, expand, merge and push. Torch-free; the work is imported inside."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from coordcore.errors import InputError
from coordcore.options import AsJson, ManifestFile, Overrides, Overwrite


class Initialiser(StrEnum):
    """How `expand` starts the new rows."""

    MEAN = "mean"
    DIGITS = "digits"
    SMOOTH = "smooth"


class PointOrder(StrEnum):
    """Which of x and y comes first in a point."""

    XY = "xy"
    YX = "yx"


def run(
    manifest: ManifestFile,
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run folder, instead of the manifest's.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train what MANIFEST says and merge the result. A run that was cut off continues."""
    from coordcore.check import load_and_check

    loaded = load_and_check(manifest, overrides)
    from coordcore_train.run import launch
    from coordcore_train.run.session import run as run_loaded

    run_loaded(loaded, output=output, overwrite=overwrite)
    if launch.under_launcher():  # somebody's own torchrun
        launch.end_process(0)


def plan(
    manifest: ManifestFile,
    overrides: Overrides = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, max=2**26, metavar="N", help="GPUs; as many as [launch] starts when absent.")
    ] = None,
    gpu_memory: Annotated[float, typer.Option(metavar="GIB", help="Memory of a GPU.")] = 80.0,
    reserve: Annotated[
        float | None,
        typer.Option(
            metavar="GIB",
            help="What is left free for CUDA, NCCL and gaps; 1 GiB and 5 % when absent.",
            show_default=False,
        ),
    ] = None,
    tokens_per_example: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Tokens of an example, images and all; else some are encoded."),
    ] = None,
    image_tokens: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Of these the images'; only a trained vision tower's memory asks for it."
        ),
    ] = None,
    examples: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Examples of an epoch, instead of those of the data.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Tell what the run that MANIFEST describes will need: memory per GPU, tokens per step, what to shard.

    Of the base its config.json is enough. Nothing is trained, downloaded or written.
    """
    from coordcore_train.run.quiet import quiet

    quiet()
    from coordcore_train.estimate.estimate import estimate
    from coordcore_train.estimate.report import as_json, text
    from coordcore_train.estimate.settings import Asked

    asked = Asked(
        gpus=gpus,
        gpu_memory=gpu_memory,
        reserve=reserve,
        tokens=tokens_per_example,
        image_tokens=image_tokens,
        examples=examples,
    )
    found = estimate(manifest, overrides, asked)
    typer.echo(as_json(found) if json else text(found))


def expand(
    base: Annotated[str, typer.Argument(metavar="BASE", help="A checkpoint, as in [model] base.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the expanded checkpoint goes.")],
    initialiser: Annotated[Initialiser, typer.Option(help="How the new rows start.")] = Initialiser.DIGITS,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initialiser's small noise.")] = 0,
    quantisation: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The convention to record in the checkpoint, as in [coords] quantisation."),
    ] = None,
    tokens: Annotated[
        str, typer.Option(metavar="PATTERN", help="The token of each bin, as in [coords] tokens.")
    ] = "<|coord_{}|>",
    bins: Annotated[
        int | None, typer.Option(metavar="N", help="Bins of a coordinate, as in [coords] bins.", show_default=False)
    ] = None,
    order: Annotated[
        PointOrder | None,
        typer.Option(help="Which of x and y comes first, as in [coords] order.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Add the coord tokens to the checkpoint BASE."""
    from coordcore.manifest.sections import Coords
    from coordcore.quantisation import quantisation as convention
    from coordcore_train.checkpoint.base import resolve_base
    from coordcore_train.checkpoint.folder import order_fault

    folder = resolve_base(base)
    if folder is None:
        raise InputError(f"{base} is not in the local hub cache; fetch it with: hf download {base}")
    given: dict[str, Any] = {"tokens": tokens, "bins": bins, "quantisation": quantisation}
    given |= {"order": order.value if order else None}
    try:
        coords = Coords(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        options = " ".join(f"--{name} {value}" for name, value in given.items() if value is not None)
        raise InputError(f"{options}: {error.args[0]}") from error
    if fault := coords.fault():
        raise InputError(f"--quantisation: {fault}")
    if wrong := order_fault(coords):
        raise InputError(f"--tokens: {wrong}")
    from coordcore_train.checkpoint.expand import expand as expand_checkpoint

    report = expand_checkpoint(
        folder,
        output,
        initialiser=initialiser.value,
        seed=seed,
        quantisation=convention(coords.quantisation),
        coords=coords.format,
        overwrite=overwrite,
    )
    typer.echo(f"{report.output}: {coords.bins} coord tokens, {report.rows_before} -> {report.rows_after} rows")


def merge(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the merged checkpoint goes.")],
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A checkpoint of the run, instead of its newest.")
    ] = None,
    compare_logits: Annotated[
        bool,
        typer.Option(
            "--compare-logits", help="Also load the whole model, live and merged, and compare what they compute."
        ),
    ] = False,
) -> None:
    """Bake adapters and surgeries of the run folder RUN into a plain transformers checkpoint."""
    from coordcore_train.run.quiet import quiet

    quiet()
    from coordcore_train.checkpoint.merge.run import merge_run

    typer.echo(merge_run(run_dir, output, checkpoint=checkpoint, compare_logits=compare_logits))


def push(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_FOLDER", help="A run folder, or a merged checkpoint.")],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="The repository, as OWNER/NAME; made if need be.")],
    private: Annotated[bool, typer.Option("--private", help="A repository that is made is private.")] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="The branch, made if need be; main when absent.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", "--card-only", help="Only write the card and list what would go up; no network."),
    ] = False,
    overwrite_card: Annotated[
        bool, typer.Option("--overwrite-card", help="Write the card anew, also one that somebody wrote or changed.")
    ] = False,
) -> None:
    """Put the merged checkpoint of RUN_OR_FOLDER into REPO on a hub, with a model card written from the run."""
    from coordcore_train.hub import push as hub

    if not dry_run:
        hub.require_hub()
    prepared = hub.prepare(source, repository, revision=revision, overwrite_card=overwrite_card)
    typer.echo(prepared)
    if not dry_run:
        typer.echo(f"pushed: {hub.push(prepared, repository, private=private, revision=revision)}")
