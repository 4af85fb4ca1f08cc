"""The scores of a box, from the probabilities of the tokens that wrote it. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import attrs


@attrs.frozen(kw_only=True)
class Evidence:
    """The probabilities behind one box.

    description, coordinates: log-probabilities over the whole vocabulary, before any constraint, of the tokens that
    wrote the description and of its coord tokens. entropy, log_mass, log_near: of its coordinates, as in
    `decoding.Coords`. bins: K of those.
    """

    description: Sequence[float]
    coordinates: Sequence[float]
    entropy: Sequence[float]
    log_mass: Sequence[float]
    log_near: Sequence[float]
    bins: int = 1000


def _mean(logarithms: Sequence[float]) -> float:
    """The geometric mean of probabilities given by their logarithms; 1 for none."""
    return math.exp(math.fsum(logarithms) / len(logarithms)) if len(logarithms) else 1.0


def _named(evidence: Evidence) -> float:
    return _mean(evidence.description)


SCORES: Mapping[str, Callable[[Evidence], float]] = {
    "geometric_mean": lambda item: _mean([*item.description, *item.coordinates]),
    "min": lambda item: math.exp(min([*item.description, *item.coordinates])),
    "coord_mass": lambda item: _named(item) * _mean(item.log_mass),
    "entropy": lambda item: _named(item) * (1 - math.fsum(item.entropy) / len(item.entropy) / math.log(item.bins)),
    "near": lambda item: _named(item) * _mean(item.log_near),
}
"""Name -> score, in 0..1.

geometric_mean, min: of the probabilities of all tokens of description and coordinates. The others multiply the
geometric mean over the description's tokens with what the coordinates' distributions say: coord_mass, the probability
that a coord token stands there at all; entropy, 1 - H / log K, averaged over the coordinates; near, the probability
within 20 bins of the written one (geometric means over the coordinates).
"""

DEFAULT_SCORE = "near"


def scores_of(evidence: Evidence) -> dict[str, float]:
    """All scores of one box, each in 0..1."""
    return {name: min(max(score(evidence), 0.0), 1.0) for name, score in SCORES.items()}
