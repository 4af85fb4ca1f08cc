"""The hooks of coordcore. A plugin implements any of them; their docstrings are the reference documentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pluggy

from coordcore.components import CheckedRun, Command, Component, Problem

GROUP = "coordcore.v1"
"""The entry-point group. Its number is the major version of this interface."""

hookspec = pluggy.HookspecMarker("coordcore")
hookimpl = pluggy.HookimplMarker("coordcore")


@hookspec
def coordcore_data_builders() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer data builders, selected by `[data.<name>]` (exactly one per run).

    Return components whose `build` gives a `coordcore.protocols.DataBuilder`. Called once, when plugins are loaded.
    """


@hookspec
def coordcore_template_adapters() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer template adapters, selected by `[template.<name>]` (one per run; `plain` when none is named).

    Return components whose `build` gives a `coordcore.protocols.TemplateAdapter`.
    """


@hookspec
def coordcore_surgeries() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer model surgeries, selected by `[surgery.<name>]` (any number, applied in manifest order).

    Return components whose `build` gives a `coordcore.protocols.ModelSurgery`, with `claims` naming the modules
    they change.
    """


@hookspec
def coordcore_losses() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer losses, selected by `[loss.<name>]` (at least one per run).

    Return components whose `build` gives a `coordcore.protocols.LossTerm` or a list of them. A loss that supervises
    coord positions says so: `provides=lambda config: [coordcore.COORD_SUPERVISION]`.
    """


@hookspec
def coordcore_optimizers() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer optimizers, selected by `[optimizer.<name>]` (one per run; `adamw` when none is named).

    Return components whose `build` gives a `coordcore.protocols.OptimizerFactory`.
    """


@hookspec
def coordcore_evaluators() -> Iterable[Component]:  # type: ignore[empty-body]
    """Offer evaluators, selected by `[eval.<name>]` (any number, called in manifest order once the run is merged).

    Return components whose `build` gives a `coordcore.protocols.Evaluator`. `[eval]` sections change no weight, so a
    run that was cut off can be continued with others.
    """


@hookspec
def coordcore_commands() -> Iterable[Command]:  # type: ignore[empty-body]
    """Add commands to the `coordcore` command line.

    Return `coordcore.Command` objects. A name that coordcore itself has, or that two plugins offer, is refused.
    """


@hookspec
def coordcore_check(run: CheckedRun) -> Iterable[Problem]:  # type: ignore[empty-body]
    """Report problems that no single section can see. Must not import torch or read model weights.

    `run` holds the structured manifest and the selected components. Return problems, or nothing. Called by
    `coordcore check` and at the start of `coordcore run`, only when every section is right in itself.
    """


@hookspec
def coordcore_step_ended(step: int, metrics: Mapping[str, float]) -> None:
    """Called on rank 0 after each logged optimizer step, with the metrics just written to `metrics.jsonl`.

    An exception stops the run.
    """


@hookspec
def coordcore_run_ended(run_dir: Path, error: BaseException | None) -> None:
    """Called once on rank 0 when a run is over: `error` is None after a merged checkpoint, else what stopped it.

    Also called for a keyboard interrupt. Implementations must not assume that `run_dir / "merged"` exists.
    """
