"""The command line: check, plugins, schema, and what plugins add. What a command needs is imported inside it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from coordcore import __version__
from coordcore.components import Command
from coordcore.errors import InputError, ManifestError, Problem, RunError
from coordcore.options import AsJson, ManifestFile, Overrides

if TYPE_CHECKING:
    from coordcore.plugins import PluginInfo, Plugins

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130

_FROM = {
    **dict.fromkeys(("run", "expand", "merge"), ("coordcore-train", "coordcore[train]")),
    **dict.fromkeys(
        ("predict", "calibrate", "eval", "compare", "report"), ("coordcore-detection", "coordcore-detection")
    ),
    "data": ("coordcore-data", "coordcore-data"),
    "doctor": ("coordcore-doctor", "coordcore-doctor"),
}
"""The project's other commands -> the distribution that adds each, and what to install for it."""


class _Commands(TyperGroup):
    """coordcore's own commands and those of plugins, which are looked up only when they are asked for."""

    # Typer carries a command-line library of its own and names it privately, hence Any.

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *sorted(_plugin_commands())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or _plugin_command(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in _FROM and self.get_command(ctx, args[0]) is None:
            with _exit_codes():
                raise InputError(_not_here(args[0]))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _exit_codes():
            return super().invoke(ctx)


def _plugin_commands() -> dict[str, Command]:
    from coordcore.discovery import discover

    return discover().commands()


def _not_here(name: str) -> str:
    """What to install for a command that the project has and this environment has not."""
    from coordcore.discovery import discover

    distribution, wanted = _FROM[name]
    found = discover()
    for info in found.infos:
        if info.distribution == distribution and info.status != "ready":
            return f"`{name}` comes with {distribution}, which is installed and {info.status}: {info.reason}"
    for conflict in found.conflicts:
        if (conflict.kind, conflict.name) == ("command", name):
            return f"`{name}` is {conflict.reason}"
    return f"`{name}` comes with {distribution}; pip install '{wanted}'"


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
def check(manifest: ManifestFile, overrides: Overrides = None) -> None:
    """Report everything in MANIFEST that is wrong, without a GPU and without reading model weights."""
    from coordcore.check import load_and_check, notes

    loaded = load_and_check(manifest, overrides)

    for note in notes(loaded):
        typer.echo(f"note: {note}")
    typer.echo(f"{manifest}: no problems found")


@app.command()
def plugins(json: AsJson = False) -> None:
    """List the installed plugins, what they offer, and why one could not be loaded."""
    from coordcore.discovery import discover

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
    offers += ["the engine"] if info.engine is not None else []
    told = info.reason or ", ".join(offers) or "hooks only"
    return "; ".join([told, *info.notes])


def _plugins_json(found: Plugins) -> dict[str, Any]:
    return {
        "plugins": [
            {
                "distribution": one.distribution,
                "version": one.version,
                "entry_point": one.entry_point,
                "status": one.status,
                "reason": one.reason,
                "notes": list(one.notes),
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
    from coordcore.discovery import discover

    found = discover()
    if section is None and not json:
        typer.echo(schemas.overview(found))
        return
    chosen = schemas.sections(found) if section is None else schemas.find(section, found)
    if json:
        _echo_json([schemas.as_json(one) for one in chosen])
    else:
        typer.echo("\n\n".join(schemas.text(one) for one in chosen))


def main() -> None:
    """The console entry. Exit codes: 0 done, 1 the run failed, 2 the input is wrong, 130 interrupted."""
    app()
