"""The hooks of coordcore. A plugin implements any of them; their docstrings are the reference documentation.

A hook that offers components is made from its row in `coordcore.kinds`.
"""

# mypy: disable-error-code="empty-body"
# A hook is declared and has no body.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pluggy

from coordcore.components import Command, Component
from coordcore.errors import Problem
from coordcore.kinds import KINDS, Kind

if TYPE_CHECKING:
    from coordcore.manifest.sections import Manifest
    from coordcore.protocols import Engine

GROUP = "coordcore.v1"
"""The entry-point group. Its number is the major version of this interface."""

hookspec = pluggy.HookspecMarker("coordcore")
hookimpl = pluggy.HookimplMarker("coordcore")


_OFFERING = """Offer {kind.plural}, selected by `[{kind}.<name>]` ({kind.amount}).

Return components whose `build` gives a `coordcore.protocols.{kind.protocol}`.
Called once, when plugins are loaded."""


def hooks(kinds: Iterable[Kind] = KINDS) -> SimpleNamespace:
    """Every hook as a hook specification, by name: those that offer components of `kinds`, then the rest."""
    fixed = {name: function for name, function in globals().items() if hasattr(function, "coordcore_spec")}
    return SimpleNamespace(**{kind.hook: _offering(kind) for kind in kinds}, **fixed)


def _offering(kind: Kind) -> Callable[[], Iterable[Component]]:
    """The hook by which plugins offer components of one kind."""

    def hook() -> Iterable[Component]:
        pass

    hook.__name__ = hook.__qualname__ = kind.hook
    hook.__doc__ = _OFFERING.format(kind=kind)
    if kind.note:
        hook.__doc__ += f"\n\n{kind.note}"
    return hookspec(hook)


@hookspec
def coordcore_commands() -> Iterable[Command]:
    """Add commands to the `coordcore` command line.

    Return `coordcore.Command` objects. A name that coordcore itself or the project's own plugins have is
    refused, and so is one that two plugins offer.
    """


@hookspec
def coordcore_engine() -> Engine:
    """Offer what trains: one `coordcore.protocols.Engine`. One installed plugin may; coordcore-train does.

    Called once, when plugins are loaded: the engine imports torch only when it trains.
    """


@hookspec
def coordcore_check(run: Manifest) -> Iterable[Problem]:
    """Report problems that no single component of the plugin can see (else `Component.check` is the place).

    `run` is the structured manifest; `run.of(kind)` gives the selected components. Return problems, or nothing. Must
    not import torch or read model weights. Called by `coordcore check` and at the start of `coordcore run`, only when
    every section is right in itself, and only for a run that names a component of the plugin, or the plugin in
    `requires`.
    """


@hookspec
def coordcore_step_ended(step: int, metrics: Mapping[str, float]) -> None:
    """Called on rank 0 after each logged optimizer step, with the metrics just written to `metrics.jsonl`.

    Only for a run that names the plugin, as `coordcore_check`. An exception stops the run.
    """


@hookspec
def coordcore_run_ended(run_dir: Path, error: BaseException | None) -> None:
    """Called in one process of the whole run, the first, when it is over. `error` is None when it ended well, merged
    unless `output.merge` is false; else what stopped it.

    Only for a run that names the plugin, as `coordcore_check`; also called for a keyboard interrupt. Implementations
    must not assume that `run_dir / "merged"` exists.
    """
