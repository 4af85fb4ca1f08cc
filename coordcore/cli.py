"""The command line: check, plugins, schema, and what plugins add. What a command needs is imported inside it."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer
from typer.core import TyperGroup

from coordcore import __version__
from coordcore.errors import InputError, ManifestError, RunError, printable, shortened
from coordcore.files import NO_ROOM
from coordcore.guard import guarded, told
from coordcore.options import AsJson, ManifestFile, Overrides
from coordcore.plugins import COMMANDS_OF

if TYPE_CHECKING:
    from coordcore.components import Command
    from coordcore.plugins import PluginInfo, Plugins

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130

_ROOM = (FAILED, "make room there, and start again")
_PATH = (WRONG_INPUT, "name another path")
_REFUSED = {
    **dict.fromkeys(NO_ROOM, _ROOM),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.ENOTDIR), _PATH),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _PATH),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), (FAILED, "allow more files, as with ulimit -n 1024")),
}
"""What the system refuses to whoever asks, wherever that is: exit code, cure. Any other OSError is our mistake."""

_STYLE: Any = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": "markdown"}
"""Of every command: typer's own markup would take "[model]" for a tag, and show nothing."""


class _Commands(TyperGroup):
    """coordcore's own commands and those of plugins, which are looked up only when they are asked for."""

    # Typer carries a command-line library of its own and names it privately, hence Any.

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *sorted(_discovered().commands())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or _plugin_command(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        with _exit_codes():
            return super().invoke(ctx)


def _discovered() -> Plugins:
    from coordcore.discovery import discover

    return discover()


def _plugin_command(name: str) -> Any:
    """The command that a plugin adds, None where there is none. Raises InputError for one that could be installed."""
    plugins = _discovered()
    command = plugins.commands().get(name)
    if command is None:
        _require_installed(name, plugins)
        return None
    found = None
    with guarded() as watch:
        loaded = command.load()
        if not isinstance(loaded, typer.Typer):
            function, loaded = loaded, typer.Typer(**_STYLE)
            loaded.command(name)(function)
        found = typer.main.get_command(loaded)
    if found is None:  # --help goes on, and says it there, too
        found = typer.main.get_command(_unusable(name, command, watch.error))
    found.name, found.short_help = name, command.summary
    return found


def _unusable(name: str, command: Command, error: BaseException | None) -> typer.Typer:
    """In place of a command that cannot be loaded: says why when it is called."""
    app = typer.Typer(**_STYLE)
    reason = "no reason" if error is None else told(error)

    @app.command(name, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
    def fails() -> None:
        raise RunError(f"the plugin's command `{name}` ({command.summary}) cannot be loaded: {reason}")

    return app


def _require_installed(name: str, plugins: Plugins) -> None:
    """Raise InputError for a command of the project that is not here: what to install, or what is wrong with it."""
    for owner in (owner for owner, names in COMMANDS_OF.items() if name in names):
        for conflict in plugins.conflicts:
            if (conflict.kind, conflict.name) == ("command", name):
                raise InputError(f"`{name}` is {conflict.reason}")
        for info in plugins.infos:
            if info.distribution == owner and info.status != "ready":
                raise InputError(f"`{name}` comes with {owner}, which is installed and {info.status}: {info.reason}")
        package = "coordcore[train]" if owner == "coordcore-train" else owner
        raise InputError(f"`{name}` comes with {owner}; pip install '{package}'")


app = typer.Typer(
    name="coordcore",
    cls=_Commands,
    help="Fine-tune vision-language models that speak boxes as coordinate tokens.",
    no_args_is_help=True,
    **_STYLE,
)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn the errors a user can mend into a message and an exit code."""
    try:
        yield
    except (InputError, RunError) as error:
        message = f"coordcore: {error}"
        if isinstance(error, ManifestError):
            count = len(error.problems)
            message = f"{error}\n{count} problem{'s' if count > 1 else ''} found"
        typer.echo(message, err=True)
        raise typer.Exit(FAILED if isinstance(error, RunError) else WRONG_INPUT) from error
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        code, cure = _REFUSED[error.errno]
        place = f"{shortened(str(error.filename), 300)}: " if error.filename else ""
        typer.echo(printable(f"coordcore: {place}{os.strerror(error.errno).lower()}; {cure}"), err=True)
        raise typer.Exit(code) from error
    except KeyboardInterrupt as error:
        typer.echo("coordcore: interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from error


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
        typer.echo(f"note: {printable(shortened(note, 1_000))}")
    typer.echo(f"{manifest}: no problems found")


@app.command()
def plugins(json: AsJson = False) -> None:
    """List the installed plugins, what they offer, and why one could not be loaded."""
    found = _discovered()
    if json:
        conflicts = [attrs.asdict(conflict) for conflict in found.conflicts]
        _echo_json({"plugins": [_plugin_json(info) for info in found.infos], "conflicts": conflicts})
        return
    rows = [(info.distribution, info.version, info.status, printable(_offer(info))) for info in found.infos]
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


def _plugin_json(info: PluginInfo) -> dict[str, Any]:
    names = ("distribution", "version", "entry_point", "status", "reason", "notes")
    return {
        **{name: getattr(info, name) for name in names},
        "components": [{"kind": kind, "name": item.name, "summary": item.summary} for kind, item in info.components],
        "commands": [{"name": command.name, "summary": command.summary} for command in info.commands],
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

    typer.echo(json.dumps(value, indent=2))


@app.command()
def schema(
    section: Annotated[
        str | None, typer.Argument(metavar="[SECTION[.NAME]]", help="e.g. train, loss, loss.text_ce")
    ] = None,
    json: AsJson = False,
) -> None:
    """Print the keys of a section with types, defaults and help; without one, list the sections."""
    from coordcore import schema as schemas

    found = _discovered()
    if section is None and not json:
        typer.echo(schemas.overview(found))
        return
    chosen = schemas.sections(found) if section is None else schemas.find(section, found)
    if json:
        _echo_json([schemas.as_json(item) for item in chosen])
    else:
        typer.echo("\n\n".join(schemas.text(item) for item in chosen))


def main() -> None:
    """The console entry. Exit codes: 0 done, 1 the run failed, 2 the input is wrong, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):  # in the C locale no label beyond ASCII could be printed
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    finally:  # what plugins print as Python ends must not stand behind `--json`
        sys.stdout.flush()
        with suppress(OSError):
            os.dup2(2, 1)
