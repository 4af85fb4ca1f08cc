"""What a killed run has left beside and in its folder, and who may write to what a run makes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordcore.errors import InputError
from coordcore_train.run.folder import RunDir
from coordcore_train.run.session import _unwritable_by_others

KEY = "0123456789abcdef" * 2


def start(path: Path) -> None:
    with RunDir(path).prepared("", "f" * 64, path.parent, layout={}, content={}, overwrite=False):
        pass


def test_files_that_were_being_written_are_removed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(run)
    inside = run / "eval" / "count" / "step-2"
    inside.mkdir(parents=True)
    left = [run / f".{name}.{KEY}" for name in ("manifest.resolved.toml", "state.json", "metrics.jsonl")]
    left += [inside / f".metrics.json.{KEY}", inside.parent / f".metrics.json.{KEY}"]
    kept = [run / ".mine", inside / "metrics.json"]
    for path in (*left, *kept):
        path.touch()
    start(run)
    assert [path for path in left if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []


def test_a_run_that_was_being_replaced_is_removed(tmp_path: Path) -> None:
    old, others = tmp_path / f".run.{KEY}.old", tmp_path / f".run2.{KEY}.old"
    for folder in (old, others):
        (folder / "checkpoints").mkdir(parents=True)
    start(tmp_path / "run")
    assert (old.exists(), others.exists()) == (False, True)


def test_whoever_is_refused_removes_nothing_in_the_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(run)
    (run / f".state.json.{KEY}").touch()
    with RunDir(run).locked(), pytest.raises(InputError, match="another process works on the run"):
        start(run)
    assert (run / f".state.json.{KEY}").exists()


def test_others_cannot_write_to_a_run(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with _unwritable_by_others():
            start(tmp_path / "run")
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    made = [tmp_path / "run", *(tmp_path / "run").rglob("*")]
    assert len(made) > 3
    assert [path for path in made if path.stat().st_mode & 0o022] == []
