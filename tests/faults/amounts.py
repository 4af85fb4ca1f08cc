"""How many cases of each kind are tried."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Amounts:
    """How many cases of each kind. files: for each importer. special, surroundings: 0 for all there are."""

    manifests: int
    records: int
    files: int
    answers: int
    predictions: int
    checkpoints: int
    special: int
    surroundings: int
    kills: int


SMALL = Amounts(
    manifests=150,
    records=100,
    files=20,
    answers=200,
    predictions=60,
    checkpoints=6,
    special=80,
    surroundings=12,
    kills=2,
)
LONG = Amounts(
    manifests=10_000,
    records=2_000,
    files=500,
    answers=5_000,
    predictions=1_000,
    checkpoints=200,
    special=0,
    surroundings=0,
    kills=20,
)
