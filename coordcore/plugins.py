"""Finds the installed plugins, checks their versions before importing them, keeps what failed as data. Torch-free."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import metadata
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypeVar

import attrs
import pluggy
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from coordcore import __version__, builtins, hookspecs
from coordcore.components import CheckedRun, Command, Component, Kind, Problem

Status = Literal["ready", "blocked", "incompatible", "failed"]
Offered = tuple[tuple[Kind, Component], ...]
Commands = tuple[Command, ...]
T = TypeVar("T")

CORE = "coordcore"
"""The distribution that offers the built-in components."""

OWN_COMMANDS = ("run", "check", "plugins", "schema", "expand", "merge")
"""coordcore's own commands, whose names no plugin may take."""

HOOKS: Mapping[Kind, str] = {
    Kind.DATA: "coordcore_data_builders",
    Kind.TEMPLATE: "coordcore_template_adapters",
    Kind.SURGERY: "coordcore_surgeries",
    Kind.LOSS: "coordcore_losses",
    Kind.OPTIMIZER: "coordcore_optimizers",
    Kind.EVAL: "coordcore_evaluators",
}
"""Kind -> the hook that offers components of this kind."""

_NAMES = frozenset(name for name in vars(hookspecs) if name.startswith("coordcore_"))


@attrs.frozen(kw_only=True)
class PluginInfo:
    """What is known about one entry point. `reason` says why it is not ready; `components` is empty then."""

    distribution: str
    version: str
    entry_point: str
    status: Status
    reason: str = ""
    components: tuple[tuple[Kind, Component], ...] = ()
    commands: tuple[Command, ...] = ()


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


