"""The hook: the command `coordcore doctor`. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coordcore import Command, hookimpl


def _load() -> Any:
    from coordcore_doctor.command import command

    return command


@hookimpl
def coordcore_commands() -> Iterable[Command]:
    return [
        Command(name="doctor", load=_load, summary="Look for everything that silently ruins a run, before it starts.")
    ]
