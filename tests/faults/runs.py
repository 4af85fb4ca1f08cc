"""Tiny runs to interrupt: the demo's shapes for eight steps, evaluated, with three checkpoints.

A run is forked from this process, which has torch and ms-swift loaded: a process of its own as any other, seconds
sooner. Under several ranks the launcher is what is forked; torchrun and the ranks are new interpreters.
"""

from __future__ import annotations

import logging
import os
import re
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import attrs
import psutil

MANIFEST = """\
requires = ["coordcore-coord-offset", "coordcore-coord-tokens", "coordcore-demo", "coordcore-detection"]
[model]
base = "package:coordcore_demo/tiny_qwen3vl"
dtype = "float32"
[vocab]
[data.shapes]
train_images = 30
validation_images = 6
[template.coord_template]
[surgery.coord_offset]
[loss.text_ce]
[loss.coord_soft_ce_w1]
sigma = 10.0
[eval.detection]
images = 4
max_objects = 2
[tuner]
rank = 4
[train]
steps = 8
batch_size = 4
eval_batch_size = 6
learning_rate = 3e-3
device = "cpu"
threads = 1
log_every = 1
save_every = 3
eval_every = 4
"""

NAME = "run"


def load() -> None:
    """Import what a run does, before the first fork."""
    for name in (
        "coordcore_detection.predict.loading",
        "coordcore_train.checkpoint.expand",
        "coordcore_train.checkpoint.merge.run",
        "coordcore_train.run.session",
        "coordcore_train.swift.pipeline",
        "swift.arguments",
        "transformers.models.qwen3_vl",
    ):
        import_module(name)


@attrs.define
class Running:
    """A run in a process of its own. Its output goes to `folder`/NUMBER.out and .err."""

    pid: int
    descriptor: int
    folder: Path
    err: Path
    started: float = attrs.Factory(time.monotonic)

    def wait(self, seconds: float = 300.0, until: Callable[[], bool] = lambda: False) -> int | None:
        """The exit code as a shell would give it; None when it goes on after `seconds`, or when `until` is true."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        end = time.monotonic() + seconds
        while not until():
            left = end - time.monotonic()
            if left <= 0:
                return None
            if poll.poll(min(left, 0.02 if seconds > 1 else left) * 1000):
                _, status = os.waitpid(self.pid, 0)
                os.close(self.descriptor)
                return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return None

    def family(self) -> list[psutil.Process]:
        """The processes that it has started, and those that they have."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)


def start(folder: Path, *options: str, manifest: str = "m.toml") -> Running:
    """`coordcore run MANIFEST --output run OPTIONS` in `folder`."""
    number = len(list(folder.glob("*.err")))
    out, err = folder / f"{number}.out", folder / f"{number}.err"
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.chdir(folder)
            _streams(out, err)
            code = _coordcore(["run", manifest, "--output", NAME, *options])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            sys.stdout.flush()
            os._exit(code)
    return Running(pid, os.pidfd_open(pid), folder, err)


def _streams(out: Path, err: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, path in ((1, out), (2, err)):
        opened = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False, buffering=1)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    for reference in logging._handlerList:  # they were made for the parent's streams
        handler = reference()
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setStream(sys.stderr)


def _coordcore(arguments: list[str]) -> int:
    from coordcore.cli import app

    try:
        app(args=arguments, prog_name="coordcore")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0


def finish(folder: Path, *options: str) -> None:
    """Give the same command until it says that the run is done."""
    run = start(folder, *options)
    code = run.wait()
    told = run.err.read_text(errors="replace")
    assert code == 0 or "holds a finished run" in told, f"exit code {code}: {told[-3000:]}"


def finish_when_free(folder: Path, *options: str) -> None:
    """As `finish`, where ranks of a killed launcher may hold the folder a while: then the command is refused."""
    end = time.monotonic() + 120 * load_factor()
    while time.monotonic() < end:
        run = start(folder, *options)
        code = run.wait()
        told = run.err.read_text(errors="replace")
        if "another process works on the run" not in told:
            assert code == 0 or "holds a finished run" in told, f"exit code {code}: {told[-3000:]}"
            return
    raise AssertionError("the folder is held for ever")


def made(folder: Path) -> dict[str, bytes]:
    """What a finished run has to show: weights, optimizer, metrics, predictions. Paths in them are made equal."""
    run = folder / NAME
    patterns = (
        "checkpoints/checkpoint-*/*.safetensors", "checkpoints/checkpoint-*/optimizer.pt", "metrics.jsonl",
        "checkpoints/checkpoint-*/scheduler.pt", "merged/*.safetensors", "eval/*/predictions.jsonl",
        "eval/*/metrics.json",
    )  # fmt: skip
    found = {str(path.relative_to(run)): path for pattern in patterns for path in sorted(run.glob(pattern))}
    return {name: _without_place(path.read_bytes(), folder) for name, path in found.items()}


def _without_place(data: bytes, folder: Path) -> bytes:
    """Less the folder's name and the digest of the weights' file, which is of its time."""
    return re.sub(rb'"weights":"[0-9a-f]{16}"', b"", data.replace(str(folder).encode(), b"FOLDER"))


def require_equal(folder: Path, whole: Path) -> None:
    """What an interrupted run made is, byte for byte, what the uninterrupted one made. Nothing else is left."""
    expected, actual = made(whole), made(folder)
    assert sorted(actual) == sorted(expected), f"{sorted(actual)} instead of {sorted(expected)}"
    differ = [name for name in expected if actual[name] != expected[name]]
    assert not differ, f"differ from the uninterrupted run's: {differ}"
    left = [str(path.relative_to(folder)) for path in (folder / NAME).rglob(".*") if path.name != ".lock"]
    left += [path.name for path in folder.glob(".*")]
    assert not left, f"left behind: {left}"


def load_factor() -> float:
    """How many times longer than its work takes a process waits, as others share the machine: 1 on a quiet one."""
    wall, work = time.perf_counter(), time.process_time()
    sum(range(2_000_000))
    return max(1.0, (time.perf_counter() - wall) / max(time.process_time() - work, 1e-3))


def gone(processes: list[psutil.Process], seconds: float) -> list[str]:
    """The command lines of those that still live after `seconds` of a quiet machine."""
    _, alive = psutil.wait_procs(processes, timeout=seconds * load_factor())
    return [" ".join(command_line(process)[:6]) for process in alive if process.is_running()]


def command_line(process: psutil.Process) -> list[str]:
    """[] of a process that has ended, whether somebody has taken notice of it or not."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
