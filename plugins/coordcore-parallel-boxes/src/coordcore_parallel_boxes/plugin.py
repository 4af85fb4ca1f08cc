"""The hook: the command `coordcore heads`. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coordcore import Command, hookimpl


def _load() -> Any:
    from coordcore_parallel_boxes.command import command

    return command


@hookimpl
def coordcore_commands() -> Iterable[Command]:
    summary = "Train heads that propose the corners of a box together, for predict --parallel."
    return [Command(name="heads", load=_load, summary=summary)]