class Hooks:
    """The lifecycle hooks of all ready plugins, typed. Called in the order in which the plugins are listed."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._hook = manager.hook

    def check(self, run: CheckedRun) -> list[Problem]:
        """What the plugins' `coordcore_check` report about `run`."""
        return [problem for found in reversed(self._hook.coordcore_check(run=run)) for problem in found]

    def step_ended(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell the plugins that a step was logged."""
        self._hook.coordcore_step_ended(step=step, metrics=metrics)

    def run_ended(self, run_dir: Path, error: BaseException | None) -> None:
        """Tell the plugins that the run is over."""
        self._hook.coordcore_run_ended(run_dir=run_dir, error=error)


@attrs.frozen(kw_only=True)
class Plugins:
    """Everything installed: `infos` for every entry point, and the components of those that are ready."""

    infos: tuple[PluginInfo, ...]
    conflicts: tuple[Conflict, ...]
    hook: Hooks
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


class _UnusableError(Exception):
    """Why a plugin cannot be used."""


def discover(*, block: Iterable[str] = (), entry_points: Iterable[metadata.EntryPoint] | None = None) -> Plugins:
    """Find, check and load the plugins of all installed distributions.

    block: distribution names that are not imported, besides those in the environment variable COORDCORE_BLOCK
        (comma-separated).
    entry_points: instead of those of the installed distributions, for tests.

    Never raises for a plugin's fault: see `Plugins.infos`.
    """
    blocked: dict[str, str] = {canonicalize_name(name.strip()): "[plugins] block" for name in block}
    blocked |= {
        canonicalize_name(name.strip()): "COORDCORE_BLOCK" for name in os.environ.get("COORDCORE_BLOCK", "").split(",")
    }
    manager = pluggy.PluginManager("coordcore")
    manager.add_hookspecs(hookspecs)
    core = PluginInfo(
        distribution=CORE,
        version=__version__,
        entry_point="builtins",
        status="ready",
        components=_register(builtins, "builtins", manager)[0],
    )
    found = _installed() if entry_points is None else entry_points
    infos = (core, *(_load(one, blocked, manager) for one in _ours(found)))
    offers, conflicts = _offers(infos)
    return Plugins(infos=infos, conflicts=conflicts, hook=Hooks(manager), offers=offers)


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


def _load(entry_point: metadata.EntryPoint, blocked: Mapping[str, str], manager: pluggy.PluginManager) -> PluginInfo:
    distribution = _distribution(entry_point)

    def info(status: Status, reason: str = "", components: Offered = (), commands: Commands = ()) -> PluginInfo:
        return PluginInfo(
            distribution=distribution,
            version=entry_point.dist.version if entry_point.dist else "",
            entry_point=entry_point.name,
            status=status,
            reason=reason,
            components=components,
            commands=commands,
        )

    if distribution in blocked:
        return info("blocked", f"named in {blocked[distribution]}")
    try:
        _require_this_interface(entry_point)
    except _UnusableError as error:
        return info("incompatible", str(error))
    try:
        plugin = entry_point.load()
        components, commands = _register(plugin, f"{distribution}:{entry_point.name}", manager)
    except _UnusableError as error:
        return info("failed", str(error))
    except (Exception, SystemExit) as error:
        # Whatever a stranger's module does while it is imported or asked, it must not stop a run that does not name it.
        return info("failed", " ".join(f"{type(error).__name__}: {error}".split()))
    return info("ready", components=components, commands=commands)


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


def _register(plugin: Any, name: str, manager: pluggy.PluginManager) -> tuple[Offered, Commands]:
    """Check a plugin's hooks, ask for what it offers, register it. Raises _UnusableError, or what a hook raises."""
    alone = pluggy.PluginManager("coordcore")
    alone.add_hookspecs(hookspecs)
    _check_hooks(plugin, alone)
    try:
        # First by itself: pluggy keeps half of a plugin that it refuses.
        alone.register(plugin, name)
    except pluggy.PluginValidationError as error:
        raise _UnusableError(" ".join(str(error).split())) from error
    components = tuple((kind, one) for kind in Kind for one in _components(kind, alone))
    names = [(kind, one.name) for kind, one in components]
    for kind, component_name in names:
        if names.count((kind, component_name)) > 1:
            raise _UnusableError(f"offers {kind}.{component_name} twice")
    commands = tuple(_offered("coordcore_commands", Command, alone))
    for command in commands:
        if command.name in OWN_COMMANDS:
            raise _UnusableError(f"offers a command {command.name!r}, which is coordcore's own; give it another name")
    try:
        manager.register(plugin, name)
    except ValueError as error:
        raise _UnusableError("another entry point names the same object") from error
    return components, commands


def _check_hooks(plugin: Any, manager: pluggy.PluginManager) -> None:
    """Say in our words what pluggy says in its own, or passes over: unknown names and missing markers."""
    marked = {name: options for name in dir(plugin) if (options := manager.parse_hookimpl_opts(plugin, name))}
    for name, options in marked.items():
        hook = options["specname"] or name
        if hook not in _NAMES:
            close = get_close_matches(hook, _NAMES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(_NAMES))}"
            raise _UnusableError(f"unknown hook {hook!r}; {hint}")
        given = signature(getattr(hookspecs, hook)).parameters
        for taken in signature(getattr(plugin, name)).parameters:
            if taken not in given:
                known = f"it gives {', '.join(given)}" if given else "it gives no arguments"
                raise _UnusableError(f"{name} takes {taken!r}, which the hook {hook} does not give; {known}")
    unmarked = sorted(_NAMES.intersection(dir(plugin)).difference(marked))
    if unmarked:
        raise _UnusableError(f"{unmarked[0]} is not marked with @coordcore.hookimpl")
    if not marked:
        raise _UnusableError("it holds no function marked with @coordcore.hookimpl")


def _components(kind: Kind, alone: pluggy.PluginManager) -> list[Component]:
    components = _offered(HOOKS[kind], Component, alone)
    for component in components:
        _resolve_types(component)
    return components


def _offered(hook: str, wanted: type[T], alone: pluggy.PluginManager) -> list[T]:
    """What a plugin's `hook` returns, when every item is a `wanted`."""
    found: list[T] = []
    for offered in getattr(alone.hook, hook)():
        if not isinstance(offered, Iterable):
            raise _UnusableError(f"{hook} returned {offered!r}; it must return an iterable of {wanted.__name__}")
        for one in offered:
            if not isinstance(one, wanted):
                raise _UnusableError(f"{hook} returned {one!r} in its iterable; it must hold {wanted.__name__} objects")
            found.append(one)
    return found


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
