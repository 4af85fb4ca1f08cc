"""A sharded run of which a rank is killed goes on to the same weights, from the same checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import ranks
import torch

from coordcore_train.run.folder import RunDir


@pytest.mark.parametrize("tuner", ranks.TUNERS)
@pytest.mark.parametrize("kind", ranks.KINDS)
def test_a_killed_rank_continues_to_the_same_weights(
    shared: Callable[..., RunDir], tmp_path: Path, kind: str, tuner: str
) -> None:
    if kind != "fsdp2":
        pytest.importorskip("deepspeed")
    settings = (*ranks.KINDS[kind], f"tuner.type={tuner}")
    expected, run = shared(*settings), RunDir(tmp_path / "run")
    codes = ranks.run(tmp_path, *settings, kill=lambda: ranks.steps_logged(run) >= 3)
    assert codes[-1] == -signal.SIGKILL, ranks.said(tmp_path)
    assert "checkpoint-5" not in {path.name for path in run.checkpoints.iterdir()}, "it was over before it was killed"

    ranks.train(tmp_path, *settings)
    assert "continues from checkpoint-" in (tmp_path / "0.log").read_text()
    assert ranks.losses(run) == ranks.losses(expected)
    for what in (ranks.trained, ranks.merged):
        found, wanted = what(run), what(expected)
        assert found.keys() == wanted.keys()
        assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []
