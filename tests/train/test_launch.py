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

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
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
        ({"RANK": "0", "WORLD_SIZE": "4"}, 1, True),  # whatever the manifest says: torchrun has numbered them
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
    ("environment", "nodes", "node"),
    [
        ({}, 1, 0),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, 1, 0),
        ({"SLURM_STEP_NUM_TASKS": "", "SLURM_PROCID": "0"}, 1, 0),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}, 2, 0),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, 2, 1),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "RANK": "5", "WORLD_SIZE": "8"}, 1, 0),  # torchrun's
    ],
)
def test_a_task_of_slurm_is_a_node_or_a_rank(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], nodes: int, node: int
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    launch.require_own_task(Launch(**{**NODES, "nnodes": nodes, "node_rank": node}))


@pytest.mark.parametrize(
    ("tasks", "task", "settings", "told"),
    [
        (
            "8",
            "0",
            {},
            "srun has started 8 tasks, and a run joins none that has no RANK and WORLD_SIZE",
        ),
        (
            "2",
            "1",
            NODES,
            "task 1 of srun says that it is node 0, which task 0 is: each task wants its own",
        ),
    ],
)
def test_other_tasks_of_slurm_are_told_how_to_start(
    coord_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tasks: str,
    task: str,
    settings: dict[str, Any],
    told: str,
) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
    monkeypatch.setenv("SLURM_PROCID", task)
    with pytest.raises(InputError, match=told):
        session.run(support.loaded(tmp_path, coord_base, launch=settings), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "environment", [{"RANK": "3"}, {"WORLD_SIZE": "4"}, {"LOCAL_RANK": "1"}, {"RANK": "", "WORLD_SIZE": ""}]
)
def test_half_a_rank_is_refused(
    coord_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    """ms-swift looks at each by itself: a lone RANK trained, and ended in a traceback at the first checkpoint."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"^{' and '.join(environment)} set in the environment, and not RANK and"):
        session.run(support.loaded(tmp_path, coord_base), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seconds", [7200, 86400])
def test_ranks_wait_as_long_as_the_manifest_says(
    coord_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    asked: list[timedelta] = []
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "init_process_group", lambda _backend, timeout: asked.append(timeout))
    settings = {} if seconds == 7200 else {"timeout": seconds}
    launch.start_process_group(support.loaded(tmp_path, coord_base, launch=settings).manifest)
    assert asked == [timedelta(seconds=seconds)]
