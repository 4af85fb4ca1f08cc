"""Bases, run folders and their checkpoints with damaged files: expanded, merged, continued."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import runs
from command import breaches, invoke
from furnish import work_folder
from mutate import Mutator, json_bytes

HANG = 40
"""These do real work: seconds of it, where nothing is damaged."""

_FOLDERS: dict[str, Path] = {}
_KEPT = tempfile.TemporaryDirectory(prefix="faults-run-")


def warm() -> None:
    """Train a run to damage, and expand nothing yet: what is forked has all that is needed loaded."""
    runs.load()
    folder = Path(_KEPT.name)
    (folder / "m.toml").write_text(runs.MANIFEST.replace("steps = 8", "steps = 4"))
    runs.finish(folder, "--set", "output.merge=false", "--set", 'drop=["eval"]', "--set", "train.save_every=2")
    import coordcore_demo

    _FOLDERS["base"] = Path(coordcore_demo.__file__).parent / "tiny_qwen3vl"
    _FOLDERS["run"] = folder / runs.NAME


def case(seed: int, folder: Path) -> list[str]:
    """One damaged file, or two."""
    work = work_folder(folder)
    rng = Random(f"checkpoints:{seed}")
    mutator = Mutator(rng)
    how = rng.choice(("expand", "expand", "merge", "merge", "continue"))
    shutil.copytree(_FOLDERS["base"] if how == "expand" else _FOLDERS["run"], work / "in")
    if how == "continue":
        _unfinish(work / "in")
    for _ in range(rng.choice((1, 1, 1, 2))):
        _damage(work, mutator)
    if how == "continue":
        shutil.copy(_FOLDERS["run"].parent / "m.toml", work)
        ended = invoke(["run", "m.toml", "--output", "in", "--set", "output.merge=false", "--set", 'drop=["eval"]',
                        "--set", "train.save_every=2"], folder, "; ".join(mutator.notes))  # fmt: skip
        return [breach for breach in breaches(ended) if not breach.startswith(("left behind", "changed"))] + _executed(
            work
        )
    ended = invoke([how, "in", "--output", "out"], folder, "; ".join(mutator.notes))
    found = breaches(ended, outputs=[name for name in ended.new if name.startswith("out")])
    return found + _executed(work)


def furnish(work: Path, *, unfinished: bool) -> None:
    """A base, a run, finished or cut off, and the manifest that continues it, undamaged."""
    shutil.copytree(_FOLDERS["base"], work / "base")
    shutil.copytree(_FOLDERS["run"], work / "run")
    shutil.copy(_FOLDERS["run"].parent / "m.toml", work / "cont.toml")
    if unfinished:
        _unfinish(work / "run")


def _unfinish(run: Path) -> None:
    """Make of a run what it was after its second step."""
    state = json.loads((run / "state.json").read_text())
    (run / "state.json").write_text(json.dumps({**state, "done": False, "trained": False}))
    shutil.rmtree(run / "checkpoints" / "checkpoint-4")


def _damage(work: Path, mutator: Mutator) -> None:
    rng = mutator.rng
    files = sorted(path for path in (work / "in").rglob("*") if path.is_file() and path.stat().st_size)
    if not files:
        return
    path = rng.choice(files)
    mutator.notes.append(str(path.relative_to(work)))
    how = rng.choice(("remove", "folder", "fifo", "endless", "loop", "pickle") + ("content",) * 8)
    if how == "content":
        data = path.read_bytes()
        try:
            is_tree = path.suffix == ".json" and rng.random() < 0.7
            data = json_bytes(mutator.tree(json.loads(data))) if is_tree else _spoilt(data, mutator)
        except ValueError:  # it has a mistake already
            data = _spoilt(data, mutator)
        path.unlink()
        path.write_bytes(data)
        return
    mutator.notes.append(how)
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    elif how in ("endless", "loop"):
        path.symlink_to("/dev/zero" if how == "endless" else path.name)
    elif how == "pickle":
        path.write_bytes(pickle.dumps(_Bomb(str(work / "EXECUTED"))))


def _spoilt(data: bytes, mutator: Mutator) -> bytes:
    """A mistake near the beginning, where headers are, or anywhere."""
    if mutator.rng.random() < 0.6:
        return mutator.bytes(data[:2000], data) + data[2000:]
    return mutator.bytes(data, data)


class _Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def _executed(work: Path) -> list[str]:
    return ["code in a file was executed"] if (work / "EXECUTED").exists() else []
