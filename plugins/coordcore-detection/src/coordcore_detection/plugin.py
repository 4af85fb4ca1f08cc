"""The hooks: the evaluator `[eval.detection]` and the commands. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from coordcore import Command, Component, hookimpl
from coordcore_detection.evaluate.evaluator import COMPONENT

_COMMANDS = {
    "predict": "Ask a run or checkpoint about the images of a record file.",
    "calibrate": "Fit scores to the share of boxes that are right.",
    "eval": "Measure predictions against a record file.",
    "report": "Write the report of an evaluation anew: curves, pictures, calibration, training.",
    "compare": "Show two evaluations side by side, with intervals.",
}


def _loader(name: str) -> Callable[[], Any]:
    """The command's function or app, imported when it is used."""
    return lambda: import_module(f"coordcore_detection.commands.{name}").command


@hookimpl
def coordcore_commands() -> Iterable[Command]:
    return [Command(name=name, load=_loader(name), summary=summary) for name, summary in _COMMANDS.items()]


@hookimpl
def coordcore_evaluators() -> Iterable[Component]:
    return [COMPONENT]
