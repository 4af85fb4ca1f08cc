"""Evaluators of a run: after the merge, on checkpoints while it trains, and after an interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import support
import torch

from coordcore_train.run.evaluate import EvaluateCallback
from coordcore_train.run.folder import RunDir, newest_checkpoint

TRAIN = {"steps": 4, "save_every": 1, "evaluate_checkpoints": True}
SECTIONS = {
    "data": {"fake_boxes": {"validation": 5}},
    "eval": {"fake_count": {}},
    "output": {"merge": True},
}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, coord_base: Path) -> RunDir:
    return support.train(tmp_path_factory.mktemp("evaluated"), coord_base, **SECTIONS, train=TRAIN)


def results(run: RunDir) -> dict[str, float]:
    """Folder of an evaluation -> the number of examples it counted."""
    files = (run.path / "eval").glob("**/metrics.json")
    found = {str(file.parent.relative_to(run.path / "eval")): json.loads(file.read_text()) for file in files}
    return {name: metrics["examples"] for name, metrics in found.items()}


def test_the_merged_checkpoint_and_every_one_before_are_evaluated(evaluated: RunDir) -> None:
    steps = {f"fake_count/step-{step}": 5.0 for step in (1, 2, 3)}
    assert results(evaluated) == {"fake_count": 5.0, **steps}


def test_an_evaluator_sees_a_merged_folder_that_is_gone_afterwards(evaluated: RunDir) -> None:
    assert (evaluated.path / "eval/fake_count/step-2/seen.txt").read_text() == "True 5"
    assert [path.name for path in (evaluated.path / "eval").iterdir()] == ["fake_count"]


def test_the_metrics_of_checkpoints_are_logged(evaluated: RunDir) -> None:
    lines = [line for line in support.metrics(evaluated) if "eval/fake_count/examples" in line]
    assert [(line["step"], line["eval/fake_count/examples"]) for line in lines] == [(1, 5.0), (2, 5.0), (3, 5.0)]


def test_evaluations_change_no_weight(evaluated: RunDir, coord_base: Path, tmp_path: Path) -> None:
    train = {**TRAIN, "evaluate_checkpoints": False}
    other = support.train(tmp_path, coord_base, **SECTIONS, train=train)
    ours, theirs = support.weights(evaluated), support.weights(other)
    assert [key for key in theirs if not torch.equal(theirs[key], ours[key])] == []


def test_training_goes_on_when_an_evaluator_fails(
    coord_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = support.train(
        tmp_path, coord_base, **{**SECTIONS, "eval": {"fake_count": {"fail_at": "step-2"}}}, train=TRAIN
    )
    assert sorted(results(run)) == ["fake_count", "fake_count/step-1", "fake_count/step-3"]
    assert "step-2  not evaluated: no evaluation at step-2" in capsys.readouterr().out


def test_a_run_that_is_continued_makes_up_for_the_evaluation_of_its_checkpoint(
    coord_base: Path, tmp_path: Path
) -> None:
    manifest = support.write_manifest(tmp_path, coord_base, **SECTIONS, train=TRAIN)
    command = ["-m", "coordcore", "run", str(manifest), "--output", str(tmp_path / "run")]
    support.python(*command, FAKE_KILL_AT="3")
    run = RunDir(tmp_path / "run")
    last = newest_checkpoint(run.checkpoints)
    assert last is not None
    shutil.rmtree(run.path / "eval/fake_count" / last.name.replace("checkpoint", "step"))
    support.python(*command)
    assert sorted(results(run)) == ["fake_count", *(f"fake_count/step-{step}" for step in (1, 2, 3))]


def test_an_evaluation_that_was_done_and_not_logged_is_logged_once(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    done = tmp_path / "eval/fake_count/step-2/metrics.json"
    done.parent.mkdir(parents=True)
    done.write_text('{"examples": 5.0, "f1": 0.1}')
    run.metrics.write_text('{"step": 2, "epoch": 0.5, "loss": 1.0}\n')
    state = SimpleNamespace(global_step=2, epoch=0.5, max_steps=2, is_world_process_zero=True)

    def write(state: Any, metrics: Any) -> None:
        with run.metrics.open("a") as file:
            file.write(json.dumps({"step": state.global_step, "epoch": state.epoch, **metrics}) + "\n")

    for _ in range(2):
        EvaluateCallback(run, print, write).on_train_begin(None, state, None)
    line = {"step": 2, "epoch": 0.5, "eval/fake_count/examples": 5.0, "eval/fake_count/f1": 0.1}
    assert support.metrics(run)[1:] == [line]


def test_a_checkpoint_that_was_merged_to_be_evaluated_is_removed(tmp_path: Path) -> None:
    for name in (".step-2", ".step-2.0123456789ab.tmp", "fake_count"):
        (tmp_path / "eval" / name).mkdir(parents=True)
    RunDir(tmp_path).discard_after(2)
    assert [path.name for path in (tmp_path / "eval").iterdir()] == ["fake_count"]


def test_two_ranks_wait_for_the_evaluation(coord_base: Path, tmp_path: Path) -> None:
    run = support.train(
        tmp_path,
        coord_base,
        **SECTIONS,
        train={**TRAIN, "save_every": 2, "batch_size": 2},
        launch={"nproc_per_node": 2},
    )
    assert results(run) == {"fake_count": 5.0, "fake_count/step-2": 5.0}


def test_discarding_steps_forgets_their_evaluations(tmp_path: Path) -> None:
    for step in (2, 4):
        (tmp_path / f"eval/fake_count/step-{step}").mkdir(parents=True)
    RunDir(tmp_path).discard_after(2)
    assert [path.name for path in (tmp_path / "eval/fake_count").iterdir()] == ["step-2"]
