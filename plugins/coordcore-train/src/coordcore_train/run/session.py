"""`coordcore run` from its manifest to the merged checkpoint: prepare, train, merge, evaluate. Torch-free to import.

1. `run` makes the run folder ready, once for all ranks (`_prepare`), and holds it from before it writes to the end.
2. `train` builds the plan and hands it to the engine, in this process or, started by torchrun, in one for each rank.
3. Rank 0 merges the last checkpoint, and calls the evaluators.
4. The plugins that the run names are told how it ended.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import tomli
from rich.console import Console

from coordcore.errors import InputError, RunError, printable
from coordcore.manifest import Loaded, Manifest, load
from coordcore.manifest.types import show
from coordcore_train.checkpoint.base import base_checkpoint
from coordcore_train.checkpoint.origin import read_origin, require_own
from coordcore_train.engine import engine_of
from coordcore_train.run import launch
from coordcore_train.run.content import changed, content_of, content_of_base
from coordcore_train.run.folder import RunDir, checkpoint_step
from coordcore_train.run.quiet import quiet, quiet_transformers
from coordcore_train.run.resolved import determining, fingerprint, resolved

if TYPE_CHECKING:
    from transformers import TrainerCallback


def run(loaded: Loaded, *, output: Path | None = None, overwrite: bool = False) -> Path:
    """Run a manifest to its merged checkpoint, continuing an interrupted run; returns the run folder.

    output: the run folder, instead of the manifest's. overwrite: begin anew where there is a run already.
    Raises InputError for wrong input, RunError when the run fails.
    """
    quiet()
    manifest = loaded.manifest
    folder = RunDir(Path(output or manifest.output.dir or Path("runs") / manifest.name).absolute())
    launch.require_own_task(manifest.launch)
    launch.set_threads(manifest.train.threads)
    with _unwritable_by_others(), ExitStack() as held:
        resumed = _prepare(loaded, folder, held, overwrite=overwrite)
        try:
            _train_and_merge(loaded, folder, resumed=resumed)
        except BaseException as error:
            _tell_of_failure(loaded, folder, error)
            raise
    if launch.leads(manifest.launch):
        loaded.hooks.run_ended(folder.path, None)
    return folder.path


@contextmanager
def _unwritable_by_others() -> Iterator[None]:
    """Keep others from writing to what is made here, whatever the user's umask says: a run goes on from it."""
    before = os.umask(0o022)
    os.umask(before | 0o022)
    try:
        yield
    finally:
        os.umask(before)


def _tell_of_failure(loaded: Loaded, folder: RunDir, error: BaseException) -> None:
    """Tell the plugins. One that fails at it is named, and must not stand in for what ended the run."""
    if launch.leads(loaded.manifest.launch):
        try:
            loaded.hooks.run_ended(folder.path, error)
        except RunError as fault:
            error.add_note(str(fault))
            Console(stderr=True).print(f"coordcore: {fault}", highlight=False, markup=False, soft_wrap=True)


# --- the folder, ready for every rank -------------------------------------------------------------------------------


def _prepare(loaded: Loaded, folder: RunDir, held: ExitStack, *, overwrite: bool) -> bool:
    """Make the run folder ready for every rank and node; whether it continues an interrupted run.

    held: takes the lock of the folder, before anything is written.
    """
    if launch.under_launcher():
        launch.start_process_group(loaded.manifest)
        resumed = launch.is_first() and held.enter_context(prepared_folder(loaded, folder, overwrite=overwrite))
        launch.barrier()
        _require_visible(loaded.manifest, folder)
        return resumed
    if loaded.manifest.launch.node_rank == 0:
        return held.enter_context(prepared_folder(loaded, folder, overwrite=overwrite))
    return _wait_until_visible(loaded.manifest, folder)


def prepared_folder(loaded: Loaded, folder: RunDir, *, overwrite: bool) -> AbstractContextManager[bool]:
    """Find or make the base checkpoint; then write the run folder and hold it. True when it continues a run."""
    manifest = loaded.manifest
    launch.require_device(manifest)
    base = base_checkpoint(manifest)
    if overwrite:
        _require_outside(folder, [base, loaded.file])
    asked = manifest.launch.nproc_per_node * manifest.launch.nnodes
    layout = {
        "ranks": launch.world_size() if launch.under_launcher() else asked,
        "deepspeed": manifest.launch.deepspeed,
        "fsdp": manifest.launch.fsdp,
    }
    manifest_text = resolved(manifest, loaded.plugins)
    content = content_of(manifest, folder.state().get("content") if folder.path.is_dir() else None)
    own_fingerprint = fingerprint(manifest)
    content = {**content, **content_of_base(base if overwrite else folder.base_of(own_fingerprint, base))}
    if not overwrite and (word := other_versions(folder, manifest_text)):
        _say(word)
    return folder.prepared(
        manifest_text,
        own_fingerprint,
        base,
        layout=layout,
        content=content,
        overwrite=overwrite,
        differs=lambda: difference(folder, manifest),
    )


