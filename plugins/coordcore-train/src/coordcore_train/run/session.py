"""`coordcore run`: prepare the folder, train in this process or under torchrun, merge."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from coordcore.manifest import Loaded, load
from coordcore_train.run import launch
from coordcore_train.run.evaluate import evaluate
from coordcore_train.run.folder import RunDir
from coordcore_train.run.prepare import (
    on_cpu,
    plan_of,
    prepare,
    require_visible,
    run_folder,
    set_threads,
    wait_until_visible,
)
from coordcore_train.run.quiet import quiet_transformers


def run(loaded: Loaded, *, output: Path | None = None, overwrite: bool = False) -> Path:
    """Run a manifest to its merged checkpoint, continuing an interrupted run; returns the run folder.

    Raises InputError for wrong input, RunError when the run fails.
    """
    folder = RunDir(run_folder(loaded, output))
    set_threads(loaded.manifest.train.threads)
    if launch.under_launcher():
        _join(loaded)
        resumed = _prepare_in_turn(loaded, folder, overwrite=overwrite)
    elif loaded.manifest.launch.node_rank == 0:
        resumed = prepare(loaded, folder, overwrite=overwrite)
    else:
        resumed = wait_until_visible(loaded.manifest, folder)
    error: BaseException | None = None
    try:
        with folder.locked() if launch.rank() == 0 and loaded.manifest.launch.node_rank == 0 else nullcontext():
            _train_and_merge(loaded, folder, Console(), resumed=resumed)
    except BaseException as caught:
        error = caught
        raise
    finally:
        if launch.rank() == 0:
            loaded.hooks.run_ended(folder.path, error)
    return folder.path


def _train_and_merge(loaded: Loaded, folder: RunDir, console: Console, *, resumed: bool) -> None:
    manifest = loaded.manifest
    started = time.monotonic()
    if launch.rank() == 0:
        _announce(console, loaded, folder, resumed)
    if not folder.state().get("trained"):
        if launch.wants_launch(manifest.launch):
            launch.torchrun(folder.path, manifest.launch, manifest.train)
        else:
            train_prepared(folder.path, loaded)
    launch.barrier()
    launch.stop_process_group()
    if launch.rank() != 0 or manifest.launch.node_rank != 0:
        return
    folder.write_state(trained=True)
    if manifest.output.merge and not folder.merged.exists():
        from coordcore_train.checkpoint.merge.run import merge_run

        console.print("merge    adapters into the base", highlight=False)
        # The run had the model in memory, so there is room for the comparison of whole models.
        report = merge_run(folder.path, folder.merged, compare_logits=True)
        for line in report.checks:
            console.print(f"merge    {line}", highlight=False, markup=False, soft_wrap=True)
    evaluate(loaded, folder, console)
    folder.write_state(done=True)
    result = folder.merged if manifest.output.merge else folder.last_checkpoint()
    seconds = f"{time.monotonic() - started:.0f} s"
    console.print(f"done     {result}  ({seconds})", highlight=False, markup=False, soft_wrap=True)


def _join(loaded: Loaded) -> None:
    """Join the other ranks a launcher started."""
    launch.start_process_group(cpu=on_cpu(loaded.manifest))


def _prepare_in_turn(loaded: Loaded, folder: RunDir, *, overwrite: bool) -> bool:
    """Rank 0 prepares the folder, which every node must see."""
    resumed = launch.rank() == 0 and prepare(loaded, folder, overwrite=overwrite)
    launch.barrier()
    require_visible(loaded.manifest, folder)
    return resumed


def _announce(console: Console, loaded: Loaded, folder: RunDir, resumed: bool) -> None:
    last = folder.last_checkpoint()
    where = f"continues from {last.name}" if resumed and last is not None else "starts again" if resumed else "new run"
    console.print(f"run      {loaded.manifest.name}: {where}", highlight=False, markup=False)
    console.print(f"folder   {folder.path}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"base     {folder.state()['base']}", highlight=False, markup=False, soft_wrap=True)


def train_prepared(run_dir: Path, loaded: Loaded | None = None) -> None:
    """Train the run that lies prepared in `run_dir`, in this process, as one rank or the only one."""
    folder = RunDir(run_dir)
    loaded = load(folder.manifest) if loaded is None else loaded
    manifest = loaded.manifest
    set_threads(manifest.train.threads)
    if not launch.under_launcher():
        os.environ.update(launch.one_gpu_per_rank(1))
    _join(loaded)

    from coordcore_train.swift.active import activate
    from coordcore_train.swift.pipeline import train
    from coordcore_train.swift.register import register

    quiet_transformers()
    base = Path(str(folder.state()["base"]))
    plan = plan_of(manifest, run_dir, base)
    register()
    activate(plan)
    train(plan, loaded.hooks, Console())
