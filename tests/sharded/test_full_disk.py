"""A rank without room ends the run with a word about it; the last checkpoint is whole, and the run goes on from it."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import ranks

from coordcore_train.run.folder import RunDir

ROOM = 150_000
"""Bytes that a file of the last rank may have: its share of the optimizer's state is larger."""


def test_no_room_for_a_share_of_the_optimizer(
    shared: Callable[..., RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("deepspeed")
    settings = ("launch.deepspeed=zero1", "tuner.type=lora")
    expected, run = shared(*settings), RunDir(tmp_path / "run")
    start = ranks.coordcore

    def without_room(arguments: list[str]) -> int:
        """In the ranks, which are forked from here."""
        import os

        if os.environ["RANK"] == "1":
            resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
        return start(arguments)

    monkeypatch.setattr(ranks, "coordcore", without_room)
    codes = ranks.run(tmp_path, *settings)
    assert codes[1] == 1, ranks.said(tmp_path)
    assert "step 2: the checkpoint could not be written" in (tmp_path / "1.log").read_text()
    assert [path.name for path in run.checkpoints.glob("checkpoint-*")] == []

    monkeypatch.undo()
    ranks.train(tmp_path, *settings)
    assert ranks.losses(run) == ranks.losses(expected)