def difference(folder: RunDir, manifest: Manifest) -> str:
    """In brackets, the first key of which a manifest says something else than that of the run in `folder` did.

    Empty where that one cannot be read.
    """
    try:
        made = dict(_leaves(determining(load(folder.manifest).manifest)))
    except InputError:  # as when a plugin of it is gone: that it is another is certain all the same
        return ""
    now = dict(_leaves(determining(manifest)))
    path = next((path for path in {**made, **now} if made.get(path) != now.get(path)), None)
    if path is None:
        return ""
    was, says = (show(table[path]) if path in table else "absent" for table in (made, now))
    return f" ({path} was {was}, is {says})"


def _leaves(table: Mapping[str, object], path: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def other_versions(folder: RunDir, text: str) -> str:
    """A word about what is of another version than when the run's last part began, empty where nothing is.

    text: of the resolved manifest now. They may compute something else, which no fingerprint of settings tells.
    """
    if folder.last_checkpoint() is None or not folder.manifest.is_file():
        return ""
    made, makes = (_versions(document) for document in (folder.manifest.read_text(encoding="utf-8"), text))
    changed = [
        f"{name} was {made[name]}, is {makes[name]}" for name in makes if made.get(name, makes[name]) != makes[name]
    ]
    if not changed:
        return ""
    return (
        f"{folder.path}: goes on with other versions than its last part had ({'; '.join(changed)}): if they compute "
        "something else, install the old ones, or start again with --overwrite"
    )


def _versions(text: str) -> dict[str, str]:
    try:
        record = tomli.loads(text).get("resolved", {})
        return {"coordcore": record["coordcore"], **record["plugins"]}
    except (tomli.TOMLDecodeError, KeyError, TypeError):  # somebody's edit: the record is no part of the manifest
        return {}


def _require_outside(folder: RunDir, needed: list[Path]) -> None:
    """Raise InputError when --overwrite would delete what the run starts from."""
    for path in needed:
        if path.resolve().is_relative_to(folder.path.resolve()):
            raise InputError(
                f"output.dir: {path} lies in {folder.path}, which --overwrite would delete; name another folder"
            )


def _require_visible(manifest: Manifest, folder: RunDir) -> None:
    """Raise InputError unless this node sees the run folder that rank 0 prepared."""
    if folder.state().get("fingerprint") != fingerprint(manifest):
        raise InputError(
            f"output.dir: {folder.path} on {socket.gethostname()} is not the folder that node 0 prepared; "
            "put it on a file system that all nodes share"
        )


def require_same_data(manifest: Manifest, folder: RunDir) -> None:
    """Raise InputError unless this rank's data files hold what rank 0's held when it prepared the run."""
    earlier = folder.state().get("content")
    if word := changed(content_of(manifest, earlier), earlier):
        raise InputError(
            f"{word} on rank 0, but another file on rank {launch.rank()} ({socket.gethostname()}): every rank would "
            "train on rows of its own; put the data on a file system that all nodes share, or copy it anew"
        )


def _wait_until_visible(manifest: Manifest, folder: RunDir, *, seconds: float = 300.0) -> bool:
    """Wait, on another node than 0, until node 0 has prepared the shared folder. Raises InputError when it does not."""
    give_up = time.monotonic() + seconds
    while folder.state().get("fingerprint") != fingerprint(manifest) or folder.state().get("done"):
        if time.monotonic() > give_up:
            _require_visible(manifest, folder)
            raise InputError(f"output.dir: {folder.path} holds a finished run; start node 0 with --overwrite")
        time.sleep(1.0)
    return folder.last_checkpoint() is not None


# --- training and what follows --------------------------------------------------------------------------------------


def _train_and_merge(loaded: Loaded, folder: RunDir, *, resumed: bool) -> None:
    """Train on every rank and node; on the first of all merge, and call the evaluators."""
    manifest, console = loaded.manifest, Console()
    started = time.monotonic()
    if launch.is_first():
        _announce(console, manifest, folder, resumed)
    if not folder.state().get("trained"):
        if launch.wants_launch(manifest.launch):
            launch.torchrun(folder.path, manifest.launch, manifest.train)
        else:
            train(folder, loaded)
    launch.barrier()
    launch.stop_process_group()
    if not launch.leads(manifest.launch):
        return
    folder.write_state(trained=True)
    if text := nothing_moved(manifest, folder):
        console.print(f"warning  {text}", highlight=False, markup=False, soft_wrap=True)
    if manifest.output.merge and not folder.merged.exists():
        from coordcore_train.checkpoint.merge.run import merge_run

        console.print("merge    what was trained into the base", highlight=False)
        # A rank had the model and what it takes to train it in memory: mostly there is room to compare whole models.
        report = merge_run(folder.path, folder.merged, compare_logits=True)
        for line in report.checks:
            console.print(f"merge    {printable(line)}", highlight=False, markup=False, soft_wrap=True)
    from coordcore_train.run.evaluate import evaluate

    evaluate(loaded, folder, console)
    folder.write_state(done=True)
    result = folder.merged if manifest.output.merge else folder.last_checkpoint()
    seconds = f"{time.monotonic() - started:.0f} s"
    console.print(f"done     {printable(str(result))}  ({seconds})", highlight=False, markup=False, soft_wrap=True)


def nothing_moved(manifest: Manifest, folder: RunDir) -> str | None:
    """A word about a run that has trained to its end and moved nothing; None for any other."""
    last = folder.last_checkpoint()
    origin = None if last is None else read_origin(last)
    if origin is None or origin.moved:
        return None
    train = manifest.train
    return (
        f"{last}: none of the trained tensors has moved, weight decay apart: the result is the base. Look at "
        f"train.learning_rate = {train.learning_rate} (in warming up, the first step's is 0), train.max_grad_norm = "
        f"{train.max_grad_norm} and the losses' weights, and start again with --overwrite"
    )


def _announce(console: Console, manifest: Manifest, folder: RunDir, resumed: bool) -> None:
    last = folder.last_checkpoint()
    where = f"continues from {last.name}" if resumed and last is not None else "starts again" if resumed else "new run"
    console.print(f"run      {manifest.name}: {where}", highlight=False, markup=False)
    console.print(f"folder   {printable(str(folder.path))}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"base     {printable(str(folder.state()['base']))}", highlight=False, markup=False, soft_wrap=True)


def train(folder: RunDir, loaded: Loaded) -> None:
    """Train the run that lies prepared in `folder`, in this process, as one rank or the only one.

    Continues from its last complete checkpoint. Raises InputError and RunError as the engine does.
    """
    manifest = loaded.manifest
    launch.set_threads(manifest.train.threads)
    if not launch.under_launcher():
        os.environ.update(launch.one_gpu_per_rank(1))
    launch.start_process_group(manifest)
    quiet_transformers()

    from coordcore_train.checkpoint.trained import trainer_state
    from coordcore_train.run.evaluate import EvaluateCallback
    from coordcore_train.run.plan import plan_of
    from coordcore_train.run.progress import ProgressCallback
    from coordcore_train.run.resume import continues_from
    from coordcore_train.surgery.saved import require_saved

    if not launch.is_first():
        require_same_data(manifest, folder)
    plan = plan_of(manifest, folder.path, Path(str(folder.state()["base"])))
    say = _say if launch.is_first() else _keep_quiet
    adapter = manifest.tuner.type == "lora"
    last = continues_from(folder, manifest.launch, launch.world_size(), say, adapter=adapter)
    launch.barrier()  # before rank 0 removes what every rank has looked at
    if last is not None:
        require_own(last, plan.fingerprint)
        require_saved(plan.modules_to_save, last)
        if trainer_state(last).is_last:
            return
    if launch.is_first():
        folder.discard_after(0 if last is None else checkpoint_step(last))
    progress = ProgressCallback(folder, loaded.hooks, Console(), evaluates=plan.validation is not None)
    callbacks: list[TrainerCallback] = [progress]
    if manifest.train.evaluate_checkpoints:
        callbacks.append(EvaluateCallback(folder, progress.say, progress.write))
    try:
        engine_of(loaded.plugins).train(plan, resume=last, callbacks=callbacks)
    except SystemExit as error:  # which would pass for a run that is done
        raise RunError(f"something that this run calls ended the process (SystemExit: {error.code})") from error
    finally:
        progress.close()


def _say(text: str) -> None:
    Console(stderr=True).print(f"coordcore: {printable(text)}", highlight=False, markup=False, soft_wrap=True)


def _keep_quiet(_text: str) -> None:
    """What rank 0 says is enough."""
