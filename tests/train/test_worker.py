"""One rank of a launched run, as torchrun starts it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import support
import torch
import torch.distributed as dist

from coordcore_train.run import worker


def test_a_rank_leaves_the_group_before_it_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # gloo's threads otherwise now and then abort the process at its end: SIGABRT after training was done.
    def train(*arguments: Any) -> None:
        store = dist.FileStore(str(tmp_path / "store"), 1)
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        dist.all_reduce(torch.ones(1))

    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path)])
    monkeypatch.setattr(worker, "load", lambda manifest: None)
    monkeypatch.setattr(worker, "train", train)

    assert (worker.main(), dist.is_initialized()) == (0, False)


def test_a_rank_ends_past_pythons_own_way_out() -> None:
    # gloo's threads may need Python once more; where it is just ending, they abort the process.
    script = """
import atexit, sys
from coordcore_train.run import launch

class Ending:
    def __del__(self):
        print("Python was taken apart")

kept = sys.kept = Ending()
atexit.register(print, "what was registered is done")
print("said", end=" ")
launch.end_process(3)
"""
    done = support.python("-c", script)

    assert (done.returncode, done.stdout) == (3, "said what was registered is done\n")
