"""Small runs of the demo on ranks that are forked from this process, which has torch and ms-swift loaded.

Each rank joins as under a launcher of the user's own (RANK, WORLD_SIZE ...); a new interpreter would take ten seconds.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from coordcore_train.run.folder import RunDir

KINDS: Mapping[str, tuple[str, ...]] = {
    "fsdp2": ("launch.fsdp=fsdp2",),
    "zero1": ("launch.deepspeed=zero1",),
    "zero2": ("launch.deepspeed=zero2",),
    "zero3": ("launch.deepspeed=zero3",),
}
"""How a run is sharded, and what says so."""

LONGEST = 900.0
"""Seconds after which ranks that wait for each other are ended."""

TUNERS = ("lora", "full")

MANIFEST = """\
requires = ["coordcore-coord-offset", "coordcore-coord-tokens", "coordcore-demo", "coordcore-multimodal-optimizer"]
[model]
base = "package:coordcore_demo/tiny_qwen3vl"
dtype = "float32"
[vocab]
[data.shapes]
train_images = 60
validation_images = 6
[template.coord_template]
[surgery.coord_offset]
[loss.text_ce]
[loss.coord_soft_ce_w1]
sigma = 10.0
[optimizer.multimodal_coord_offset]
offset_lr = 1e-2
[tuner]
rank = 4
[train]
steps = 5
batch_size = 2
accumulation = 2
eval_batch_size = 6
learning_rate = 3e-3
device = "cpu"
threads = 1
log_every = 1
save_every = 2
eval_every = 3
"""
"""docs/examples/shapes.toml in small. An evaluation comes just before no save, and a save just after none."""


def load() -> None:
    """Import what a run does, before the first fork."""
    for name in (
        "coordcore_train.checkpoint.expand",
        "coordcore_train.checkpoint.merge.run",
        "coordcore_train.run.session",
        "coordcore_train.swift.pipeline",
        "coordcore_train.swift.trainer",
        "swift.arguments",
        "transformers.models.qwen3_vl",
        *(["deepspeed"] if find_spec("deepspeed") else []),
    ):
        import_module(name)


def run(folder: Path, *settings: str, ranks: int = 2, kill: Callable[[], bool] | None = None) -> list[int]:
    """`coordcore run` in `folder`/run; the exit code of each rank, minus the signal of one that was ended by it.

    settings: in the form of `--set`. kill: when it becomes true the last rank is ended by kill -9. The others are
    ended when one fails, as a launcher does it. What rank N said lies in `folder`/N.log.
    """
    manifest = folder / "m.toml"
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write_text(MANIFEST)
    port = free_port()
    sys.stdout.flush()
    sys.stderr.flush()
    started = [_start(rank, ranks, port, folder, manifest, settings) for rank in range(ranks)]
    descriptors = {os.pidfd_open(pid): rank for rank, pid in enumerate(started)}
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    codes: dict[int, int] = {}
    end = time.monotonic() + LONGEST
    while len(codes) < ranks:
        if kill is not None and kill():
            os.kill(started[-1], signal.SIGKILL)
            kill = None
        ended = [descriptors[descriptor] for descriptor, _ in poll.poll(10)]
        for rank in ended:
            codes[rank] = os.waitstatus_to_exitcode(os.waitpid(started[rank], 0)[1])
            poll.unregister(next(descriptor for descriptor, other in descriptors.items() if other == rank))
        if any(codes[rank] for rank in ended) or time.monotonic() > end:
            for other in set(range(ranks)) - codes.keys():
                os.kill(started[other], signal.SIGKILL)
    for descriptor in descriptors:
        os.close(descriptor)
    return [codes[rank] for rank in range(ranks)]


def _start(rank: int, ranks: int, port: int, folder: Path, manifest: Path, settings: tuple[str, ...]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(folder / f"{rank}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        _write_to(log)
        if ranks > 1:
            number, count = str(rank), str(ranks)
            os.environ.update(RANK=number, LOCAL_RANK=number, WORLD_SIZE=count, LOCAL_WORLD_SIZE=count)
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        code = coordcore(["run", str(manifest), "--output", str(folder / "run"), *_options(settings)])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _write_to(log: int) -> None:
    """Whatever pytest has put in the place of the streams of this process."""
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False, buffering=1)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115


def _options(settings: tuple[str, ...]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def coordcore(arguments: list[str]) -> int:
    from coordcore.cli import app

    try:
        app(args=arguments, prog_name="coordcore")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def train(folder: Path, *settings: str, ranks: int = 2) -> RunDir:
    """A run that ends well."""
    codes = run(folder, *settings, ranks=ranks)
    assert codes == [0] * ranks, said(folder)
    return RunDir(folder / "run")


def said(folder: Path) -> str:
    return "\n".join(f"{file.name}: {file.read_text()[-3000:]}" for file in sorted(folder.glob("*.log")))


# --- what a run left --------------------------------------------------------------------------------------------------


def steps_logged(run: RunDir) -> int:
    """Of a run that may be writing just now."""
    with suppress(OSError):
        return sum('"loss"' in line for line in run.metrics.read_text().splitlines())
    return 0


def losses(run: RunDir) -> list[float]:
    """Every part of the loss, of training and evaluations, step by step."""
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [value for line in lines for key, value in sorted(line.items()) if "loss" in key or "/" in key]


def trained(run: RunDir) -> dict[str, Tensor]:
    """The tensors of the newest checkpoint."""
    checkpoint = run.last_checkpoint()
    assert checkpoint is not None
    return _tensors(checkpoint)


def merged(run: RunDir) -> dict[str, Tensor]:
    return _tensors(run.merged)


def _tensors(folder: Path) -> dict[str, Tensor]:
    return {key: item for file in sorted(folder.glob("*.safetensors")) for key, item in load_file(file).items()}
