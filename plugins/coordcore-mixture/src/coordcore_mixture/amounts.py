"""How many records of each source an epoch holds. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from coordcore import InputError
from coordcore_mixture.config import Source

MOST = 1_000_000
"""More often than that in an epoch no record is meant to be seen."""


def amounts(sources: Mapping[str, Source], lengths: Mapping[str, int]) -> dict[str, int]:
    """Source -> records in an epoch, from what it asks for and the records it holds (`lengths`).

    Sources with a weight share as many records as they hold in all, to the last one: what is left of a division goes
    to the largest remainders. Raises InputError for a source that is empty, that would give no record, or each of its
    records more than a million times.
    """
    for name, length in lengths.items():
        if length == 0:
            raise InputError(f"{_path(name)}: holds no training record; look at its settings, or leave it out")
    found = _shared({name: source.weight for name, source in sources.items() if source.weight is not None}, lengths)
    for name, source in sources.items():
        if source.weight is None:
            found[name] = lengths[name] if source.records is None else source.records
        key = f"{_path(name)}.{'records' if source.weight is None else 'weight'}"
        if found[name] == 0:
            cure = "give it more, or leave the source out"
            raise InputError(f"{key}: {source.weight} is too little for a single record in an epoch; {cure}")
        if found[name] > MOST * lengths[name]:
            asked = f"{found[name]} records in an epoch from a source that holds {lengths[name]}"
            raise InputError(f"{key}: {asked}, each more than {MOST} times; ask for less")
    return {name: found[name] for name in sources}


def _shared(weights: Mapping[str, float], lengths: Mapping[str, int]) -> dict[str, int]:
    """As many records as the sources of `weights` hold, in its proportions."""
    whole, held = sum(map(Fraction, weights.values())), sum(lengths[name] for name in weights)
    exact = {name: Fraction(weight) * held / whole for name, weight in weights.items()}
    found = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: found[name] - exact[name])
    for name in by_remainder[: held - sum(found.values())]:
        found[name] += 1
    return found


def _path(name: str) -> str:
    return f"data.mixture.sources.{name}"
