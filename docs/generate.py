"""Writes the generated parts of docs/reference again: `python docs/generate.py`. A test compares them.

A part stands between `<!-- generated: NAME ... -->` and `<!-- end -->`; NAME is a function of this file, followed by
its arguments. Installed plugins are left out, so that the result is the same everywhere; their commands have a page.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import typer

from coordcore import hookspecs, schema
from coordcore.cli import app
from coordcore.discovery import discover
from coordcore.kinds import KINDS
from coordcore.plugins import COMMANDS_OF, ENGINE
from coordcore_train import commands as engine_commands
from coordcore_train.run.resolved import WITHOUT_EFFECT, sections_without_effect
from coordcore_train.swift.arguments import OWNED
from coordcore_train.swift.known import REFUSED

_REFERENCE = Path(__file__).parent / "reference"
FILES = [_REFERENCE / name for name in ("manifest.md", "cli.md", "hooks.md")]
WITH_ALL_PLUGINS = [_REFERENCE / "plugin-commands.md"]
"""What can be made anew only where the project's plugins are installed."""

_PART = re.compile(r"(<!-- generated: (\w+)(.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def sections(*paths: str) -> str:
    """The core's own sections, as `coordcore schema` prints them."""
    plugins = discover(entry_points=())
    texts = [schema.text(item) for path in paths for item in schema.find(path, plugins)]
    return "```toml\n" + "\n\n".join(texts) + "\n```"


def owned() -> str:
    """ms-swift arguments that a manifest key sets."""
    rows = [f"| `{name}` | `{key}` |" for name, key in OWNED.items()]
    return "\n".join(["| ms-swift argument | manifest key |", "| --- | --- |", *rows])


def refused() -> str:
    """ms-swift arguments that a run cannot have, by reason."""
    names: dict[str, list[str]] = {}
    for name, reason in REFUSED.items():
        names.setdefault(reason.replace("<", "&lt;"), []).append(f"`{name}`")
    rows = [f"| {', '.join(group)} | {reason} |" for reason, group in names.items()]
    return "\n".join(["| ms-swift argument | why not |", "| --- | --- |", *rows])


def without_effect() -> str:
    """Keys that are no part of the fingerprint."""
    keys = [f"`{key}`" for key in sections_without_effect()]
    keys += [f"`{section}.{key}`" for section, names in WITHOUT_EFFECT.items() for key in names]
    return ", ".join(keys)


def commands() -> str:
    """The commands of the engine and of the core, with their arguments and options."""
    engine = typer.Typer(rich_markup_mode="markdown")
    for name in COMMANDS_OF[ENGINE]:
        engine.command()(getattr(engine_commands, name))
    every: dict[str, Any] = {}
    for group in (engine, app):
        every |= vars(typer.main.get_command(group))["commands"]
    return "\n\n".join(_command(f"coordcore {name}", command) for name, command in every.items())


def plugin_commands() -> str:
    """The commands of the project's other distributions, which must be installed."""
    group: Any = typer.main.get_command(app)  # finds those of plugins as a user does
    parts = []
    for distribution, names in COMMANDS_OF.items():
        for name in names if distribution != ENGINE else ():
            command = group.get_command(None, name)
            inner = vars(command).get("commands", {"": command})
            parts += [
                _command(f"coordcore {name} {below}".strip(), item, distribution) for below, item in inner.items()
            ]
    return "\n\n".join(parts)


def _command(title: str, command: Any, distribution: str = "") -> str:
    rows = [_parameter(parameter) for parameter in command.params if parameter.name != "help"]
    owner = [f"`pip install {distribution}`", ""] if distribution else []
    head = [f"### {title}", "", inspect.cleandoc(command.help), "", *owner, "| | |", "| --- | --- |"]
    return "\n".join([*head, *rows])


def _parameter(parameter: Any) -> str:
    """A row of a table: how it is given, what it means, what may be given and what it is otherwise."""
    label, words = parameter.metavar, parameter.help
    if parameter.param_type_name == "option":
        names = " / ".join([parameter.opts[0], *parameter.secondary_opts])
        label = f"{names} {parameter.metavar}" if parameter.metavar else names
    if allowed := getattr(parameter.type, "choices", None):
        words += f" One of {', '.join(f'`{choice}`' for choice in allowed)}."
    default = getattr(parameter.default, "value", parameter.default)
    if isinstance(parameter.show_default, str):
        words += f" Otherwise {parameter.show_default}."
    elif isinstance(default, bool):
        shown = parameter.opts[0] if default else "".join(parameter.secondary_opts)
        words += f" Otherwise `{shown}`." if shown and parameter.secondary_opts else ""
    elif default not in (None, "") and parameter.show_default:
        words += f" Otherwise `{default}`."
    words = words.replace("|", r"\|")  # which ends a cell otherwise, in code too
    return f"| `{label}` | {words}{' Required.' if parameter.required else ''} |"


def kinds() -> str:
    """The table of kinds."""
    rows = [
        f"| `[{kind}.<name>]` | {kind.noun} | {kind.amount} | `{kind.hook}` | `{kind.protocol}` |" for kind in KINDS
    ]
    return "\n".join(["| section | kind | in a run | hook | `build` gives |", "|---|---|---|---|---|", *rows])


def hooks(*names: str) -> str:
    """Hooks with their signatures and docstrings: those that offer components, or those named."""
    every = vars(hookspecs.hooks())
    parts = []
    for name in names or [kind.hook for kind in KINDS]:
        signature = f"def {name}{inspect.signature(every[name])}".replace("'", "")
        parts.append(f"### `{name}`\n\n```python\n{signature}\n```\n\n{inspect.getdoc(every[name])}")
    return "\n\n".join(parts)


def regenerate(text: str) -> str:
    """`text` with every generated part made anew."""

    def part(match: re.Match[str]) -> str:
        start, name, arguments, end = match.groups()
        return f"{start}{globals()[name](*arguments.split())}\n{end}"

    return _PART.sub(part, text)


if __name__ == "__main__":
    for file in [*FILES, *WITH_ALL_PLUGINS]:
        file.write_text(regenerate(file.read_text(encoding="utf-8")), encoding="utf-8")
