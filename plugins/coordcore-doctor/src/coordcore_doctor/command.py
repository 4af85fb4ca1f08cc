"""`coordcore doctor`: what silently ruins a run, looked for on the real base and a sample of the real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="The TOML file of the run.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. train.steps=10. May be repeated."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Training examples to look at, spread over the data.")] = 32,
    draw: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw the boxes read back from the labels on their images.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace PNG if it is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check everything that silently ruins the run of MANIFEST: base, tokens, template, data, optimizer, head.

    Works on the CPU and writes nothing into the run folder. Exit code 2 when there is an error.
    """
    from coordcore_train.run.quiet import quiet, quiet_transformers

    quiet()
    import tempfile

    from coordcore import InputError
    from coordcore.files import require_writable
    from coordcore.manifest import load

    require_writable(draw, manifest, overwrite=overwrite)
    loaded = load(manifest, overrides or ())
    from rich.console import Console

    from coordcore_doctor.examine import CHECKS, examine
    from coordcore_doctor.examined import ExaminedRun, NotAvailableError
    from coordcore_doctor.table import as_json, summary, table

    quiet_transformers()
    with tempfile.TemporaryDirectory(prefix="coordcore-doctor-") as folder:
        run = ExaminedRun(loaded, Path(folder), samples)
        with Console(stderr=True).status(f"{len(CHECKS)} checks"):
            findings = list(examine(run))
        if json:
            from json import dumps

            typer.echo(dumps({"manifest": str(manifest), **as_json(findings)}, indent=2))
        else:
            console = Console(highlight=False)
            console.print(table(findings))
            console.print(summary(findings), markup=False)
        if draw is not None:
            from coordcore_doctor.draw import write_sheet

            try:
                sample, vocab = run.sample, run.vocab
            except NotAvailableError as missing:
                raise InputError(f"{draw}: not drawn: {missing}") from missing
            if vocab is None:
                raise InputError(f"{draw}: not drawn: the run has no coord tokens")
            count = write_sheet(draw, sample, vocab, run.quantisation, run.rehearsal.plan.format)
            typer.echo(f"{draw}: {count} images", err=json)
    wrong = [finding.name for finding in findings if finding.state == "error"]
    if wrong:
        raise InputError(f"{manifest}: {', '.join(dict.fromkeys(wrong))}: the run would fail or go wrong")
