"""What a loss term states and returns, checked: nothing a plugin's term gives is used unseen. Imports torch.

Every message begins with the manifest section, `loss.<component>`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Set
from typing import Any

import attrs
import torch
from torch import Tensor

from coordcore.errors import InputError, RunError
from coordcore.protocols import LossTerm, Need, NotRequestedError, Scope, Targets
from coordcore_train.objective.targets import SCOPES

_NEEDS: Mapping[Scope, frozenset[Need]] = {
    "coord": frozenset({"full_lse", "origin"}),
    "text": frozenset({"logits", "origin"}),
    "token": frozenset({"logits", "origin"}),
    "box": frozenset({"origin"}),
}


def option_of(term: LossTerm, name: str) -> Any:
    """One of the two functions that a term may have, or None."""
    return getattr(term, name, None)


def require_term(owner: str, term: LossTerm, *, has_coord_tokens: bool) -> None:
    """Raise InputError unless scope, weights and needs of a term are what `LossTerm` says."""
    where = f"loss.{owner}"
    missing = [name for name in ("scope", "weights", "needs", "__call__") if not hasattr(term, name)]
    if missing or isinstance(term, type):
        what = f"the class {term.__name__}" if isinstance(term, type) else repr(term)
        lacks = f" (it has no {', no '.join(missing)})" if missing else " (call it)"
        raise InputError(f"{where}: a term must be a LossTerm, got {what}{lacks}")
    if not isinstance(term.scope, str) or term.scope not in SCOPES:
        raise InputError(f"{where}: scope must be one of {', '.join(SCOPES)}, got {term.scope!r}")
    if not isinstance(term.weights, Mapping) or not all(isinstance(name, str) for name in term.weights):
        raise InputError(f"{where}: weights must be a mapping of part to weight, got {term.weights!r}")
    if not term.weights:
        raise InputError(f"{where}: a term must name at least one part in its weights, got none")
    for name, weight in term.weights.items():
        if not _is_weight(weight):
            raise InputError(f"{where}: the weight of part {name!r} must be a finite number >= 0, got {weight!r}")
    if not has_coord_tokens and term.scope in ("coord", "box"):
        raise InputError(
            f"{where}: scope {term.scope!r} needs coord tokens, and the base checkpoint has none; "
            "add a [vocab] section to expand it"
        )
    allowed = ", ".join(sorted(_NEEDS[term.scope]))
    if not isinstance(term.needs, Set | list | tuple):
        raise InputError(f"{where}: needs must be a set of names ({allowed}), got {term.needs!r}")
    unknown = [need for need in term.needs if not isinstance(need, str) or need not in _NEEDS[term.scope]]
    if unknown:
        got = ", ".join(sorted(map(repr, unknown)))
        raise InputError(f"{where}: a term of scope {term.scope!r} may need {allowed}, got {got}")
    for name in ("position_weights", "weights_at"):
        if option_of(term, name) is not None and not callable(option_of(term, name)):
            raise InputError(f"{where}: {name} must be a function or None, got {option_of(term, name)!r}")


def position_weights(owner: str, term: LossTerm, seen: Targets) -> dict[str, Tensor]:
    """The weights of all positions for every part, [n] float32 each; empty where the term weighs none.

    Raises RunError for weights that are not one finite number >= 0 per position. Reads values: on the CPU.
    """
    weigh = option_of(term, "position_weights")
    if weigh is None:
        return {}
    versions = {name: tensor._version for name, tensor in tensors(seen)}
    given = weigh(seen)
    _require_unchanged(owner, "position_weights", "targets", versions, seen)
    if not isinstance(given, Mapping):
        raise RunError(f"loss.{owner}: position_weights must return a mapping of part to [n] weights, got {given!r}")
    count = len(seen.bins)
    for name, weights in given.items():
        _require_weights(owner, term, name, weights, count)
    return {
        name: weights.float() for name, weights in {**dict.fromkeys(term.weights, torch.ones(count)), **given}.items()
    }


def _require_weights(owner: str, term: LossTerm, name: Any, weights: Any, count: int) -> None:
    """Raise RunError unless `weights` are the position weights of a part of `term`."""
    if name not in term.weights:
        raise RunError(
            f"loss.{owner}: position_weights names a part {name!r}; the term's parts are {', '.join(term.weights)}"
        )
    must = (
        f"loss.{owner}: position_weights must give part {name!r} one finite number >= 0 per position, shape ({count},)"
    )
    if not isinstance(weights, Tensor) or weights.is_complex():
        raise RunError(f"{must}, as a tensor; got {weights!r}")
    if weights.shape != (count,) or not bool(weights.isfinite().all()) or bool((weights < 0).any()):
        raise RunError(
            f"{must}, got shape {tuple(weights.shape)}, values {weights.flatten()[:8].tolist()}; sizes that are "
            "unknown are NaN: say with torch.where what such a position weighs"
        )


def weights_at(owner: str, term: LossTerm, step: int, total_steps: int) -> list[float]:
    """The weight of each part, in the order of `term.weights`, when `step` of `total_steps` steps are done.

    Raises RunError for a schedule that does not give one finite number >= 0 for each of its parts.
    """
    schedule = option_of(term, "weights_at")
    now: Any = term.weights if schedule is None else schedule(step, total_steps)
    if not isinstance(now, Mapping) or set(now) != set(term.weights) or not all(map(_is_weight, now.values())):
        raise RunError(
            f"loss.{owner}: weights_at({step}, {total_steps}) must give a finite weight >= 0 for each of "
            f"{', '.join(term.weights)}, got {dict(now) if isinstance(now, Mapping) else now!r}"
        )
    return [float(now[name]) for name in term.weights]


def _is_weight(weight: Any) -> bool:
    try:
        return bool(0 <= float(weight) < math.inf)
    except (TypeError, ValueError):
        return False


def losses_of(owner: str, term: LossTerm, seen: Any) -> Mapping[str, Tensor]:
    """The parts of a term. Raises RunError for other parts than it named, and when it changed what others read too."""
    versions = {name: tensor._version for name, tensor in tensors(seen)}
    try:
        losses = term(seen)
    except NotRequestedError as error:
        raise RunError(f"loss.{owner}: {error}") from error
    _require_unchanged(owner, "the term", "positions", versions, seen)
    if not isinstance(losses, Mapping):
        got = type(losses).__name__
        raise RunError(f"loss.{owner}: the term must return a mapping of part to [n] losses, got {got}")
    if set(losses) != set(term.weights):
        raise RunError(
            f"loss.{owner}: the term's weights name the parts {sorted(term.weights)}, "
            f"but it returned {sorted(map(str, losses))}; make them the same"
        )
    return losses


def _require_unchanged(owner: str, who: str, what: str, versions: Mapping[str, int], seen: Any) -> None:
    for name, tensor in tensors(seen):
        if tensor._version != versions.get(name, tensor._version):
            raise changed_in_place(owner, who, f"{what}.{name}")


def changed_in_place(owner: str, who: str, what: str) -> RunError:
    """For a term that wrote into a tensor that it was given."""
    return RunError(f"loss.{owner}: {who} changed {what} in place; other terms read it too: copy it")


def tensors(seen: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of positions or targets by name, with those of their origin.

    Those made under inference_mode are left out: they have no version, and no gradient to spoil.
    """
    for field in attrs.fields(type(seen)):
        name, value = field.name.lstrip("_"), getattr(seen, field.name)
        if isinstance(value, Tensor) and not value.is_inference():
            yield name, value
        elif attrs.has(type(value)):
            yield from ((f"{name}.{inner}", tensor) for inner, tensor in tensors(value))
