"""From a manifest file to a `Manifest`: sections, components, requirements. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
from packaging.requirements import InvalidRequirement, Requirement

from coordcore.components import Selected
from coordcore.discovery import discover
from coordcore.errors import ManifestError, Problem
from coordcore.kinds import KINDS, Kind
from coordcore.lifecycle import Hooks
from coordcore.manifest.lines import KeyPath
from coordcore.manifest.read import Document, read
from coordcore.manifest.sections import PACKAGE, Coords, Manifest, is_hub_id
from coordcore.manifest.sections import Plugins as PluginsSection
from coordcore.manifest.structure import Structurer, did_you_mean
from coordcore.manifest.types import keys, show
from coordcore.plugins import Plugins
from coordcore.quantisation import QUANTISATIONS

_LAUNCH_WORDS = {
    "deepspeed": {"zero0", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload"},
    "fsdp": {"fsdp2"},
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
    structurer = Structurer(document)
    if plugins is None:
        plugins = discover(block=_blocked(document))
    own = _own_sections(document, structurer, Path(file), kinds)
    selected = _select(document, structurer, plugins)
    problems = structurer.problems
    problems += _requirements(document, own.get("requires"))
    problems += _quantisation(document, own.get("coords"))
    for path, config in _configs(own, selected):
        structurer.look_for_files(path, config)
    missing = structurer.missing + _anchor(document, own)
    if problems:
        raise ManifestError(problems + missing)
    return Loaded(
        manifest=Manifest(**own, selected=tuple(selected)),
        file=Path(os.path.abspath(file)),
        document=document,
        plugins=plugins,
        missing=tuple(missing),
    )


def _blocked(document: Document) -> tuple[str, ...]:
    """`[plugins] block`, needed before anything else; what is wrong with it is reported with everything else."""
    section = document.data.get("plugins", {})
    found = Structurer(document).structure(("plugins",), section, PluginsSection)
    return () if found is attrs.NOTHING else found.block


def _own_sections(document: Document, structurer: Structurer, file: Path, kinds: Iterable[Kind]) -> dict[str, Any]:
    """The keys and sections that are the core's own, those that are right."""
    fields = keys(Manifest)
    del fields["selected"]
    data = {"name": file.stem, "model": {}, **document.data}
    for key in data.keys() - fields.keys() - set(kinds) - {"resolved"}:
        what = "section" if isinstance(data[key], dict) else "key"
        known = [*fields, *kinds]
        structurer.problems.append(document.problem((key,), f"unknown {what}; {did_you_mean(key, known)}"))
    found = {key: structurer.structure((key,), data[key], field.type) for key, field in fields.items() if key in data}
    structurer.validate(Manifest, fields, found)
    return {key: value for key, value in found.items() if value is not attrs.NOTHING}


# --- components -----------------------------------------------------------------------------------------------------


def _select(document: Document, structurer: Structurer, plugins: Plugins) -> list[Selected]:
    selected = []
    for kind in plugins.kinds:
        sections = document.data.get(kind, {})
        if not isinstance(sections, dict):
            message = f"must be a table for each {kind.noun}, as in [{kind}.{_example(kind, plugins)}]; got "
            structurer.problems.append(document.problem((kind,), message + show(sections)))
            continue
        if kind.default is not None and not sections:
            sections = {kind.default: {}}
        structurer.problems += _count_problems(document, kind, list(sections), plugins)
        for name, section in sections.items():
            one = _selected(document, structurer, plugins, kind, name, section)
            if one is not None:
                selected.append(one)
    return selected


def _example(kind: Kind, plugins: Plugins) -> str:
    return next(iter(plugins.names(kind)), "name")


def _count_problems(document: Document, kind: Kind, names: list[str], plugins: Plugins) -> list[Problem]:
    noun = kind.noun
    if not names and kind.required:
        available = ", ".join(plugins.names(kind)) or f"none; {_not_ready(plugins) or 'install a plugin'}"
        return [document.problem((kind,), f"the run needs a {noun}: add [{kind}.<name>]; available: {available}")]
    if len(names) > 1 and kind.single:
        path = max(((kind, name) for name in names), key=lambda one: document.origin(one).line or 0)
        return [document.problem(path, f"a run has one {noun}, this names {' and '.join(names)}; keep one")]
    return []


