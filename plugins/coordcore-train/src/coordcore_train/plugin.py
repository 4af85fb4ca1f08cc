"""The hooks: the commands run, expand and merge, and the engine. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any

from coordcore import Command, Problem, hookimpl
from coordcore.manifest import Manifest

_COMMANDS = {
    "run": "Train what a manifest says and merge the result. A run that was cut off continues.",
    "expand": "Add the 1000 coord tokens to a checkpoint.",
    "merge": "Bake adapters and surgeries of a run into a plain transformers checkpoint.",
}


def _loader(name: str) -> Callable[[], Any]:
    """The command's function, imported when it is used."""
    return lambda: getattr(import_module("coordcore_train.commands"), name)


@hookimpl
def coordcore_commands() -> Iterable[Command]:
    return [Command(name=name, load=_loader(name), summary=summary) for name, summary in _COMMANDS.items()]


class SwiftEngine:
    """ms-swift as the engine. How it trains, rehearses and binds: `coordcore_train.swift`."""

    def check(self, run: Manifest) -> Iterator[Problem]:
        from coordcore_train.check import check

        return check(run)

    def notes(self, run: Manifest) -> Iterator[str]:
        from coordcore_train.check import notes

        return notes(run)


@hookimpl
def coordcore_engine() -> SwiftEngine:
    return SwiftEngine()
