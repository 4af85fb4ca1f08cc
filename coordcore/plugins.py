"""What the installed plugins offer, and what is wrong with those that offer nothing. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import attrs
import pluggy
from packaging.utils import canonicalize_name

from coordcore.components import Command, Component
from coordcore.errors import InputError
from coordcore.kinds import Kind
from coordcore.lifecycle import Hooks

if TYPE_CHECKING:
    from coordcore.protocols import Engine

Status = Literal["ready", "blocked", "incompatible", "failed"]

CORE = "coordcore"
"""The distribution that offers the built-in components."""

ENGINE = "coordcore-train"
"""The distribution that brings the engine."""

COMMANDS_OF = {
    ENGINE: ("run", "plan", "expand", "merge", "push"),
    "coordcore-detection": ("predict", "calibrate", "eval", "compare", "report"),
    "coordcore-data": ("data",),
    "coordcore-doctor": ("doctor",),
    "coordcore-label-embeddings": ("synonyms",),
    "coordcore-parallel-boxes": ("heads",),
}
"""The project's distributions that bring commands, and which: no other plugin takes these away from them."""


@attrs.frozen(kw_only=True)
class PluginInfo:
    """What is known about one entry point. `reason` says why it is not ready; what it offers is empty then.

    notes: what it did while it was loaded that a plugin must not, and that was undone or could be borne.
    relay: its own hooks, by name; None unless it is ready.
    """

    distribution: str
    version: str
    entry_point: str
    status: Status
    reason: str = ""
    notes: tuple[str, ...] = ()
    components: tuple[tuple[Kind, Component], ...] = ()
    commands: tuple[Command, ...] = ()
    engine: Engine | None = None
    relay: pluggy.HookRelay | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class Conflict:
    """A name that several distributions offer within one kind. None of them wins, and a manifest cannot name it;
    a command of the project's own stays its own (`COMMANDS_OF`).

    kind: of component, or "command".
    """

    kind: Kind | Literal["command"]
    name: str
    distributions: tuple[str, ...]

    @property
    def reason(self) -> str:
        """Who offers it, and the cure."""
        if own := [owner for owner in self.distributions if self.name in COMMANDS_OF.get(owner, ())]:
            others = " and ".join(distribution for distribution in self.distributions if distribution != own[0])
            return f"{own[0]}'s own; that of {others} is left out; uninstall it or list it in COORDCORE_BLOCK"
        return f"offered by {' and '.join(self.distributions)}; uninstall one or list it in [plugins] block"

    def __str__(self) -> str:
        return f"{self.kind}.{self.name} is {self.reason}"


@attrs.frozen(kw_only=True, slots=False)
class Plugins:
    """Everything installed: `infos` for every entry point, and what those that are ready offer."""

    kinds: tuple[Kind, ...]
    infos: tuple[PluginInfo, ...]

    @cached_property
    def _offers(self) -> Mapping[tuple[str, str], list[tuple[PluginInfo, Component | Command]]]:
        """(kind or "command", name) -> everything that is offered under it, and by whom."""
        offers: dict[tuple[str, str], list[tuple[PluginInfo, Component | Command]]] = {}
        for info in self.infos:
            named: Iterable[tuple[str, Component | Command]] = info.components
            for kind, offer in (*named, *(("command", command) for command in info.commands)):
                offers.setdefault((kind, offer.name), []).append((info, offer))
        return offers

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        """The names that several distributions offer."""
        return tuple(
            Conflict(kind=kind, name=name, distributions=tuple(info.distribution for info, _ in found))  # type: ignore[arg-type]  # a Kind
            for (kind, name), found in self._offers.items()
            if len(found) > 1
        )

    def _only(self, kind: str) -> dict[str, tuple[PluginInfo, Component | Command]]:
        """What one distribution alone offers in a kind, by name."""
        only = {}
        for name, found in ((name, found) for (own, name), found in self._offers.items() if own == kind):
            first_party = [
                item for item in found if kind == "command" and name in COMMANDS_OF.get(item[0].distribution, ())
            ]
            if len(first_party or found) == 1:
                only[name] = (first_party or found)[0]
        return only

    def names(self, kind: Kind) -> list[str]:
        """The names a manifest can use in one kind, sorted."""
        return sorted(self._only(kind))

    def get(self, kind: Kind, name: str) -> Component:
        """The component of this name. Raises KeyError where `names(kind)` does not list it."""
        return self._only(kind)[name][1]  # type: ignore[return-value]  # of a kind, no Command

    def distribution(self, kind: Kind, name: str) -> str:
        """The normalised name of the distribution that offers a component. Raises KeyError as `get` does."""
        return self._only(kind)[name][0].distribution

    def version(self, distribution: str) -> str:
        """The version of a distribution in `infos`. Raises KeyError for another one."""
        return {info.distribution: info.version for info in self.infos}[distribution]

    def commands(self) -> dict[str, Command]:
        """The commands plugins add, by name; those that two of them offer (`conflicts`) are left out, but for ours."""
        return {name: command for name, (_, command) in self._only("command").items()}  # type: ignore[misc]  # no Component

    def hooks(self, distributions: Iterable[str]) -> Hooks:
        """The lifecycle hooks of these distributions alone: a run reaches no plugin that it does not name."""
        wanted = {canonicalize_name(name) for name in distributions}
        named = [info for info in self.infos if info.distribution in wanted]
        return Hooks([(info.distribution, info.relay) for info in named if info.relay is not None])

    def engines(self) -> list[tuple[str, Engine]]:
        """Every engine that is offered, behind its distribution."""
        return [(info.distribution, info.engine) for info in self.infos if info.engine is not None]

    @property
    def engine_conflict(self) -> str:
        """Why no run can be trained where several distributions offer an engine, empty where they do not."""
        owners = [distribution for distribution, _ in self.engines()]
        offering = f"{' and '.join(owners)} both offer an engine; uninstall one or list it in [plugins] block"
        return offering if len(owners) > 1 else ""

    @property
    def engine(self) -> Engine:
        """What trains. Raises InputError when no installed plugin offers one, or two do."""
        owners = [distribution for distribution, _ in self.engines()]
        if reason := self.engine_conflict:
            raise InputError(reason)
        if not owners:
            faults = [info for info in self.infos if info.distribution == ENGINE and info.status != "ready"]
            why = "".join(f" (plugin {ENGINE} is {info.status}: {info.reason})" for info in faults)
            raise InputError(f"no engine is installed{why}; pip install 'coordcore[train]'")
        return self.engines()[0][1]
