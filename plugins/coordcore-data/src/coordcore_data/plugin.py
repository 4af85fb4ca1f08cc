"""The hook: the command `coordcore data`. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coordcore import Command, hookimpl


def _load() -> Any:
    from coordcore_data.command import command

    return command


@hookimpl
def coordcore_commands() -> Iterable[Command]:
    return [
        Command(
            name="data",
            load=_load,
            summary="Convert annotation formats to records and back, and check records for wrong conventions.",
        )
    ]
