"""Runs that are killed at any moment, or told to stop, and continued: the same bytes as without."""

from __future__ import annotations

import json
import signal
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import attrs
import psutil
import pytest
import runs
from amounts import LONG, Amounts

TWO = ("--set", "launch.nproc_per_node=2")


@attrs.frozen
class Whole:
    """An uninterrupted run: its folder, and the seconds that it took."""

    folder: Path
    seconds: float


def folder_for(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "m.toml").write_text(runs.MANIFEST)
    return path


def uninterrupted(folder: Path, *options: str) -> Whole:
    started = time.monotonic()
    runs.finish(folder_for(folder), *options)
    return Whole(folder, time.monotonic() - started)


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    runs.load()
    return uninterrupted(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def whole_of_two(whole: Whole, amounts: Amounts, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    if amounts.kills < LONG.kills:
        pytest.skip("only with --long: each is four times two interpreters that import torch")
    return uninterrupted(tmp_path_factory.mktemp("two"), *TWO)


def test_a_killed_run_continues_to_the_same_bytes(whole: Whole, amounts: Amounts, tmp_path: Path) -> None:
    rng = Random(0)
    for number in range(amounts.kills):
        folder = folder_for(tmp_path / str(number))
        # Spread over the whole run: preparing, training, saving, merging, evaluating.
        run = runs.start(folder)
        moment = whole.seconds * (number + rng.random()) / amounts.kills
        if run.wait(moment) is None:
            run.kill()
            run.wait()
        runs.finish(folder)
        runs.require_equal(folder, whole.folder)


@pytest.mark.parametrize("victim", ["launcher", "torchrun", "rank"])
def test_a_run_of_two_ranks_of_which_a_process_is_killed(
    whole_of_two: Whole, amounts: Amounts, tmp_path: Path, victim: str
) -> None:
    rng = Random(victim)
    count = max(amounts.kills // 3, 1)
    for number in range(count):
        folder = folder_for(tmp_path / str(number))
        run = runs.start(folder, *TWO)
        metrics = folder / runs.NAME / "metrics.jsonl"
        family = []
        later = whole_of_two.seconds * 0.3 * (number + rng.random()) / count
        if run.wait(until=metrics.exists) is None and run.wait(later) is None:  # not at its end already
            family = run.family()
            _kill(run, victim)
        runs.finish_when_free(folder, *TWO)
        assert runs.gone(family, 30) == []
        runs.require_equal(folder, whole_of_two.folder)


def _kill(run: runs.Running, victim: str) -> None:
    family = run.family()
    if victim == "launcher" or not family:
        run.kill()
        return
    ranks = [process for process in family if "coordcore_train.run.worker" in runs.command_line(process)[1:4]]
    with suppress(psutil.NoSuchProcess):  # it came to its end first
        (family[0] if victim == "torchrun" else (ranks or family)[-1]).kill()


@pytest.mark.parametrize(
    ("ranks", "number", "code"),
    [
        (1, signal.SIGINT, 130),
        (1, signal.SIGTERM, 143),
        (2, signal.SIGINT, 130),
        (2, signal.SIGTERM, 143),
    ],
)
def test_a_run_that_is_told_to_stop(
    whole: Whole, amounts: Amounts, tmp_path: Path, ranks: int, number: int, code: int
) -> None:
    if amounts.kills < LONG.kills and ranks == 2:
        pytest.skip("only with --long")
    folder = folder_for(tmp_path)
    run = runs.start(folder, *(TWO if ranks == 2 else ()))
    metrics = folder / runs.NAME / "metrics.jsonl"
    assert run.wait(until=metrics.exists) is None
    family = run.family()
    run.kill(number)
    assert run.wait() == code
    assert "Traceback" not in run.err.read_text()
    assert runs.gone(family, 30) == []
    if ranks == 1:
        runs.finish(folder)
        runs.require_equal(folder, whole.folder)


def test_of_two_runs_in_one_folder_the_second_writes_nothing(whole: Whole, tmp_path: Path) -> None:
    folder = folder_for(tmp_path)
    (folder / "b.toml").write_text('extends = "m.toml"\n[train]\nseed = 7\nlearning_rate = 1e-5\n')
    first = runs.start(folder, "--set", "train.log_every=1")
    resolved = folder / runs.NAME / "manifest.resolved.toml"  # it comes after the state
    assert first.wait(until=resolved.exists) is None
    before = _written(folder)
    second = runs.start(folder, manifest="b.toml")
    assert second.wait() == 2
    assert "another process works on the run" in second.err.read_text()
    assert _written(folder) == before
    checkpoints = folder / runs.NAME / "checkpoints"
    assert first.wait(until=lambda: any(checkpoints.glob("checkpoint-*/trainer_state.json"))) is None
    first.kill()
    first.wait()
    third = runs.start(folder, manifest="b.toml")
    assert third.wait() == 2
    assert "run of another manifest" in third.err.read_text()
    runs.finish(folder)
    runs.require_equal(folder, whole.folder)


def _written(folder: Path) -> tuple[object, str]:
    """By which a run is told from another: the fingerprint in its state, and its manifest."""
    run = folder / runs.NAME
    return json.loads((run / "state.json").read_text())["fingerprint"], (run / "manifest.resolved.toml").read_text()
