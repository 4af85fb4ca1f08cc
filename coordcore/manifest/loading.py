"""From a manifest file to a `Manifest`: sections, components, requirements. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement

from coordcore.components import Selected
from coordcore.discovery import discover
from coordcore.errors import ManifestError, Problem, did_you_mean
from coordcore.guard import guarded, told
from coordcore.kinds import KINDS, Kind
from coordcore.lifecycle import Hooks
from coordcore.manifest.read import Document, read
from coordcore.manifest.sections import PACKAGE, Manifest, PluginsSection, is_hub_id
from coordcore.manifest.structure import Structurer
from coordcore.manifest.types import show
from coordcore.plugins import Plugins

_LAUNCH_WORDS = {
    "deepspeed": ("zero0", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload"),
    "fsdp": ("fsdp2",),
}


@attrs.frozen(kw_only=True)
class Loaded:
    """A manifest that is right in itself.

    file: the manifest, absolute. document: its plain tables with the origin of each key.
    missing: files that it names and that are not there; `coordcore.check.check` reports them.
    plugins: what was discovered, less what the manifest blocks.
    """

    manifest: Manifest
    file: Path
    document: Document
    plugins: Plugins
    missing: tuple[Problem, ...] = ()

    @property
    def hooks(self) -> Hooks:
        """The lifecycle hooks of the plugins that the manifest names."""
        return self.plugins.hooks(self.manifest.named)


def load(file: Path | str, overrides: Iterable[str] = (), plugins: Plugins | None = None) -> Loaded:
    """Read a manifest, with `overrides` in the form of `--set`, and structure it.

    plugins: what to look components up in; discovered, less what the manifest blocks, when absent.

    Raises ManifestError with everything that is wrong. Files that the manifest names need not exist: see
    `Loaded.missing`.
    """
    problems: list[Problem] = []
    kinds = KINDS if plugins is None else plugins.kinds
    document = read(Path(file), overrides, problems, kinds)
    if problems:
        raise ManifestError(problems)
    if plugins is None:
        plugins = discover(block=_blocked(document))
    structurer = Structurer(document, plugins)
    sections = {"name": Path(file).stem, "model": {}, **document.data}
    sections.pop("resolved", None)
    own = structurer.values(sections, Manifest, kinds)
    selected = [chosen for kind in plugins.kinds for chosen in _select(kind, structurer, plugins)]
    for index, requirement in enumerate(own.get("requires", ())):
        if fault := _requirement_fault(requirement):
            structurer.report(("requires", index), fault)
    if "coords" in own and (fault := own["coords"].fault()):
        structurer.report(("coords", "quantisation"), fault)
    for section in own:
        structurer.look_for_files((section,), own[section])
    for chosen in selected:
        structurer.look_for_files((chosen.kind, chosen.component.name), chosen.config)
    _make_absolute(own, structurer)
    if structurer.problems:
        raise ManifestError(structurer.problems + structurer.missing)
    return Loaded(
        manifest=Manifest(**own, selected=tuple(selected)),
        file=Path(os.path.abspath(file)),
        document=document,
        plugins=plugins,
        missing=tuple(structurer.missing),
    )


def _blocked(document: Document) -> tuple[str, ...]:
    """`[plugins] block`, needed before anything else; what is wrong with it is reported with everything else."""
    section = document.data.get("plugins", {})
    found = Structurer(document).structure(("plugins",), section, PluginsSection)
    return () if found is attrs.NOTHING else found.block


# --- components -----------------------------------------------------------------------------------------------------


def _select(kind: Kind, structurer: Structurer, plugins: Plugins) -> Iterator[Selected]:
    """The components of one kind that the manifest names, or its default where it names none: those that are right."""
    sections = structurer.document.data.get(kind, {})
    available = plugins.names(kind)
    example = f"[{kind}.{(available or ['name'])[0]}]"
    if not isinstance(sections, dict):
        structurer.report((kind,), f"must be a table for each {kind.noun}, as in {example}; got {show(sections)}")
        return
    if kind.default is not None and not sections:
        sections = {kind.default: {}}
    if kind.required and not sections:
        offers = ", ".join(available) or f"none; {_not_ready(plugins) or 'install a plugin'}"
        structurer.report((kind,), f"the run needs a {kind.noun}: add [{kind}.<name>]; available: {offers}")
    if kind.single and len(sections) > 1:
        last = max(sections, key=lambda name: structurer.document.origin((kind, name)).line or 0)
        message = f"a run has one {kind.noun}, this names {' and '.join(sections)}; keep one"
        structurer.report((kind, last), message)
    for name, section in sections.items():
        if not isinstance(section, dict):
            message = f"must be a table that names a {kind.noun}, as {example} does; got {show(section)}"
            structurer.report((kind, name), message)
        elif name not in available:
            structurer.report((kind, name), unknown(kind, name, plugins))
        else:
            component, distribution = plugins.get(kind, name), plugins.distribution(kind, name)
            with guarded() as watch:  # validators, converters and what the component says are the plugin's own code
                config = structurer.structure((kind, name), section, component.config)
                chosen = None if config is attrs.NOTHING else Selected.asked(kind, component, config, distribution)
            if watch.error is not None:
                fault = f"plugin {distribution} cannot take this section: {told(watch.error)}"
                structurer.report((kind, name), f"{fault}; tell its authors, or leave it out")
            elif chosen is not None:
                yield chosen


def unknown(kind: Kind, name: str, plugins: Plugins) -> str:
    """Why a manifest cannot name this component, for a message."""
    for conflict in plugins.conflicts:
        if (conflict.kind, conflict.name) == (kind, name):
            return conflict.reason
    available = plugins.names(kind)
    hint = did_you_mean(name, available, known=False)
    offers = f"{hint} available: {', '.join(available) or 'none'}".lstrip()
    return "; ".join(filter(None, [f"no plugin offers this {kind.noun}", offers, _not_ready(plugins)]))


def _not_ready(plugins: Plugins) -> str:
    """What is installed but could not be asked, for messages about something that nobody offers."""
    words = {"failed": "failed to load", "incompatible": "was not loaded", "blocked": "is blocked"}
    parts = [
        f"plugin {info.distribution} {words[info.status]}" + (f": {info.reason}" if info.status != "blocked" else "")
        for info in plugins.infos
        if info.status != "ready"
    ]
    return "; ".join([*parts, "see coordcore plugins"]) if parts else ""


# --- what needs more than types -------------------------------------------------------------------------------------


def _requirement_fault(text: str) -> str | None:
    """What is wrong with an entry of `requires`, given what is installed."""
    try:
        wanted = Requirement(text)
    except InvalidRequirement:
        return f'not a requirement like "coordcore-soft-ce-w1>=0.1": {text!r}'
    try:
        if wanted.marker is not None and not wanted.marker.evaluate():
            return None
    except (UndefinedComparison, UndefinedEnvironmentName):
        return f"its condition says nothing here: {wanted.marker}; write another, or none"
    try:
        installed = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is not installed; pip install '{text}'"
    if not wanted.specifier.contains(installed, prereleases=True):
        return f"needs {wanted.name}{wanted.specifier}, installed is {installed}; pip install '{text}'"
    return None


def _make_absolute(own: dict[str, Any], structurer: Structurer) -> None:
    """Make the keys that hold a word or a file absolute where they hold a file, and look whether it is there."""
    if "model" in own:
        base = own["model"].base
        folder = structurer.absolute(("model", "base"), base)
        if folder is not None and not base.startswith(PACKAGE) and (folder.exists() or not is_hub_id(base)):
            own["model"] = attrs.evolve(own["model"], base=str(folder))
    for key, words in _LAUNCH_WORDS.items():
        setting = getattr(own.get("launch"), key, None)
        file = None if setting is None or setting in words else structurer.absolute(("launch", key), setting)
        if file is not None:
            own["launch"] = attrs.evolve(own["launch"], **{key: str(file)})
            if not file.is_file():
                message = f"neither one of {', '.join(words)} nor a file: {file}"
                structurer.missing.append(structurer.document.problem(("launch", key), message))
