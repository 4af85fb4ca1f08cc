"""Which process leads a run, which tasks of a scheduler are none, and how long ranks wait for each other."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import support
import torch.distributed as dist

from coordcore import InputError
from coordcore.manifest.sections import Launch
from coordcore_train.run import launch, session

VARIABLES = ("RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
NODES = {"nnodes": 2, "master_addr": "10.0.0.1", "master_port": 29500}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "node", "leads"),
    [
        ({}, 0, True),
        ({}, 1, False),  # the command on another node, which starts torchrun itself
        ({"RANK": "0", "WORLD_SIZE": "4"}, 0, True),
        ({"RANK": "3", "WORLD_SIZE": "4"}, 0, False),
        ({"RANK": "3", "WORLD_SIZE": "4"}, 1, False),
    ],
)
def test_one_process_leads(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], node: int, leads: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launch.leads(Launch(**NODES, node_rank=node)) is leads


@pytest.mark.parametrize("node", [0, 1])
@pytest.mark.parametrize("fails", [False, True])
def test_plugins_hear_of_the_end_from_the_first_node_alone(
    coord_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: int, fails: bool
) -> None:
    told: list[Any] = []

    def trained(*_: Any, **__: Any) -> None:
        if fails:
            raise InputError("a rank failed")

    monkeypatch.setattr(session, "_prepare", lambda *_, **__: False)
    monkeypatch.setattr(session, "_train_and_merge", trained)
    loaded = support.loaded(tmp_path, coord_base, launch={**NODES, "node_rank": node})
    monkeypatch.setattr(type(loaded.hooks), "run_ended", lambda _self, _folder, error: told.append(error))
    with pytest.raises(InputError) if fails else nullcontext():
        session.run(loaded, output=tmp_path / "run")
    assert [type(error) for error in told] == [InputError if fails else type(None)] * (node == 0)


@pytest.mark.parametrize(
    ("tasks", "nodes", "under_launcher"), [("1", 1, False), ("2", 2, False), ("8", 2, True), (None, 1, False)]
)
def test_a_task_of_slurm_is_a_node_or_a_rank(
    monkeypatch: pytest.MonkeyPatch, tasks: str | None, nodes: int, under_launcher: bool
) -> None:
    if tasks is not None:
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
    if under_launcher:
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", "8")
    launch.require_own_task(Launch(**{**NODES, "nnodes": nodes}))


def test_other_tasks_of_slurm_are_told_how_to_start(
    coord_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    told = r"srun has started 8 tasks, and a run joins none that has no RANK and WORLD_SIZE: start one task a node, "
    with pytest.raises(InputError, match=told):
        session.run(support.loaded(tmp_path, coord_base), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("swift", "seconds"), [({}, 7200), ({"ddp_timeout": 86400}, 86400)])
def test_ranks_wait_as_long_as_ms_swift_is_told(
    coord_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swift: dict[str, int], seconds: int
) -> None:
    asked: list[timedelta] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "init_process_group", lambda _backend, timeout: asked.append(timeout))
    launch.start_process_group(support.loaded(tmp_path, coord_base, train={"swift": swift}).manifest)
    assert asked == [timedelta(seconds=seconds)]
