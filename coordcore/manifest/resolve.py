"""Writes a manifest out in full, and names by a hash what determines its result. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

import attrs

from coordcore import __version__
from coordcore.kinds import KINDS, Kind
from coordcore.manifest.sections import Manifest
from coordcore.manifest.types import keys
from coordcore.plugins import CORE, Plugins

Table = dict[str, Any]

WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    "model": ("trust_remote_code",),  # refused without it where there is code, and of no effect where there is none
    "train": (
        *("log_every", "save_every", "eval_every", "evaluate_checkpoints", "eval_batch_size", "keep"),
        *("workers", "threads", "report_to"),
    ),
}
"""Keys that change neither the weights nor their order of updates: a run may be continued with others."""

SECTIONS_WITHOUT_EFFECT = ("name", "requires", "launch", "output", "plugins", "manifest_version")


def sections_without_effect(kinds: Iterable[Kind] = KINDS) -> list[str]:
    """The sections that are no part of the fingerprint, with those of the kinds that change no weight."""
    return [*SECTIONS_WITHOUT_EFFECT, *(kind for kind in kinds if not kind.changes_weights)]


def resolved(manifest: Manifest, plugins: Plugins) -> str:
    """The manifest as TOML with every default filled in and every path absolute.

    Loading it gives an equal `Manifest`. Its `[resolved]` table says what the run was made with (versions of coordcore
    and of the plugins it names, the quantisation spec); nothing reads it back.
    """
    import tomli_w

    from coordcore.quantisation import quantisation

    owners = sorted({selected.distribution for selected in manifest.selected} - {CORE})
    record = {
        "coordcore": __version__,
        "fingerprint": fingerprint(manifest),
        "plugins": {owner: plugins.version(owner) for owner in owners},
        "quantisation": plain(quantisation(manifest.coords.quantisation).as_dict()),
    }
    return tomli_w.dumps({**as_document(manifest), "resolved": record})


YOUNGER: Table = {"format": {"coordjson": {}}}
"""Sections that older manifests do not know -> what says what was done before; it changes no fingerprint."""


def fingerprint(manifest: Manifest) -> str:
    """A hash of what determines the result of a run: 64 hex digits.

    Leaves out where results go, how many processes do the work, and how often something is written.
    """
    import hashlib

    document = determining(manifest)
    # The order of surgeries and losses is the order they act in, so only keys inside a config are sorted.
    parts = [[key, *([list(value.items())] if isinstance(value, dict) else [value])] for key, value in document.items()]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def determining(manifest: Manifest) -> Table:
    """The part of a manifest that determines the result of a run."""
    document = as_document(manifest, added=False)
    for section in sections_without_effect(selected.kind for selected in manifest.selected):
        document.pop(section, None)
    for section, names in WITHOUT_EFFECT.items():
        document[section] = {key: value for key, value in document[section].items() if key not in names}
    return {section: table for section, table in document.items() if table != YOUNGER.get(section)}


def as_document(manifest: Manifest, *, added: bool = True) -> Table:
    """The plain tables of a manifest. A key that is None is left out, as TOML has no null.

    added: False leaves out keys that were added to their section later (`option`) and say what was done before.
    """
    document: Table = plain(manifest, added=added)
    for selected in manifest.selected:
        document.setdefault(str(selected.kind), {})[selected.component.name] = plain(selected.config, added=added)
    return document


def plain(value: Any, *, added: bool = True) -> Any:
    """A structured value as TOML can hold it. added: as for `as_document`."""
    if attrs.has(type(value)):
        held = [(key, field, getattr(value, field.name)) for key, field in keys(type(value)).items()]
        value = {key: item for key, field, item in held if added or item != field.metadata.get("before", attrs.NOTHING)}
    if isinstance(value, dict):
        return {key: plain(item, added=added) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [plain(item, added=added) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value
