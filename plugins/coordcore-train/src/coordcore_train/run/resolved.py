"""The manifest of a run written out in full, and a hash of what determines its result. Torch-free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import attrs
import tomli_w
from packaging.utils import canonicalize_name

from coordcore import __version__
from coordcore.components import Selected
from coordcore.kinds import KINDS, Kind
from coordcore.manifest import Manifest
from coordcore.manifest.types import plain
from coordcore.plugins import CORE, Plugins
from coordcore.quantisation import quantisation

Table = dict[str, Any]

WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    "model": ("trust_remote_code",),  # refused without it where there is code, and of no effect where there is none
    "train": (
        *("log_every", "save_every", "eval_every", "evaluate_checkpoints", "eval_batch_size", "keep"),
        *("workers", "threads", "report_to"),
    ),
}
"""Keys that change neither the weights nor the order of their updates: a run may be continued with others."""

_SECTIONS_WITHOUT_EFFECT = ("name", "requires", "launch", "output", "plugins", "manifest_version")

_YOUNGER: Table = {"format": {"coordjson": {}}}
"""Sections that came later -> the content that means what was done before them: no part of the fingerprint."""


def resolved(manifest: Manifest, plugins: Plugins) -> str:
    """The manifest as TOML with every default filled in and every path absolute.

    Loading it gives an equal `Manifest`: that passes over its `[resolved]` table, which says what the run was made with
    (versions of coordcore, the engine and the plugins it names, the quantisation spec), for who continues or pushes it.
    """
    record = {
        "coordcore": __version__,
        "fingerprint": fingerprint(manifest),
        "plugins": {owner: plugins.version(owner) for owner in _owners(manifest, plugins)},
        "quantisation": plain(quantisation(manifest.coords.quantisation).as_dict()),
    }
    return tomli_w.dumps({**_document(manifest), "resolved": record})


def _owners(manifest: Manifest, plugins: Plugins) -> list[str]:
    """The distributions of all that a run is made with, but for the core."""
    named: set[str] = {canonicalize_name(name) for name in (*manifest.named, *_inside(manifest.selected))}
    named |= {distribution for distribution, _ in plugins.engines()}
    ready = {info.distribution for info in plugins.infos if info.status == "ready"}
    return sorted(ready & named - {CORE})


def _inside(value: Any) -> Iterator[str]:
    """The distributions of components that other components hold in their settings, as a mixture does."""
    if isinstance(value, Selected):
        yield value.distribution
        yield from _inside(value.config)
    elif isinstance(value, dict):
        yield from _inside(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _inside(item)
    elif attrs.has(type(value)):
        yield from _inside([getattr(value, field.name) for field in attrs.fields(type(value))])


def fingerprint(manifest: Manifest) -> str:
    """A hash of what determines the result of a run: 64 hex digits.

    Leaves out `WITHOUT_EFFECT` and `sections_without_effect`: where results go, how many processes do the work, how
    often something is written, and what is asked of the trained model.
    """
    document = determining(manifest)
    # The order of surgeries and losses is the order they act in, so only keys inside a config are sorted.
    parts = [[key, *([list(value.items())] if isinstance(value, dict) else [value])] for key, value in document.items()]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def determining(manifest: Manifest) -> Table:
    """The part of a manifest that determines the result of a run."""
    document = _document(manifest, added=False)
    for section in sections_without_effect(selected.kind for selected in manifest.selected):
        document.pop(section, None)
    for section, names in WITHOUT_EFFECT.items():
        document[section] = {key: value for key, value in document[section].items() if key not in names}
    return {section: table for section, table in document.items() if table != _YOUNGER.get(section)}


def sections_without_effect(kinds: Iterable[Kind] = KINDS) -> list[str]:
    """The sections that are no part of the fingerprint, with those of the kinds that change no weight."""
    return [*_SECTIONS_WITHOUT_EFFECT, *(kind for kind in kinds if not kind.changes_weights)]


def _document(manifest: Manifest, *, added: bool = True) -> Table:
    """The plain tables of a manifest. added: as for `plain`."""
    document: Table = plain(manifest, added=added)
    for selected in manifest.selected:
        document.setdefault(str(selected.kind), {})[selected.component.name] = plain(selected.config, added=added)
    return document
