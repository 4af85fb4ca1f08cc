"""Finds the installed plugins, checks their versions before importing them, keeps what failed as data. Torch-free."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from inspect import signature
from typing import Any, TypeVar

import attrs
import pluggy
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from coordcore import __version__, builtins, hookspecs
from coordcore.components import Command, Component
from coordcore.errors import did_you_mean
from coordcore.guard import guarded, told
from coordcore.kinds import KINDS, Kind
from coordcore.plugins import CORE, PluginInfo, Plugins

T = TypeVar("T")


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
    by_environment = os.environ.get("COORDCORE_BLOCK", "").split(",")
    blocked: dict[str, str] = {canonicalize_name(name.strip()): "[plugins] block" for name in block}
    blocked |= {canonicalize_name(name.strip()): "COORDCORE_BLOCK" for name in by_environment}
    loader = _Loader(kinds)
    found = _installed() if entry_points is None else entry_points
    infos = (loader.core(), *(loader.plugin(name, entry_point, blocked) for name, entry_point in _ours(found)))
    return Plugins(kinds=kinds, infos=infos)


def _installed() -> list[metadata.EntryPoint]:
    every = metadata.entry_points()  # a mapping in Python 3.11, a sequence later; these two work on both
    return [item for group in every.groups for item in every.select(group=group)]


def _ours(entry_points: Iterable[metadata.EntryPoint]) -> list[tuple[str, metadata.EntryPoint]]:
    """The entry points of any version of the interface, each after its distribution's name, which is asked once: every
    answer reads a file anew. Of a distribution with several versions this version's alone."""
    every = [(_distribution(entry), entry) for entry in entry_points if re.fullmatch(r"coordcore\.v\d+", entry.group)]
    at_home = {name for name, entry in every if entry.group == hookspecs.GROUP}
    every = [(name, entry) for name, entry in every if entry.group == hookspecs.GROUP or name not in at_home]
    return sorted(every, key=lambda item: (item[0], item[1].group, item[1].name))


def _distribution(entry_point: metadata.EntryPoint) -> str:
    name = entry_point.dist.name if entry_point.dist else None  # None, too, where its metadata is damaged
    return canonicalize_name(name) if name else "(no distribution)"


class _Loader:
    """Loads plugins one by one, each into a plugin manager of its own, so that none can touch another."""

    def __init__(self, kinds: tuple[Kind, ...]) -> None:
        self.kinds = kinds
        self.hooks = hookspecs.hooks(kinds)
        self.loaded: list[Any] = []

    def core(self) -> PluginInfo:
        """What coordcore itself offers."""
        info = PluginInfo(distribution=CORE, version=__version__, entry_point="builtins", status="ready")
        return attrs.evolve(info, **self._offered(builtins))

    def plugin(self, distribution: str, entry_point: metadata.EntryPoint, blocked: Mapping[str, str]) -> PluginInfo:
        """What is known of an entry point once it was loaded, or of why it was not. Raises nothing of the plugin's."""
        version = entry_point.dist.version if entry_point.dist else ""
        info = PluginInfo(distribution=distribution, version=version, entry_point=entry_point.name, status="ready")
        if distribution in blocked:
            return attrs.evolve(info, status="blocked", reason=f"named in {blocked[distribution]}")
        if reason := _mismatch(entry_point):
            return attrs.evolve(info, status="incompatible", reason=reason)
        # Whatever a stranger's module does while it is imported or asked, it must not stop a run that does not name it.
        with guarded() as watch:
            info = attrs.evolve(info, **self._offered(entry_point.load()))
        if watch.error is not None:
            text = " ".join(str(watch.error).split()) if isinstance(watch.error, _UnusableError) else told(watch.error)
            info = attrs.evolve(info, status="failed", reason=text)
        return attrs.evolve(info, notes=watch.notes)

    def _offered(self, plugin: Any) -> dict[str, Any]:
        """Check a plugin's hooks and ask for what it offers. Raises _UnusableError, or what a hook raises."""
        if any(loaded is plugin for loaded in self.loaded):
            raise _UnusableError("another entry point names the same object")
        manager = pluggy.PluginManager("coordcore")
        manager.add_hookspecs(self.hooks)  # type: ignore[arg-type]  # the stub wants a module; it only reads attributes
        _check_hooks(plugin, manager, vars(self.hooks))
        try:
            manager.register(plugin)
        except pluggy.PluginValidationError as error:
            raise _UnusableError(str(error)) from error
        components = tuple((kind, component) for kind in self.kinds for component in _components(kind, manager))
        commands = tuple(_returned("coordcore_commands", Command, manager))
        for (kind, name), times in Counter((kind, component.name) for kind, component in components).items():
            if times > 1:
                raise _UnusableError(f"offers {kind}.{name} twice")
        for name in (command.name for command in commands if command.name in builtins.COMMANDS):
            raise _UnusableError(f"offers a command {name!r}, which is coordcore's own; give it another name")
        engine = next((engine for engine in manager.hook.coordcore_engine() if engine is not None), None)
        missing = [name for name in ("check", "notes") if engine is not None and not hasattr(engine, name)]
        if missing:
            raise _UnusableError(f"coordcore_engine returned {engine!r}, which has no {' and no '.join(missing)}()")
        self.loaded.append(plugin)
        return {"components": components, "commands": commands, "engine": engine, "relay": manager.hook}


