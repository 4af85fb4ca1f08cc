"""What a rule of `coordcore data check` says, and the words that all of them use."""

from __future__ import annotations

import math

import attrs

from coordcore_data.check.sample import Sample


@attrs.frozen(kw_only=True)
class Suspicion:
    """kind: the rule. share: how much of the data shows it, 0..1. text: the verdict, with the cure."""

    kind: str
    share: float
    text: str


def nouns(sample: Sample) -> str:
    """What all of its geometries are called."""
    if sample.is_point.all():
        return "points"
    return "boxes and points" if sample.points else "boxes"


def percent(share: float) -> str:
    """`84 %`, `0.3 %`: two digits, and never 0 for something or 100 for not all."""
    value = share * 100
    if 0 < value < 0.1:
        return "< 0.1 %"
    if 99 < value < 100:
        return f"{math.floor(value * 10) / 10:.1f} %"
    return f"{value:.1f} %" if value < 10 and value != round(value) else f"{value:.0f} %"
