"""What a merged folder and its run say of a model, for its card: read from their files alone. Torch-free."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import tomli

from coordcore.errors import InputError
from coordcore.manifest.sections import PACKAGE, is_hub_id
from coordcore_train.checkpoint.folder import CheckpointInfo, read_checkpoint_info, read_json
from coordcore_train.checkpoint.image_size import most_pixels, other_limits
from coordcore_train.hub.paths import name_of, without_paths
from coordcore_train.run.content import BASE
from coordcore_train.run.folder import RunDir

_LICENCE = ("license", "license_name", "license_link")
_SNAPSHOT = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{7,40})/?$")
_OF_A_MACHINE = ("resolved", "output", "launch", "plugins", "manifest_version")
"""Sections of a resolved manifest that say where it ran, or are told elsewhere."""

_NEEDED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "model": {"base": str},
    "train": {
        **dict.fromkeys(("batch_size", "accumulation", "seed", "max_length"), int),
        **dict.fromkeys(("learning_rate", "warmup"), (int, float)),
        "schedule": str,
    },
}
_TABLES = ("data", "tuner", "surgery", "loss", "optimizer", "eval", "resolved")

Table = Mapping[str, Any]


@attrs.frozen(kw_only=True)
class RunFacts:
    """What a run folder says.

    manifest: resolved, without the paths and names of the machine. base: as others may find it, or the name of its
    folder. base_id: on the hub, None where it is not from there. commit: of the base, where it is known. files: of the
    data, by name, with what they hold. examples: how many there were for what, as far as the run wrote them down.
    training, held_out: the last lines of metrics with a loss, empty where there are none. evaluations: by evaluator,
    as its metrics.json.
    """

    manifest: Table
    versions: Mapping[str, str]
    base: str
    base_id: str | None
    commit: str | None
    ranks: int
    files: Mapping[str, str]
    examples: Mapping[str, int]
    training: Mapping[str, float]
    held_out: Mapping[str, float]
    evaluations: Mapping[str, Mapping[str, float]]


@attrs.frozen(kw_only=True)
class Facts:
    """info: `coordcore.json`. trusted: whether Python of the base was run. licence: front matter of the card in the
    folder, which is the base's where the merge copied one. pixels: most of an image; limits: where it has others.
    architecture: the class in transformers. run: None for a folder that lies in no run.
    """

    info: CheckpointInfo | None
    trusted: bool
    licence: Mapping[str, str]
    architecture: str | None
    pixels: int | None
    limits: str | None
    run: RunFacts | None


def read_facts(folder: Path, run: RunDir | None, front_matter: Table) -> Facts:
    """What is known of the merged `folder`. front_matter: of the card in it.

    Raises InputError for files that are damaged.
    """
    info_file = folder / "coordcore.json"
    architectures = read_json(folder / "config.json").get("architectures")
    return Facts(
        info=read_checkpoint_info(folder),
        trusted=bool(info_file.is_file() and read_json(info_file).get("trust_remote_code")),
        licence={key: said for key in _LICENCE if isinstance(said := front_matter.get(key), str) and said},
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else None,
        pixels=most_pixels(folder),
        limits=other_limits(folder),
        run=None if run is None else _read_run(run),
    )


def _read_run(run: RunDir) -> RunFacts:
    manifest = _read_manifest(run.manifest)
    resolved, state = manifest.get("resolved", {}), run.state()
    base, base_id, commit = _base(manifest, state)
    lines = _read_metrics(run.metrics)
    ranks, files, examples = _of_state(state, run.path)
    shown = {key: value for key, value in manifest.items() if key not in _OF_A_MACHINE}
    shown |= {"name": str(manifest.get("name", run.path.name))}
    shown["model"] = {**manifest["model"], "base": base}
    return RunFacts(
        manifest=without_paths(shown),
        versions={"coordcore": str(resolved.get("coordcore", "")), **resolved.get("plugins", {})},
        base=base,
        base_id=base_id,
        commit=commit,
        ranks=ranks,
        files=files,
        examples=examples,
        training=next((line for line in reversed(lines) if "loss" in line), {}),
        held_out=next((line for line in reversed(lines) if "eval_loss" in line), {}),
        evaluations={
            file.parent.name: _numbers(read_json(file)) for file in sorted(run.path.glob("eval/*/metrics.json"))
        },
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = tomli.loads(path.read_text(encoding="utf-8"))
    except (tomli.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not readable as TOML: {error}; the run wrote it otherwise") from error
    for section, keys in _NEEDED.items():
        for key, kind in keys.items():
            if key not in _table(manifest.get(section)):
                raise InputError(f"{path}: has no {section}.{key}; the run wrote it otherwise")
            if not isinstance(found := manifest[section][key], kind):
                raise InputError(f"{path}: {section}.{key} is {found!r}; the run wrote it otherwise")
    for section in _TABLES:
        if not isinstance(found := manifest.get(section, {}), Mapping):
            raise InputError(f"{path}: {section} is {found!r}, no table; the run wrote it otherwise")
    return manifest


def _of_state(state: Mapping[str, object], run: Path) -> tuple[int, dict[str, str], dict[str, int]]:
    """The ranks, the files of the data with what they hold, and the numbers of examples."""
    layout, content, examples = (_table(state.get(key)) for key in ("layout", "content", "examples"))
    try:
        files = {
            name_of(str(file["file"])): f"{file['bytes']:,d} bytes, SHA-256 {str(file['sha256'])[:16]}"
            for key, file in content.items()
            if key != BASE  # which is told by its name
        }
        return int(layout.get("ranks", 1)), files, {name: operator.index(count) for name, count in examples.items()}
    except (LookupError, TypeError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{run / 'state.json'}: says layout, content or examples otherwise than a run ({why})"
        ) from error


def _base(manifest: Table, state: Mapping[str, object]) -> tuple[str, str | None, str | None]:
    """How others find the base, its id on the hub, and the commit it was at."""
    said = str(manifest["model"]["base"])
    snapshot = _SNAPSHOT.search(said) or _SNAPSHOT.search(str(state.get("base", "")))
    commit = snapshot["commit"] if snapshot else None
    if snapshot and not said.startswith(PACKAGE) and not is_hub_id(said):
        said = f"{snapshot['owner']}/{snapshot['name']}"
    if said.startswith(PACKAGE):
        return said, None, None
    return (said, said, commit) if is_hub_id(said) else (name_of(said), None, None)


def _read_metrics(path: Path) -> list[dict[str, float]]:
    lines = []
    content = path.read_bytes() if path.is_file() else b""
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            lines.append(_numbers(json.loads(line)))
        except (ValueError, RecursionError, AttributeError) as error:
            raise InputError(f"{path}:{number}: is no line of metrics; remove it") from error
    return lines


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _numbers(table: Table) -> dict[str, float]:
    return {key: value for key, value in table.items() if type(value) in (int, float)}
