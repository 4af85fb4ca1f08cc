"""Finds the installed plugins, checks their versions before importing them, keeps what failed as data. Torch-free."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib import metadata
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import attrs
import pluggy
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from coordcore import __version__, builtins, hookspecs
from coordcore.components import Command, Component
from coordcore.errors import InputError
from coordcore.guard import guarded
from coordcore.kinds import KINDS, Kind
from coordcore.lifecycle import Hooks

if TYPE_CHECKING:
    from coordcore.protocols import Engine

Status = Literal["ready", "blocked", "incompatible", "failed"]
T = TypeVar("T")

CORE = "coordcore"
"""The distribution that offers the built-in components."""


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
    """A name that several distributions offer within one kind. None of them wins: a manifest cannot name it.

    kind: of component, or "command".
    """

    kind: Kind | Literal["command"]
    name: str
    distributions: tuple[str, ...]

    @property
    def reason(self) -> str:
        """Who offers it, and the cure."""
        return f"offered by {' and '.join(self.distributions)}; uninstall one or list it in [plugins] block"

    def __str__(self) -> str:
        return f"{self.kind}.{self.name} is {self.reason}"


@attrs.frozen(kw_only=True)
class Plugins:
    """Everything installed: `infos` for every entry point, and the components of those that are ready."""

    kinds: tuple[Kind, ...]
    infos: tuple[PluginInfo, ...]
    conflicts: tuple[Conflict, ...]
    _offers: Mapping[tuple[Kind, str], tuple[str, Component]]

    def names(self, kind: Kind) -> list[str]:
        """The names a manifest can use in one kind, sorted."""
        return sorted(name for offered, name in self._offers if offered == kind)

    def get(self, kind: Kind, name: str) -> Component:
        """The component of this name. Raises KeyError where `names(kind)` does not list it."""
        return self._offers[kind, name][1]

    def distribution(self, kind: Kind, name: str) -> str:
        """The normalised name of the distribution that offers a component. Raises KeyError as `get` does."""
        return self._offers[kind, name][0]

    def version(self, distribution: str) -> str:
        """The version of a distribution in `infos`. Raises KeyError for another one."""
        return {info.distribution: info.version for info in self.infos}[distribution]

    def commands(self) -> dict[str, Command]:
        """The commands plugins add, by name; those that two of them offer are left out (`conflicts`)."""
        every = [command for info in self.infos for command in info.commands]
        names = [command.name for command in every]
        return {command.name: command for command in every if names.count(command.name) == 1}

    def hooks(self, distributions: Iterable[str]) -> Hooks:
        """The lifecycle hooks of these distributions alone: a run reaches no plugin that it does not name."""
        wanted = {canonicalize_name(name) for name in distributions}
        return Hooks([info for info in self.infos if info.distribution in wanted and info.relay is not None])

    @property
    def has_engine(self) -> bool:
        """Whether an installed plugin offers an engine."""
        return any(info.engine is not None for info in self.infos)

    @property
    def engine(self) -> Engine:
        """What trains. Raises InputError when no installed plugin offers one, or two do."""
        found = [info for info in self.infos if info.engine is not None]
        if len(found) > 1:
            names = " and ".join(info.distribution for info in found)
            raise InputError(f"{names} both offer an engine; uninstall one or list it in [plugins] block")
        if not found or found[0].engine is None:
            raise InputError(f"no engine is installed{self._engine_fault()}; pip install 'coordcore[train]'")
        return found[0].engine

    def _engine_fault(self) -> str:
        """Why the engine of coordcore-train is not there although the distribution is."""
        faults = [info for info in self.infos if info.distribution == "coordcore-train" and info.status != "ready"]
        return f" (plugin coordcore-train is {faults[0].status}: {faults[0].reason})" if faults else ""


class _UnusableError(Exception):
    """Why a plugin cannot be used."""


def discover(
    *,
    block: Iterable[str] = (),
    entry_points: Iterable[metadata.EntryPoint] | None = None,
    kinds: tuple[Kind, ...] = KINDS,
) -> Plugins:
    """Find, check and load the plugins of all installed distributions.

    block: distribution names that are not imported, besides those in the environment variable COORDCORE_BLOCK
        (comma-separated).
    entry_points: instead of those of the installed distributions, for tests.
    kinds: the table of kinds, `coordcore.kinds.KINDS` but for tests.

    Never raises for a plugin's fault: see `Plugins.infos`.
    """
    blocked: dict[str, str] = {canonicalize_name(name.strip()): "[plugins] block" for name in block}
    blocked |= {
        canonicalize_name(name.strip()): "COORDCORE_BLOCK" for name in os.environ.get("COORDCORE_BLOCK", "").split(",")
    }
    load = _Loader(kinds)
    found = _installed() if entry_points is None else entry_points
    infos = (load.core(), *(load.plugin(one, blocked) for one in _ours(found)))
    offers, conflicts = _offers(infos)
    return Plugins(kinds=kinds, infos=infos, conflicts=conflicts, offers=offers)


def _installed() -> list[metadata.EntryPoint]:
    every = metadata.entry_points()  # a mapping in Python 3.11, a sequence later; these two work on both
    return [one for group in every.groups for one in every.select(group=group)]


def _ours(entry_points: Iterable[metadata.EntryPoint]) -> list[metadata.EntryPoint]:
    """The entry points of any version of the interface, this version's alone where a distribution has both."""
    every = [one for one in entry_points if re.fullmatch(r"coordcore\.v\d+", one.group)]
    at_home = {_distribution(one) for one in every if one.group == hookspecs.GROUP}
    every = [one for one in every if one.group == hookspecs.GROUP or _distribution(one) not in at_home]
    return sorted(every, key=lambda one: (_distribution(one), one.group, one.name))


