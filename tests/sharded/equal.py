"""When a sharded run is the run of one rank."""

from __future__ import annotations

import pytest
import ranks
from torch import Tensor

from coordcore_train.run.folder import RunDir


def require_same_training(run: RunDir, alone: RunDir) -> None:
    """Losses of every step and evaluation to 1e-5; what is merged as near as float32 gives sums in another order."""
    assert ranks.losses(run) == pytest.approx(ranks.losses(alone), rel=1e-5)
    for name, found in (("trained", ranks.trained), ("merged", ranks.merged)):
        expected, actual = found(alone), found(run)
        assert actual.keys() == expected.keys(), name
        assert {key: item.dtype for key, item in actual.items()} == {key: item.dtype for key, item in expected.items()}
        for key, tensor in expected.items():
            assert _difference(actual[key], tensor) < 1e-3, f"{name}: {key}"


def _difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest value."""
    largest = float(expected.float().abs().max())
    return float((actual.float() - expected.float()).abs().max()) / (largest or 1.0)
