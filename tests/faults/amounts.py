"""How many cases of each kind are tried."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Amounts:
    """How many cases of each kind. files: for each importer."""

    manifests: int
    records: int
    files: int
    answers: int
    predictions: int
    checkpoints: int
    kills: int


SMALL = Amounts(manifests=150, records=100, files=20, answers=200, predictions=60, checkpoints=6, kills=2)
LONG = Amounts(manifests=10_000, records=2_000, files=500, answers=5_000, predictions=1_000, checkpoints=200, kills=20)
