"""The command line: run, check, plugins, schema, expand, merge. What a command needs is imported inside it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from coordcore import __version__
from coordcore.components import Command, Problem
from coordcore.problems import ManifestError
from coordcore.records import InputError, RunError

if TYPE_CHECKING:
    from coordcore.manifest import Loaded
    from coordcore.plugins import PluginInfo, Plugins

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130


class _Commands(TyperGroup):
    """coordcore's own commands and those of plugins, which are looked up only when they are asked for."""

    # Typer carries a command-line library of its own and names it privately, hence Any.

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *sorted(_plugin_commands())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or _plugin_command(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        with _exit_codes():
            return super().invoke(ctx)


def _plugin_commands() -> dict[str, Command]:
    from coordcore.plugins import discover

    return discover().commands()


def _plugin_command(name: str) -> Any:
    command = _plugin_commands().get(name)
    if command is None:
        return None
    loaded = command.load()
    if not isinstance(loaded, typer.Typer):
        function, loaded = (
            loaded,
            typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"),
        )
        loaded.command(name)(function)
    found = typer.main.get_command(loaded)
    found.name, found.short_help = name, command.summary
    return found


app = typer.Typer(
    name="coordcore",
    cls=_Commands,
    help="Fine-tune vision-language models that speak boxes as coordinate tokens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # the default one takes "[model]" for markup, and shows nothing
)


class Initialiser(StrEnum):
    """How `expand` starts the 1000 new rows."""

    MEAN = "mean"
    DIGITS = "digits"
    SMOOTH = "smooth"


ManifestFile = Annotated[Path, typer.Argument(metavar="MANIFEST", help="The TOML file to read.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. train.steps=10. May be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what lies in the output folder.")]


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn the errors a user can mend into a message and an exit code."""
    try:
        yield
    except ManifestError as error:
        _report(error.problems)
        raise typer.Exit(WRONG_INPUT) from error
    except InputError as error:
        typer.echo(f"coordcore: {error}", err=True)
        raise typer.Exit(WRONG_INPUT) from error
    except RunError as error:
        typer.echo(f"coordcore: {error}", err=True)
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as error:
        typer.echo("coordcore: interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from error


def _report(problems: Iterable[Problem]) -> None:
    lines = [str(problem) for problem in problems]
    for line in lines:
        typer.echo(line, err=True)
    typer.echo(f"{len(lines)} problem{'s' if len(lines) > 1 else ''} found", err=True)


def _load_and_check(manifest: Path, overrides: list[str] | None) -> Loaded:
    """The manifest, right in itself and across sections. Raises ManifestError."""
    from coordcore.check import check as find_problems
    from coordcore.manifest import load

    loaded = load(manifest, overrides or ())
    problems = find_problems(loaded, loaded.plugins)
    if problems:
        raise ManifestError(problems)
    return loaded


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"coordcore {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    manifest: ManifestFile,
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run folder, instead of the manifest's.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train what MANIFEST says and merge the result. A run that was cut off continues."""
    loaded = _load_and_check(manifest, overrides)
    from coordcore.engine import run as run_loaded

    run_loaded(loaded, output=output, overwrite=overwrite)


@app.command()
def check(manifest: ManifestFile, overrides: Overrides = None) -> None:
    """Report everything in MANIFEST that is wrong, without a GPU and without reading model weights."""
    loaded = _load_and_check(manifest, overrides)
    from coordcore.check import notes

    for note in notes(loaded):
        typer.echo(f"note: {note}")
    typer.echo(f"{manifest}: no problems found")


@app.command()
def plugins(json: AsJson = False) -> None:
    """List the installed plugins, what they offer, and why one could not be loaded."""
    from coordcore.plugins import discover

    found = discover()
    if json:
        _echo_json(_plugins_json(found))
        return
    rows = [(one.distribution, one.version, one.status, _offer(one)) for one in found.infos]
    if sys.stdout.isatty():
        _print_table(("distribution", "version", "status", "components"), rows)
    else:
        for distribution, version, status, offer in rows:
            typer.echo(f"{distribution} {version} {status}: {offer}")
    for conflict in found.conflicts:
        typer.echo(f"conflict: {conflict}")


def _offer(info: PluginInfo) -> str:
    """What a plugin offers, or why it offers nothing."""
    offers = [f"{kind}.{component.name}" for kind, component in info.components]
    offers += [f"command {command.name}" for command in info.commands]
    return info.reason or ", ".join(offers) or "hooks only"


def _plugins_json(found: Plugins) -> dict[str, Any]:
    return {
        "plugins": [
            {
                "distribution": one.distribution,
                "version": one.version,
                "entry_point": one.entry_point,
                "status": one.status,
                "reason": one.reason,
                "components": [
                    {"kind": str(kind), "name": component.name, "summary": component.summary}
                    for kind, component in one.components
                ],
                "commands": [{"name": command.name, "summary": command.summary} for command in one.commands],
            }
            for one in found.infos
        ],
        "conflicts": [
            {"kind": str(one.kind), "name": one.name, "distributions": list(one.distributions)}
            for one in found.conflicts
        ],
    }


def _print_table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")  # a reason must be readable to its end
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _echo_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


@app.command()
def schema(
    section: Annotated[
        str | None, typer.Argument(metavar="[SECTION[.NAME]]", help="e.g. train, loss, loss.text_ce")
    ] = None,
    json: AsJson = False,
) -> None:
    """Print the keys of a section with types, defaults and help; without one, list the sections."""
    from coordcore import schema as schemas
    from coordcore.plugins import discover

    found = discover()
    if section is None and not json:
        typer.echo(schemas.overview(found))
        return
    chosen = schemas.sections(found) if section is None else schemas.find(section, found)
    if json:
        _echo_json([schemas.as_json(one) for one in chosen])
    else:
        typer.echo("\n\n".join(schemas.text(one) for one in chosen))


@app.command()
def expand(
    base: Annotated[str, typer.Argument(metavar="BASE", help="A checkpoint, as in [model] base.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the expanded checkpoint goes.")],
    initialiser: Annotated[Initialiser, typer.Option(help="How the new rows start.")] = Initialiser.DIGITS,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initialiser's small noise.")] = 0,
    quantisation: Annotated[
        str, typer.Option(metavar="NAME", help="The convention to record in the checkpoint.")
    ] = "nearest_999",
    overwrite: Overwrite = False,
) -> None:
    """Add the 1000 coord tokens to the checkpoint BASE."""
    from coordcore.base import resolve_base
    from coordcore.quantisation import quantisation as convention

    folder = resolve_base(base)
    if folder is None:
        raise InputError(f"{base} is not in the local hub cache; fetch it with: hf download {base}")
    spec = convention(quantisation)
    from coordcore.vocab import expand as expand_checkpoint

    report = expand_checkpoint(
        folder, output, initialiser=initialiser.value, seed=seed, quantisation=spec, overwrite=overwrite
    )
    typer.echo(f"{report.output}: 1000 coord tokens, {report.rows_before} -> {report.rows_after} rows")


@app.command()
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
    from coordcore.engine.quiet import quiet

    quiet()
    from coordcore.export import merge_run

    typer.echo(merge_run(run_dir, output, checkpoint=checkpoint, compare_logits=compare_logits))


def main() -> None:
    """The console entry. Exit codes: 0 done, 1 the run failed, 2 the input is wrong, 130 interrupted."""
    app()
