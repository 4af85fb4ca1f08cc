"""What a run says while it trains: the loss, the time, the speed, what is left."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from coordcore_train.run import progress
from coordcore_train.run.progress import ProgressCallback, speed_of, time_of

SPEED = {"examples_per_second": 87.4, "boxes_per_second": 170.2}


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def callback(folder: Path, **console: Any) -> tuple[ProgressCallback, io.StringIO]:
    """One that writes to a text."""
    text = io.StringIO()
    run: Any = SimpleNamespace(metrics=folder / "metrics.jsonl")
    hooks: Any = SimpleNamespace(step_ended=lambda step, metrics: None)
    return ProgressCallback(run, hooks, Console(file=text, width=60, **console), evaluates=False), text


def state(step: int) -> Any:
    return SimpleNamespace(global_step=step, max_steps=300, epoch=0.1, is_world_process_zero=True)


def test_a_line_says_loss_time_speed_and_what_is_left(tmp_path: Path, clock: Clock) -> None:
    said, text = callback(tmp_path)
    said.on_train_begin(None, state(0), None)
    clock.now += 50
    said.on_log(None, state(100), None, {"loss": 5.86912, **SPEED})
    assert text.getvalue() == "step 100/300  loss 5.8691  50 s  87 examples/s  170 boxes/s  2 min left\n"
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 100, "epoch": 0.1, "loss": 5.86912}


def test_a_run_that_goes_on_counts_its_own_steps(tmp_path: Path, clock: Clock) -> None:
    said, text = callback(tmp_path)
    said.on_train_begin(None, state(200), None)
    clock.now += 20
    said.on_log(None, state(250), None, {"loss": 1.0, **SPEED})
    assert text.getvalue().endswith("20 s  87 examples/s  170 boxes/s  20 s left\n")


def test_an_evaluation_and_the_last_step_leave_nothing(tmp_path: Path, clock: Clock) -> None:
    said, text = callback(tmp_path)
    said.on_train_begin(None, state(0), None)
    clock.now += 90
    said.on_log(None, state(300), None, {"loss": 1.0, **SPEED})
    said.on_log(None, state(300), None, {"eval_loss": 2.0, "eval_samples_per_second": 3.0})
    first, second = text.getvalue().splitlines()
    assert first == "step 300/300  loss 1.0000  90 s  87 examples/s  170 boxes/s"
    assert second == "step 300/300  eval_loss 2.0000  90 s"


def test_the_bar_keeps_the_speed_through_an_evaluation(tmp_path: Path) -> None:
    said, _ = callback(tmp_path, force_terminal=True)
    said.on_train_begin(None, state(0), None)
    try:
        said.on_log(None, state(100), None, {"loss": 1.0, **SPEED})
        said.on_log(None, state(100), None, {"eval_loss": 2.0})
        assert said.bar is not None
        assert said.bar.tasks[0].fields == {"speed": "87 examples/s  170 boxes/s", "loss": "eval_loss 2.0000"}
    finally:
        said.close()


@pytest.mark.parametrize(
    ("logs", "said"),
    [
        ({}, ""),
        ({"examples_per_second": 0.123}, "0.12 examples/s"),
        ({"examples_per_second": 9.96, "boxes_per_second": 0.0}, "10 examples/s"),
        ({"examples_per_second": 1234.5}, "1234 examples/s"),
    ],
)
def test_speeds(logs: dict[str, float], said: str) -> None:
    assert speed_of(logs) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3599, "1 h 0 min"), (11_100, "3 h 5 min"), (200_000, "55 h 33 min")],
)
def test_times(seconds: float, said: str) -> None:
    assert time_of(seconds) == said