def _mismatch(entry_point: metadata.EntryPoint) -> str:
    """Why a distribution, by its own metadata, does not work with this coordcore; empty where it does."""
    if entry_point.group != hookspecs.GROUP:
        return f"needs another interface, {entry_point.group}; coordcore {__version__} offers {hookspecs.GROUP}"
    mismatch = 'does not say which coordcore it needs; its dependencies must name it: "coordcore>=0.1,<0.2"'
    for text in (entry_point.dist and entry_point.dist.requires) or ():
        try:
            needed = Requirement(text)
        except InvalidRequirement:
            return f"its metadata holds an invalid requirement: {text!r}"
        if canonicalize_name(needed.name) == CORE and (needed.marker is None or needed.marker.evaluate({"extra": ""})):
            mismatch = ""
            if not needed.specifier.contains(__version__, prereleases=True):
                return f"needs coordcore{needed.specifier}, this is {__version__}"
    return mismatch


def _check_hooks(plugin: Any, manager: pluggy.PluginManager, hooks: Mapping[str, Any]) -> None:
    """Say in our words what pluggy says in its own, or passes over: unknown names and missing markers."""
    marked = {name: options for name in dir(plugin) if (options := manager.parse_hookimpl_opts(plugin, name))}
    for name, options in marked.items():
        hook = options["specname"] or name
        if hook not in hooks:
            raise _UnusableError(f"unknown hook {hook!r}; {did_you_mean(hook, hooks)}")
        given = signature(hooks[hook]).parameters
        for taken in signature(getattr(plugin, name)).parameters.keys() - given.keys():
            known = f"it gives {', '.join(given) or 'no arguments'}"
            raise _UnusableError(f"{name} takes {taken!r}, which the hook {hook} does not give; {known}")
    for name in sorted(hooks.keys() & set(dir(plugin)) - marked.keys()):
        raise _UnusableError(f"{name} is not marked with @coordcore.hookimpl")
    if not marked:
        raise _UnusableError("it holds no function marked with @coordcore.hookimpl")


def _components(kind: Kind, manager: pluggy.PluginManager) -> Iterator[Component]:
    """The components of one kind, the annotations of their config classes turned from strings into types."""
    for component in _returned(kind.hook, Component, manager):
        try:
            attrs.resolve_types(component.config)
        except NameError as error:
            what = f"config class {component.config.__name__} of {component.name!r}: {error}"
            cure = "its annotations must be importable at run time, not under TYPE_CHECKING"
            raise _UnusableError(f"{what}; {cure}") from error
        yield component


def _returned(hook: str, wanted: type[T], manager: pluggy.PluginManager) -> Iterator[T]:
    """What a plugin's `hook` returns, when every item is a `wanted`."""
    for offered in getattr(manager.hook, hook)():
        if not isinstance(offered, Iterable):
            raise _UnusableError(f"{hook} returned {offered!r}; it must return an iterable of {wanted.__name__}")
        for item in offered:
            if not isinstance(item, wanted):
                must = f"it must hold {wanted.__name__} objects"
                raise _UnusableError(f"{hook} returned {item!r} in its iterable; {must}")
            yield item