def _distribution(entry_point: metadata.EntryPoint) -> str:
    return canonicalize_name(entry_point.dist.name) if entry_point.dist else "(no distribution)"


class _Loader:
    """Loads plugins one by one, each into a plugin manager of its own, so that none can touch another."""

    def __init__(self, kinds: tuple[Kind, ...]) -> None:
        self.kinds = kinds
        self.hooks = hookspecs.hooks(kinds)
        self.loaded: list[Any] = []

    def core(self) -> PluginInfo:
        """What coordcore itself offers."""
        info = PluginInfo(distribution=CORE, version=__version__, entry_point="builtins", status="ready")
        return attrs.evolve(info, **self._offered(builtins, "builtins"))

    def plugin(self, entry_point: metadata.EntryPoint, blocked: Mapping[str, str]) -> PluginInfo:
        """What is known of an entry point once it was loaded, or of why it was not. Raises nothing of the plugin's."""
        info = PluginInfo(
            distribution=_distribution(entry_point),
            version=entry_point.dist.version if entry_point.dist else "",
            entry_point=entry_point.name,
            status="ready",
        )
        if info.distribution in blocked:
            return attrs.evolve(info, status="blocked", reason=f"named in {blocked[info.distribution]}")
        try:
            _require_this_interface(entry_point)
        except _UnusableError as error:
            return attrs.evolve(info, status="incompatible", reason=str(error))
        # Whatever a stranger's module does while it is imported or asked, it must not stop a run that does not name it.
        with guarded() as watch:
            offered = self._offered(entry_point.load(), f"{info.distribution}:{entry_point.name}")
        if watch.error is not None:
            return attrs.evolve(info, status="failed", reason=_reason(watch.error), notes=watch.notes)
        return attrs.evolve(info, notes=watch.notes, **offered)

    def _offered(self, plugin: Any, name: str) -> dict[str, Any]:
        """Check a plugin's hooks and ask for what it offers. Raises _UnusableError, or what a hook raises."""
        if any(one is plugin for one in self.loaded):
            raise _UnusableError("another entry point names the same object")
        manager = pluggy.PluginManager("coordcore")
        manager.add_hookspecs(self.hooks)
        _check_hooks(plugin, manager, vars(self.hooks))
        try:
            manager.register(plugin, name)
        except pluggy.PluginValidationError as error:
            raise _UnusableError(" ".join(str(error).split())) from error
        components = tuple((kind, one) for kind in self.kinds for one in _components(kind, manager))
        names = [(kind, one.name) for kind, one in components]
        for kind, component_name in names:
            if names.count((kind, component_name)) > 1:
                raise _UnusableError(f"offers {kind}.{component_name} twice")
        commands = tuple(_returned("coordcore_commands", Command, manager))
        for command in commands:
            if command.name in builtins.COMMANDS:
                raise _UnusableError(
                    f"offers a command {command.name!r}, which is coordcore's own; give it another name"
                )
        engines = [engine for engine in manager.hook.coordcore_engine() if engine is not None]
        for engine in engines:
            missing = [method for method in ("check", "notes") if not callable(getattr(engine, method, None))]
            if missing:
                raise _UnusableError(f"coordcore_engine returned {engine!r}, which has no {' and no '.join(missing)}()")
        self.loaded.append(plugin)
        return {
            "components": components,
            "commands": commands,
            "engine": engines[0] if engines else None,
            "relay": manager.hook,
        }


