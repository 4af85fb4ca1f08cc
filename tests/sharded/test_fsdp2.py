"""FSDP2 on two CPU ranks is one rank with twice the batch; needs nothing that torch does not bring."""

from __future__ import annotations

from collections.abc import Callable

import equal
import pytest
import ranks

from coordcore_train.run.folder import RunDir

FSDP2 = ("launch.fsdp=fsdp2", "train.save_every=3")


@pytest.mark.parametrize("tuner", ranks.TUNERS)
def test_losses_and_weights_are_those_of_one_rank(
    shared: Callable[..., RunDir], alone: Callable[[str], RunDir], tuner: str
) -> None:
    """The checkpoint of step 3 is saved just after an evaluation, which leaves gathered parameters behind."""
    run = shared(*FSDP2, f"tuner.type={tuner}")
    equal.require_same_training(run, alone(tuner))
