"""The run folder: what lies in it, whether it may be used, and where an interrupted run continues. Torch-free."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import attrs

from coordcore.records import InputError

MANIFEST = "manifest.resolved.toml"
STATE = "state.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
PARTIAL = ".partial"
MERGED = "merged"
SWIFT_PLUGIN = "swift_plugin.py"

_PLUGIN_TEXT = '''"""Registers this run's model, template, loss, optimizer and trainer with ms-swift.

Use it with the stock commands: `swift infer --adapters CHECKPOINT` finds it by itself (args.json names it),
`swift sft --external_plugins THIS_FILE --model_type coordcore_qwen3_vl ...` trains with it.
"""

from pathlib import Path

from coordcore.engine.register import register_run

register_run(Path(__file__).resolve().parent)
'''


@attrs.frozen
class RunDir:
    """The folder of one run. Nothing in it is trusted unless it is complete."""

    path: Path

    @property
    def manifest(self) -> Path:
        return self.path / MANIFEST

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def partial(self) -> Path:
        """Where a checkpoint is written before it is renamed into `checkpoints`."""
        return self.path / CHECKPOINTS / PARTIAL

    @property
    def merged(self) -> Path:
        return self.path / MERGED

    @property
    def swift_plugin(self) -> Path:
        return self.path / SWIFT_PLUGIN

    def state(self) -> Mapping[str, object]:
        """What is known of the run: its fingerprint, its base checkpoint, and whether training is done."""
        path = self.path / STATE
        if not path.exists():
            return {}
        state = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(state, dict)
        return state

    def write_state(self, **changes: object) -> None:
        """Update `state.json`, whole or not at all."""
        write_whole(self.path / STATE, json.dumps({**self.state(), **changes}, indent=2) + "\n")

    def prepare(self, manifest_text: str, fingerprint: str, base: Path, *, overwrite: bool) -> bool:
        """Make the folder ready, and say whether it continues an interrupted run of the same manifest.

        Raises InputError when it holds something else: a finished run, another manifest's run, or foreign files.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"output.dir: {self.path} is a file; name another folder")
        state = self.state() if self.path.is_dir() else {}
        resumed = False
        if overwrite and state:
            shutil.rmtree(self.path)
        elif self.path.is_dir() and any(self.path.iterdir()):
            cure = "name another folder with --output, or replace it with --overwrite"
            if not state:
                raise InputError(f"output.dir: {self.path} exists and holds no coordcore run; name another folder")
            if state.get("fingerprint") != fingerprint:
                raise InputError(f"output.dir: {self.path} holds a run of another manifest; {cure}")
            if state.get("done"):
                raise InputError(f"output.dir: {self.path} holds a finished run of this manifest; {cure}")
            resumed = True
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_whole(self.manifest, manifest_text)
        write_whole(self.swift_plugin, _PLUGIN_TEXT)
        self.write_state(fingerprint=fingerprint, base=str(base), done=False)
        return resumed

    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint of the run."""
        return newest_checkpoint(self.checkpoints)

    def discard_after(self, step: int) -> None:
        """Forget what an interrupted run wrote beyond `step`: half-written checkpoints and logged metrics."""
        shutil.rmtree(self.partial, ignore_errors=True)
        for path in self.checkpoints.glob("checkpoint-*"):
            if checkpoint_step(path) > step or not (path / "trainer_state.json").is_file():
                shutil.rmtree(path)
        if self.metrics.exists():
            kept = []
            for line in self.metrics.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:  # the line that was being written when the run was cut off
                    continue
                if entry["step"] <= step:
                    kept.append(line + "\n")
            write_whole(self.metrics, "".join(kept))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in a folder; one is complete when it holds the trainer state, written last."""
    found = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    return max(found, key=checkpoint_step, default=None)


def checkpoint_step(path: Path) -> int:
    """The step of a folder named "checkpoint-<step>"."""
    return int(path.name.rpartition("-")[2])


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
