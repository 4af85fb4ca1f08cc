"""What is wrong with `[train.swift]`: what ms-swift does not have, does not take, or must not get. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from coordcore.errors import InputError, Problem
from coordcore.manifest import Manifest
from coordcore.manifest.types import show
from coordcore_train.swift import known, trial


def problems(manifest: Manifest, base: Path | None) -> Iterator[Problem]:
    """base: a checkpoint to try the values with; None where there is none, and only names and types are looked at."""
    given: dict[str, Any] = {}
    for name, value in manifest.train.swift.items():
        reason = known.refusal(name, value, attention=manifest.model.attention)
        if reason is None:
            given[name] = value
        else:
            yield Problem(path=f"train.swift.{name}", message=reason)
    version = known.installed_version()
    if not given or version is None:
        return
    try:
        wrong = dict(_wrong(given, known.known_arguments(version), version))
        right = given.keys() - wrong.keys()
        refused = trial.refused(manifest, base, right) if right and base is not None else {}
        wrong |= {name: f"ms-swift {version} refuses this: {reason}" for name, reason in refused.items()}
    except InputError as error:
        yield Problem(path="train.swift", message=str(error))
        return
    for name, message in wrong.items():
        yield Problem(path=f"train.swift.{name}" if name else "train.swift", message=message)


def _wrong(values: Mapping[str, Any], arguments: Mapping[str, list[Any]], version: str) -> Iterator[tuple[str, str]]:
    """Arguments that ms-swift does not have, or not with values of this type."""
    for name, value in values.items():
        if name not in arguments:
            close = get_close_matches(name, arguments, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            yield name, f"ms-swift {version} has no such argument{hint}"
        elif expected := known.type_problem(arguments[name], value):
            yield name, f"must be {expected}, got {show(value)}"
