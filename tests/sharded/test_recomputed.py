"""Activations that are recomputed in the backward pass, when parameters have been given up again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import ranks

from coordcore_train.run.folder import RunDir


@pytest.mark.parametrize("kind", ["fsdp2", "zero3"])
def test_gradient_checkpointing_changes_no_loss(
    shared: Callable[..., RunDir], alone: Callable[[str], RunDir], kind: str
) -> None:
    if kind == "zero3":
        pytest.importorskip("deepspeed")
    run = shared(*ranks.KINDS[kind], "train.gradient_checkpointing=true", "tuner.type=lora")
    assert ranks.losses(run) == pytest.approx(ranks.losses(alone("lora")), rel=1e-5)
