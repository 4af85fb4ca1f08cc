"""Position weights, origins and schedules in real runs: equal for every split, logged, resumed bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import support
import torch
from support import Table

from coordcore.errors import RunError
from coordcore_train.run.folder import RunDir

WEIGHED: dict[str, Table] = {"loss": {"fake_weighed": {}}, "data": {"fake_boxes": {"validation": 13}}}
PARTS = ("text_ce/ce", "fake_bins/ce", "fake_bins/corners", "fake_weighed/ramp", "fake_weighed/small")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, coord_base: Path) -> RunDir:
    """4 steps of batch 4, 13 examples evaluated twice, 5 at a time."""
    train = {"eval_batch_size": 5, "eval_every": 2}
    return support.train(tmp_path_factory.mktemp("whole"), coord_base, **WEIGHED, train=train)


def numbers(run: RunDir) -> list[float]:
    """The losses and weights of every logged step and evaluation."""
    ignored = ("epoch", "grad_norm", "learning_rate", "lr/", "step", "time", "tokens")
    return [
        value
        for line in support.metrics(run)
        for key, value in sorted(line.items())
        if not key.startswith(ignored) and isinstance(value, float)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"batch_size": 2, "accumulation": 2, "eval_batch_size": 2, "eval_every": 2}},
        {"train": {"batch_size": 1, "accumulation": 4, "eval_batch_size": 13, "eval_every": 2, "workers": 1}},
        {"train": {"batch_size": 2, "eval_batch_size": 2, "eval_every": 2}, "launch": {"nproc_per_node": 2}},
    ],
    ids=["accumulation", "one at a time", "two ranks"],
)
def test_weighed_losses_are_the_same_for_every_split(
    whole: RunDir, coord_base: Path, tmp_path: Path, changes: dict[str, Table]
) -> None:
    run = support.train(tmp_path, coord_base, **WEIGHED, **changes)
    assert numbers(run) == pytest.approx(numbers(whole), rel=1e-5)


def test_the_weights_that_follow_the_step_are_logged(whole: RunDir) -> None:
    lines = [line for line in support.metrics(whole) if "loss" in line]
    weights = [line["weight/fake_weighed/ramp"] for line in lines]
    total = [
        sum(weight * line[part] for part, weight in zip(PARTS, (1.0, 1.0, 0.01, ramp, 0.01), strict=True))
        for line, ramp in zip(lines, weights, strict=True)
    ]
    assert weights == [0.0, 0.25, 0.5, 0.75]
    assert [line["loss"] for line in lines] == pytest.approx(total, rel=1e-6)
    assert [key for key in lines[0] if key.startswith("weight/")] == ["weight/fake_weighed/ramp"]


def test_an_evaluation_keeps_to_the_stated_weights(whole: RunDir) -> None:
    lines = [line for line in support.metrics(whole) if "eval_loss" in line]
    total = [
        sum(weight * line[f"eval_{part}"] for part, weight in zip(PARTS, (1.0, 1.0, 0.01, 1.0, 0.01), strict=True))
        for line in lines
    ]
    assert [line["eval_loss"] for line in lines] == pytest.approx(total, rel=1e-6)


def test_a_run_that_was_stopped_weighs_as_it_would_have(
    whole: RunDir, coord_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {**WEIGHED, "train": {"eval_batch_size": 5, "eval_every": 2, "save_every": 1}}
    monkeypatch.setenv("FAKE_STOP_AT", "2")
    with pytest.raises(RunError, match="stopped at step 2"):
        support.train(tmp_path, coord_base, **sections)
    monkeypatch.delenv("FAKE_STOP_AT")
    run = support.train(tmp_path, coord_base, **sections)
    expected, actual = support.weights(whole), support.weights(run)
    assert {key: torch.equal(tensor, actual[key]) for key, tensor in expected.items()} == dict.fromkeys(expected, True)
    assert numbers(run) == numbers(whole)


def test_a_part_that_trains_nothing_stops_the_run(coord_base: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"loss\.fake_weighed: part 'ramp' has a weight but no gradient"):
        support.train(tmp_path, coord_base, loss={"fake_weighed": {"detached": True}})