def _reason(error: BaseException) -> str:
    """What stopped a plugin, on one line."""
    return str(error) if isinstance(error, _UnusableError) else " ".join(f"{type(error).__name__}: {error}".split())


def _require_this_interface(entry_point: metadata.EntryPoint) -> None:
    """Raise _UnusableError unless the distribution says, in its own metadata, that it works with this coordcore."""
    if entry_point.group != hookspecs.GROUP:
        raise _UnusableError(
            f"needs another interface, {entry_point.group}; coordcore {__version__} offers {hookspecs.GROUP}"
        )
    every = []
    for text in (entry_point.dist and entry_point.dist.requires) or ():
        try:
            every.append(Requirement(text))
        except InvalidRequirement as error:
            raise _UnusableError(f"its metadata holds an invalid requirement: {text!r}") from error
    ours = [
        one
        for one in every
        if canonicalize_name(one.name) == CORE and (one.marker is None or one.marker.evaluate({"extra": ""}))
    ]
    if not ours:
        raise _UnusableError(
            'does not say which coordcore it needs; its dependencies must name it: "coordcore>=0.1,<0.2"'
        )
    for one in ours:
        if not one.specifier.contains(__version__, prereleases=True):
            raise _UnusableError(f"needs coordcore{one.specifier}, this is {__version__}")


def _check_hooks(plugin: Any, manager: pluggy.PluginManager, hooks: Mapping[str, Any]) -> None:
    """Say in our words what pluggy says in its own, or passes over: unknown names and missing markers."""
    marked = {name: options for name in dir(plugin) if (options := manager.parse_hookimpl_opts(plugin, name))}
    for name, options in marked.items():
        hook = options["specname"] or name
        if hook not in hooks:
            close = get_close_matches(hook, hooks, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(hooks))}"
            raise _UnusableError(f"unknown hook {hook!r}; {hint}")
        given = signature(hooks[hook]).parameters
        for taken in signature(getattr(plugin, name)).parameters:
            if taken not in given:
                known = f"it gives {', '.join(given)}" if given else "it gives no arguments"
                raise _UnusableError(f"{name} takes {taken!r}, which the hook {hook} does not give; {known}")
    unmarked = sorted(hooks.keys() & set(dir(plugin)) - marked.keys())
    if unmarked:
        raise _UnusableError(f"{unmarked[0]} is not marked with @coordcore.hookimpl")
    if not marked:
        raise _UnusableError("it holds no function marked with @coordcore.hookimpl")


def _components(kind: Kind, manager: pluggy.PluginManager) -> list[Component]:
    components = list(_returned(kind.hook, Component, manager))
    for component in components:
        _resolve_types(component)
    return components


def _returned(hook: str, wanted: type[T], manager: pluggy.PluginManager) -> Iterator[T]:
    """What a plugin's `hook` returns, when every item is a `wanted`."""
    for offered in getattr(manager.hook, hook)():
        if not isinstance(offered, Iterable):
            raise _UnusableError(f"{hook} returned {offered!r}; it must return an iterable of {wanted.__name__}")
        for item in offered:
            if not isinstance(item, wanted):
                raise _UnusableError(
                    f"{hook} returned {item!r} in its iterable; it must hold {wanted.__name__} objects"
                )
            yield item


def _resolve_types(component: Component) -> None:
    """Turn the annotations of a config class, which are strings, into types, as reading a manifest needs them."""
    try:
        attrs.resolve_types(component.config)
    except NameError as error:
        raise _UnusableError(
            f"config class {component.config.__name__} of {component.name!r}: {error}; "
            "its annotations must be importable at run time, not under TYPE_CHECKING"
        ) from error


def _offers(
    infos: Iterable[PluginInfo],
) -> tuple[dict[tuple[Kind, str], tuple[str, Component]], tuple[Conflict, ...]]:
    """What each name stands for, leaving out names with several owners, and those."""
    owners: dict[tuple[Kind, str], list[tuple[str, Component]]] = {}
    commands: dict[str, list[str]] = {}
    for info in infos:
        for kind, component in info.components:
            owners.setdefault((kind, component.name), []).append((info.distribution, component))
        for command in info.commands:
            commands.setdefault(command.name, []).append(info.distribution)
    offers = {key: found[0] for key, found in owners.items() if len(found) == 1}
    conflicts = [
        Conflict(kind=kind, name=name, distributions=tuple(distribution for distribution, _ in found))
        for (kind, name), found in owners.items()
        if len(found) > 1
    ]
    conflicts += [
        Conflict(kind="command", name=name, distributions=tuple(found))
        for name, found in commands.items()
        if len(found) > 1
    ]
    return offers, tuple(conflicts)
