"""Writes the generated parts of docs/reference again: `python docs/generate.py`. A test compares them.

A part stands between `<!-- generated: NAME ... -->` and `<!-- end -->`; NAME is a function of this file, followed by
its arguments. Installed plugins are left out, so that the result is the same everywhere.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import typer

from coordcore import hookspecs, schema
from coordcore.cli import app
from coordcore.discovery import discover
from coordcore.kinds import KINDS
from coordcore.manifest.resolve import WITHOUT_EFFECT, sections_without_effect
from coordcore.plugins import COMMANDS, ENGINE
from coordcore_train import commands as engine_commands
from coordcore_train.swift.arguments import OWNED
from coordcore_train.swift.known import REFUSED

FILES = [Path(__file__).parent / "reference" / name for name in ("manifest.md", "cli.md", "hooks.md")]

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
    for name in COMMANDS[ENGINE]:
        engine.command()(getattr(engine_commands, name))
    parts = []
    every = {**typer.main.get_command(engine).commands, **typer.main.get_command(app).commands}  # type: ignore[attr-defined]
    for name, command in every.items():
        rows = []
        for parameter in command.params:
            if parameter.name == "help":
                continue
            is_option = parameter.param_type_name == "option"
            metavar = f" {parameter.metavar}" if is_option and parameter.metavar else ""
            label = f"{parameter.opts[0]}{metavar}" if is_option else parameter.metavar
            required = " Required." if parameter.required else ""
            rows.append(f"| `{label}` | {parameter.help}{required} |")
        parts.append("\n".join([f"### coordcore {name}", "", command.help, "", "| | |", "| --- | --- |", *rows]))
    return "\n\n".join(parts)


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
    for file in FILES:
        file.write_text(regenerate(file.read_text(encoding="utf-8")), encoding="utf-8")
