"""DeepSpeed ZeRO-1, -2 and -3 on two CPU ranks are one rank with twice the batch."""

from __future__ import annotations

from collections.abc import Callable

import equal
import pytest
import ranks

from coordcore_train.run.folder import RunDir

pytest.importorskip("deepspeed")


@pytest.mark.parametrize("tuner", ranks.TUNERS)
@pytest.mark.parametrize("kind", ["zero1", "zero2", "zero3"])
def test_losses_and_weights_are_those_of_one_rank(
    shared: Callable[..., RunDir], alone: Callable[[str], RunDir], kind: str, tuner: str
) -> None:
    run = shared(*ranks.KINDS[kind], f"tuner.type={tuner}")
    equal.require_same_training(run, alone(tuner))


def test_the_layers_of_a_merge_after_zero3_are_written_one_by_one(shared: Callable[..., RunDir]) -> None:
    """The head that is tied to the embedding is not in the checkpoint twice, and ZeRO-3 is over when it is merged."""
    run = shared(*ranks.KINDS["zero3"], "tuner.type=full")
    assert "lm_head.weight" not in ranks.trained(run)
    assert "merged in memory" not in ranks.said(run.path.parent)