def _selected(
    document: Document, structurer: Structurer, plugins: Plugins, kind: Kind, name: str, section: Any
) -> Selected | None:
    path: KeyPath = (kind, name)
    if not isinstance(section, dict):
        example = f"[{kind}.{_example(kind, plugins)}]"
        message = f"must be a table that names a {kind.noun}, as {example} does; got {show(section)}"
        structurer.problems.append(document.problem(path, message))
        return None
    for conflict in plugins.conflicts:
        if (conflict.kind, conflict.name) == (kind, name):
            structurer.problems.append(document.problem(path, conflict.reason))
            return None
    if name not in plugins.names(kind):
        structurer.problems.append(document.problem(path, _unknown(kind, name, plugins)))
        return None
    component = plugins.get(kind, name)
    config = structurer.structure(path, section, component.config)
    if config is attrs.NOTHING:
        return None
    return Selected(kind=kind, component=component, config=config, distribution=plugins.distribution(kind, name))


def _unknown(kind: Kind, name: str, plugins: Plugins) -> str:
    available = plugins.names(kind)
    message = f"no plugin offers this {kind.noun}"
    hint = did_you_mean(name, available, known=False)
    parts = [message, f"{hint} available: {', '.join(available) or 'none'}".lstrip(), _not_ready(plugins)]
    return "; ".join(part for part in parts if part)


def _not_ready(plugins: Plugins) -> str:
    """What is installed but could not be asked, for messages about something that nobody offers."""
    parts = []
    for info in plugins.infos:
        if info.status == "blocked":
            parts.append(f"plugin {info.distribution} is blocked")
        elif info.status != "ready":
            failed = "failed to load" if info.status == "failed" else "was not loaded"
            parts.append(f"plugin {info.distribution} {failed}: {info.reason}")
    return "; ".join([*parts, "see coordcore plugins"]) if parts else ""


# --- what needs more than types -------------------------------------------------------------------------------------


def _requirements(document: Document, requires: tuple[str, ...] | None) -> list[Problem]:
    """`requires` against what is installed."""
    problems = []
    for index, text in enumerate(requires or ()):
        message = _requirement_problem(text)
        if message:
            problems.append(document.problem(("requires", index), message))
    return problems


def _requirement_problem(text: str) -> str | None:
    try:
        wanted = Requirement(text)
    except InvalidRequirement:
        return f'not a requirement like "coordcore-soft-ce-w1>=0.1": {text!r}'
    if wanted.marker is not None and not wanted.marker.evaluate():
        return None
    try:
        installed = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is not installed; pip install '{text}'"
    if not wanted.specifier.contains(installed, prereleases=True):
        return f"needs {wanted.name}{wanted.specifier}, installed is {installed}; pip install '{text}'"
    return None


def _quantisation(document: Document, coords: Coords | None) -> list[Problem]:
    if coords is None or coords.quantisation in QUANTISATIONS:
        return []
    hint = did_you_mean(coords.quantisation, QUANTISATIONS)
    return [document.problem(("coords", "quantisation"), f"unknown quantisation {coords.quantisation!r}; {hint}")]


def _configs(own: dict[str, Any], selected: list[Selected]) -> list[tuple[KeyPath, Any]]:
    sections: list[tuple[KeyPath, Any]] = [((key,), one) for key, one in own.items() if attrs.has(type(one))]
    return sections + [((one.kind, one.component.name), one.config) for one in selected]


def _anchor(document: Document, own: dict[str, Any]) -> list[Problem]:
    """Make the keys that may be a file or a word absolute where they are a file. Returns the files not there."""
    missing = []
    if "model" in own:
        path: KeyPath = ("model", "base")
        own["model"] = attrs.evolve(own["model"], base=_anchored_base(own["model"].base, document.origin(path).folder))
    for key, words in _LAUNCH_WORDS.items():
        value = getattr(own.get("launch"), key, None)
        if value is not None and value not in words:
            path = ("launch", key)
            file = _absolute(value, document.origin(path).folder)
            own["launch"] = attrs.evolve(own["launch"], **{key: str(file)})
            if not file.is_file():
                message = f"neither one of {', '.join(sorted(words))} nor a file: {file}"
                missing.append(document.problem(path, message))
    return missing


def _anchored_base(base: str, folder: Path) -> str:
    """A base that is, or can only be, a folder as an absolute path; a package's or a hub's as it stands."""
    if base.startswith(PACKAGE):
        return base
    path = _absolute(base, folder)
    return base if is_hub_id(base) and not path.exists() else str(path)


def _absolute(text: str, folder: Path) -> Path:
    return Path(os.path.normpath(folder / Path(text).expanduser()))
