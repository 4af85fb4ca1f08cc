"""`coordcore compare`: two evaluations side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_WHAT = "An evaluation file, its folder, or a run folder."


def command(
    a: Annotated[Path, typer.Argument(metavar="A", help=_WHAT)],
    b: Annotated[Path, typer.Argument(metavar="B", help=_WHAT)],
    resamples: Annotated[int, typer.Option(min=1, help="How often the images are drawn anew.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Compare under different contracts, and show them.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also the metrics that are not resampled.")] = False,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the comparison as JSON.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two evaluations of the same images, with 95 % intervals from a paired bootstrap over images."""
    import json as encoder

    import attrs
    from rich.console import Console

    from coordcore.errors import InputError, printable
    from coordcore.files import require_writable
    from coordcore_detection.evaluate import results, tables
    from coordcore_detection.evaluate.compare import compare

    require_writable(output, results.file_in(a), results.file_in(b), overwrite=overwrite)
    first, second = results.read(a), results.read(b)
    with Console(stderr=True).status(f"drawing {resamples} resamples"):
        try:
            comparison = compare(first, second, resamples=resamples, seed=seed, force=force)
        except InputError as error:
            raise InputError(f"{a} and {b}: {error}") from error
    text = encoder.dumps({"a": str(a), "b": str(b), **attrs.asdict(comparison)}, indent=2)
    if output is not None:
        results.write_text(text + "\n", output)
    if json:
        typer.echo(text)
        return
    console = Console(highlight=False)

    def say(line: str) -> None:
        console.print(printable(line), markup=False, soft_wrap=True)

    say(f"A  {a}: {first.checkpoint}")
    say(f"B  {b}: {second.checkpoint}")
    for difference in comparison.differences:
        say(f"different contracts: {difference}")
    console.print(tables.comparison_table(comparison, everything=everything))
    for caveat in comparison.caveats:
        say(f"{tables.CAVEAT} {caveat}")
    say(f"{comparison.images} images in both, drawn anew {resamples} times; * = the interval leaves out 0")
    if comparison.only_a or comparison.only_b:
        say(f"left out: {comparison.only_a} images that only A has, {comparison.only_b} that only B has")
