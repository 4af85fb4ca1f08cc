"""What a tracker gets: every line of metrics.jsonl under our names, in files below the run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import support
from swift.arguments.sft_args import SwanlabArguments
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from coordcore_train.run.plan import plan_of
from coordcore_train.swift.arguments import Setup, argument_values
from coordcore_train.swift.trackers import keep_here

VARIABLES = (
    "TENSORBOARD_LOGGING_DIR",
    "WANDB_MODE",
    "WANDB_DIR",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_ALLOW_FILE_STORE",
    "SWANLAB_MODE",
    "SWANLAB_LOG_DIR",
)

BOXES = {1: 3, 2: 5}
"""Of the four examples of each of the first two steps."""


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)


def test_tensorboard_gets_every_line_of_metrics(coord_base: Path, tmp_path: Path) -> None:
    run = support.train(tmp_path, coord_base, train={"steps": 2, "report_to": ["tensorboard"]})
    events = EventAccumulator(str(run.path / "logs"))
    events.Reload()
    told = {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}
    lines = [line for line in support.metrics(run) if "loss" in line]
    expected = {
        (f"train/{name}", line["step"]): pytest.approx(value, rel=1e-6)
        for line in lines
        for name, value in line.items()
        if name not in ("step", "epoch")
    }
    assert {"train/loss", "train/text_ce/ce", "train/grad_norm"} <= {tag for tag, _ in expected}
    assert {key: told.get(key) for key in expected} == expected
    for step in (1, 2):  # both in the same time
        examples, boxes = (told[f"train/{what}_per_second", step] for what in ("examples", "boxes"))
        assert 4 * boxes / examples == pytest.approx(BOXES[step], rel=1e-4)


def test_nothing_leaves_this_machine_unless_it_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    keep_here(["wandb", "mlflow", "swanlab"], tmp_path / "logs")
    assert os.environ["WANDB_MODE"] == "online"
    assert os.environ["SWANLAB_MODE"] == "local"
    assert os.environ["MLFLOW_ALLOW_FILE_STORE"] == "true"
    assert os.environ["MLFLOW_TRACKING_URI"] == (tmp_path / "logs/mlruns").as_uri()


@pytest.mark.parametrize(("said", "mode"), [(None, "local"), ("cloud", "cloud")])
def test_ms_swift_tells_swanlab_so_too(
    coord_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, mode: str
) -> None:
    """It hands a mode of its own to SwanLab, whose variable then says nothing; "cloud" by default."""
    if said is not None:
        monkeypatch.setenv("SWANLAB_MODE", said)
    loaded = support.loaded(tmp_path, coord_base, train={"report_to": ["swanlab"]})
    setup = Setup(plan=plan_of(loaded.manifest, tmp_path / "run", coord_base), has_validation=False, resume=None)
    assert SwanlabArguments().swanlab_mode == "cloud"
    assert argument_values(setup)["swanlab_mode"] == mode


def test_without_trackers_no_folder_is_made(tmp_path: Path) -> None:
    keep_here([], tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
