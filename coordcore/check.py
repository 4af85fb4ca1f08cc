"""What can be known of a run without GPU or model weights: rules across sections, files, arguments. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from coordcore import swift_arguments
from coordcore.base import resolve_base
from coordcore.components import COORD_SUPERVISION, COORD_TOKENS, CheckedRun, Component, Kind, Problem
from coordcore.manifest import Loaded, Manifest
from coordcore.manifest.describe import show
from coordcore.plugins import Plugins
from coordcore.problems import in_order
from coordcore.quantisation import quantisation
from coordcore.records import InputError

__all__ = ["check", "notes", "resolve_base"]

MODEL_TYPE = "qwen3_vl"
"""The `model_type` in the `config.json` of the checkpoints that the engine can train."""

_WHY = {COORD_SUPERVISION: "coord tokens need a loss that supervises them"}


def check(loaded: Loaded, plugins: Plugins) -> list[Problem]:
    """Everything wrong with a loaded manifest that its single sections do not show, in the order of the file."""
    manifest = loaded.manifest
    run = CheckedRun(manifest=manifest, selected=manifest.selected)
    problems = [
        *loaded.missing,
        *_capabilities(run, plugins),
        *_claims(run),
        *_base(manifest, loaded.file.parent, needs_vocab=COORD_TOKENS in run.capabilities()),
        *_swift(manifest),
        *_precision(manifest),
        *_evaluation(manifest),
        *plugins.hook.check(run),
    ]
    return in_order(loaded.document.placed(problem) for problem in problems)


def notes(loaded: Loaded) -> list[str]:
    """What `check` could not look into on this machine, for the user to know."""
    manifest = loaded.manifest
    found = []
    try:
        if resolve_base(manifest.model.base, loaded.file.parent) is None:
            found.append(f"model.base: {manifest.model.base} is not in the local hub cache; a run downloads it")
    except InputError:
        pass  # `check` reports it
    known = {info.distribution for info in loaded.plugins.infos}
    for name in manifest.plugins.block:
        if canonicalize_name(name) not in known:
            found.append(f"plugins.block: no installed plugin's distribution is called {name!r}; blocks nothing")
    if manifest.train.swift and swift_arguments.installed_version() is None:
        found.append("train.swift: ms-swift is not installed here, so its arguments were not checked")
    return found


def _precision(manifest: Manifest) -> Iterator[Problem]:
    if manifest.tuner.type == "full" and manifest.model.dtype == "float16":
        yield Problem(
            path="model.dtype",
            message="the full tuner cannot train float16 weights, whose gradients would have to be scaled; "
            'set "bfloat16" or "float32"',
        )


def _evaluation(manifest: Manifest) -> Iterator[Problem]:
    for one in manifest.of(Kind.EVAL):
        if not manifest.output.merge:
            message = "evaluates the merged checkpoint, and output.merge is false; leave one of them out"
            yield Problem(path=one.path, message=message)
    if manifest.train.evaluate_checkpoints:
        path = "train.evaluate_checkpoints"
        if not manifest.of(Kind.EVAL):
            yield Problem(path=path, message="there is no [eval] section to call; add one, or leave this out")
        if manifest.train.save_every is None:
            yield Problem(
                path=path, message="only the last checkpoint is saved, which is evaluated anyway; set train.save_every"
            )


# --- components -----------------------------------------------------------------------------------------------------


def _capabilities(run: CheckedRun, plugins: Plugins) -> Iterator[Problem]:
    provided = run.capabilities()
    for one in run.selected:
        for capability in one.component.requires(one.config):
            if capability not in provided:
                why = _WHY.get(capability, f"it needs {capability!r}")
                providers = ", ".join(f"[{path}]" for path in _providers(capability, plugins))
                cure = f"add {providers}" if providers else "install a plugin that does"
                message = f"{why}, and no component of this run provides {capability!r}; {cure}"
                yield Problem(path=one.path, message=message)


def _providers(capability: str, plugins: Plugins) -> Iterator[str]:
    """The components that provide a capability as they come, without settings."""
    for kind in Kind:
        for name in plugins.names(kind):
            if capability in _provided_by_default(plugins.get(kind, name)):
                yield f"{kind}.{name}"


def _provided_by_default(component: Component) -> Iterable[str]:
    try:
        config = component.config()
    except (TypeError, ValueError):  # it has required keys: nothing can be said of it without them
        return ()
    return component.provides(config)


def _claims(run: CheckedRun) -> Iterator[Problem]:
    claims = [(one, module) for one in run.of(Kind.SURGERY) for module in one.component.claims(one.config)]
    for (first, claimed), (second, module) in combinations(claims, 2):
        names_agree = f".{claimed}".endswith(f".{module}") or f".{module}".endswith(f".{claimed}")
        if first is not second and names_agree:
            yield Problem(path=second.path, message=f"changes {module}, which {first.path} changes too; keep one")


# --- the base checkpoint --------------------------------------------------------------------------------------------


def _base(manifest: Manifest, folder: Path, *, needs_vocab: bool) -> Iterator[Problem]:
    from coordcore.checkpoint import read_checkpoint_info, read_json

    path = "model.base"
    try:
        base = resolve_base(manifest.model.base, folder)
        if base is None:
            return
        model_type = read_json(base / "config.json").get("model_type")
        if model_type != MODEL_TYPE:
            yield Problem(path=path, message=f"{base} is a {model_type!r} model; this coordcore trains {MODEL_TYPE!r}")
            return
        yield from (Problem(path=path, message=message) for message in _weights(base))
        if needs_vocab:
            yield from _vocab(manifest, base)
        info = read_checkpoint_info(base)
    except InputError as error:
        yield Problem(path=path, message=str(error))
        return
    wanted = quantisation(manifest.coords.quantisation)
    if info is not None and info.quantisation != wanted:
        message = f"{base} was made with {info.quantisation}, this run says {wanted}; use one convention throughout"
        yield Problem(path="coords.quantisation", message=message)


def _weights(base: Path) -> Iterator[str]:
    from coordcore.weights import INDEX_FILE, SINGLE_FILE, weight_files, weights_entry

    try:
        entry = weights_entry(base)
        if entry is None:
            yield f"{base} holds no {SINGLE_FILE} and no {INDEX_FILE}; save the model with safe serialization"
        elif entry.name == INDEX_FILE:
            weight_files(base)
    except InputError as error:
        yield str(error)


def _vocab(manifest: Manifest, base: Path) -> Iterator[Problem]:
    from coordcore.coords import CoordVocab, MissingCoordTokensError

    try:
        CoordVocab.from_tokenizer_json(base)
    except MissingCoordTokensError:
        if manifest.vocab is None:
            message = f"{base} has no coord tokens; add a [vocab] section, or expand it with coordcore expand"
            yield Problem(path="model.base", message=message)


# --- ms-swift's arguments -------------------------------------------------------------------------------------------


def _swift(manifest: Manifest) -> Iterator[Problem]:
    names = manifest.train.swift
    refused = {
        name: swift_arguments.refusal(name, value, attention=manifest.model.attention) for name, value in names.items()
    }
    rest: dict[str, Any] = {}
    for name, reason in refused.items():
        if reason is None:
            rest[name] = names[name]
        else:
            yield Problem(path=f"train.swift.{name}", message=reason)
    version = swift_arguments.installed_version()
    if not rest or version is None:
        return
    try:
        known = swift_arguments.known_arguments(version)
    except InputError as error:
        yield Problem(path="train.swift", message=str(error))
        return
    for name, value in rest.items():
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            message = f"ms-swift {version} has no such argument{hint}"
        elif expected := swift_arguments.type_problem(known[name], value):
            message = f"must be {expected}, got {show(value)}"
        else:
            continue
        yield Problem(path=f"train.swift.{name}", message=message)
