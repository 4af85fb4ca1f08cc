"""The hooks: the evaluator `[eval.label_embeddings]` and the command `coordcore synonyms`. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coordcore import Command, Component, hookimpl
from coordcore_label_embeddings.evaluator import COMPONENT


def _load() -> Any:
    from coordcore_label_embeddings.command import command

    return command


@hookimpl
def coordcore_commands() -> Iterable[Command]:
    summary = "Propose which predicted labels mean which true ones, by a text embedding model."
    return [Command(name="synonyms", load=_load, summary=summary)]


@hookimpl
def coordcore_evaluators() -> Iterable[Component]:
    return [COMPONENT]
