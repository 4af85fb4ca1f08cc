"""Where a run computes: its device, threads and processes, whoever started them. Torch-free to import."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from coordcore.errors import InputError, RunError
from coordcore.manifest.sections import Launch, Manifest, Train
from coordcore_train.run import failures

PARENT = "COORDCORE_PARENT"
"""The environment variable in which a process of a launched run finds the id of the one that started it."""

_PR_SET_PDEATHSIG = 1


def on_cpu(manifest: Manifest) -> bool:
    """Whether the run is on the CPU."""
    if manifest.train.device == "cpu":
        return True
    import torch

    return not torch.cuda.is_available()


def require_device(manifest: Manifest) -> None:
    """Raise InputError when a GPU is asked for and there is none."""
    import torch

    if manifest.train.device == "cuda" and not torch.cuda.is_available():
        raise InputError('train.device: "cuda", but torch sees no GPU; set "auto" or "cpu"')


def set_threads(threads: int | None) -> None:
    """CPU threads of this process; several ranks on one machine otherwise fight over its cores."""
    if threads is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)


def under_launcher() -> bool:
    """Whether torchrun, or a scheduler that sets the same variables, started this process."""
    return bool(os.environ.get("RANK") and os.environ.get("WORLD_SIZE"))


def rank() -> int:
    return _of_launcher("RANK", 0)


def local_rank() -> int:
    return _of_launcher("LOCAL_RANK", 0)


def world_size() -> int:
    return _of_launcher("WORLD_SIZE", 1)


def _of_launcher(name: str, otherwise: int) -> int:
    return int(os.environ.get(name) or otherwise) if under_launcher() else otherwise


def is_first() -> bool:
    """Whether this process is rank 0: the one that writes, logs and merges."""
    return rank() == 0


def leads(launch: Launch) -> bool:
    """Whether this process is the first of the whole run: it merges, evaluates, and tells plugins that the run is over.

    `coordcore run` on another node, which starts torchrun itself, has no rank yet.
    """
    return is_first() and (under_launcher() or launch.node_rank == 0)


def require_own_task(launch: Launch) -> None:
    """Raise InputError for half a rank, and for one of several tasks of `srun` that is no rank and no node."""
    if under_launcher():
        return
    if halves := [name for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name in os.environ]:
        raise InputError(
            f"{' and '.join(halves)} set in the environment, and not RANK and WORLD_SIZE both, as torchrun does: unset "
            "what is there, or start with torchrun"
        )
    task, tasks = os.environ.get("SLURM_PROCID") or "0", os.environ.get("SLURM_STEP_NUM_TASKS") or "1"
    if tasks == "1":
        return
    settings = "launch.nnodes, node_rank, master_addr and master_port (docs/how-to/several-gpus.md, SLURM)"
    if tasks != str(launch.nnodes):
        raise InputError(
            f"srun has started {tasks} tasks, and a run joins none that has no RANK and WORLD_SIZE: start one task a "
            f"node, each with its own {settings}; in a shell that srun has opened, unset SLURM_STEP_NUM_TASKS"
        )
    if task != "0" and launch.node_rank == 0:
        raise InputError(
            f"task {task} of srun says that it is node 0, which task 0 is: each task wants its own {settings}; SLURM's "
            "variables are a task's own only in the quotes of `srun bash -c '...'`"
        )


def wants_launch(launch: Launch) -> bool:
    """Whether the manifest asks for several processes and nobody has started them yet."""
    return launch.nproc_per_node * launch.nnodes > 1 and not under_launcher()


def torchrun(run_dir: Path, launch: Launch, train: Train) -> None:
    """Train the prepared run in `run_dir` under torchrun, by `worker`.

    Raises what the first failing rank of this node raised, RunError when it could not say.
    """
    port = launch.master_port or _free_port()
    command = [
        *(sys.executable, "-m", "coordcore_train.run.torchrun"),
        f"--nproc_per_node={launch.nproc_per_node}",
        f"--nnodes={launch.nnodes}",
        f"--node_rank={launch.node_rank}",
        f"--master_addr={launch.master_addr}",
        f"--master_port={port}",
        *("-m", "coordcore_train.run.worker", str(run_dir)),
    ]
    environment = {**os.environ, **one_gpu_per_rank(launch.nproc_per_node)}
    if train.threads is not None:
        environment["OMP_NUM_THREADS"] = str(train.threads)
    else:
        environment.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="coordcore-") as folder:
        code = _watched(command, {**environment, failures.FOLDER: folder})
        if code:
            failures.raise_first(Path(folder))
            raise RunError(f"a rank failed (torchrun exit code {code}); its message stands above")


def _watched(command: list[str], environment: dict[str, str]) -> int:
    """The exit code of torchrun, to which the signals that this process gets are passed on."""
    # Ctrl-C goes to every process of a terminal, and Python prints a traceback even while it starts: only this one
    # listens, and ends the others. What is blocked here is blocked in all that is started from here.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = subprocess.Popen(command, env={**environment, PARENT: str(os.getpid())})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def end(*_: object) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    # A scheduler ends a job with SIGTERM: pass it on, or the ranks would live on without us.
    before = signal.signal(signal.SIGTERM, end)
    try:
        return process.wait()
    except BaseException:
        # torchrun forwards the signal to its ranks and waits for them.
        process.terminate()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def die_with_parent() -> None:
    """End this process when the one that started it ends, even by kill -9: two trainings would write to one folder.

    Only where the kernel can (Linux, `man 2 PR_SET_PDEATHSIG`).
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "prctl"):
        return
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.environ.get(PARENT, str(os.getppid())) != str(os.getppid()):  # it ended before that
        os.kill(os.getpid(), signal.SIGKILL)
    os.environ[PARENT] = str(os.getpid())  # of what this process starts


def one_gpu_per_rank(ranks: int) -> dict[str, str]:
    """The variable that shows this node's ranks no more GPUs than they are.

    With GPUs to spare ms-swift splits the model over them (device_map "auto"), or transformers runs DataParallel.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [str(index) for index in range(ranks)] if visible is None else visible.split(",")[:ranks]
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_process_group(manifest: Manifest) -> None:
    """Join the ranks before anything is built, so that one of them can prepare while the others wait.

    They wait as well while the first evaluates a checkpoint, `launch.timeout` seconds at most.
    """
    import torch
    import torch.distributed as dist

    if world_size() == 1 or dist.is_initialized():
        return
    cpu = on_cpu(manifest)
    if not cpu:
        torch.cuda.set_device(local_rank())
    patience = timedelta(seconds=manifest.launch.timeout)
    # Full state dicts of FSDP are gathered on the CPU, which nccl cannot.
    dist.init_process_group("gloo" if cpu else "cpu:gloo,cuda:nccl", timeout=patience)


def barrier() -> None:
    """Wait for every rank."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()


def stop_process_group() -> None:
    """Leave the group, so that the other ranks can exit while rank 0 merges."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def end_process(code: int) -> NoReturn:
    """End a rank with this exit code, past Python's own way out.

    gloo's threads may still let go of tensors, for which they need Python; where it is just ending, that aborts the
    process (SIGABRT after training was done), and torchrun then ends the other ranks.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
