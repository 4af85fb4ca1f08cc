"""From a loaded manifest to a run folder that any rank can train from, and from such a folder to a plan."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from coordcore.components import COORD_TOKENS
from coordcore.coords import CoordVocab, MissingCoordTokensError, Quantisation, quantisation, require_same
from coordcore.errors import InputError
from coordcore.manifest import Loaded, Manifest, fingerprint, load, resolved
from coordcore_train.checkpoint.folder import read_vocab
from coordcore_train.run.folder import RunDir
from coordcore_train.run.launch import rank, under_launcher, world_size
from coordcore_train.run.plan import Plan, assemble


def run_folder(loaded: Loaded, output: Path | None) -> Path:
    """Where this run goes: --output, else [output] dir, else runs/<name> in the working directory."""
    manifest = loaded.manifest
    return Path(output or manifest.output.dir or Path("runs") / manifest.name).absolute()


def prepare(loaded: Loaded, folder: RunDir, *, overwrite: bool) -> bool:
    """Find or make the base checkpoint and write the run folder; True when it continues an interrupted run."""
    manifest = loaded.manifest
    require_device(manifest)
    base = base_checkpoint(manifest)
    if overwrite:
        _require_outside(folder, [base, loaded.file])
    layout = {
        "ranks": world_size() if under_launcher() else manifest.launch.nproc_per_node * manifest.launch.nnodes,
        "deepspeed": manifest.launch.deepspeed,
        "fsdp": manifest.launch.fsdp,
    }
    text = resolved(manifest, loaded.plugins)
    return folder.prepare(text, fingerprint(manifest), base, layout=layout, overwrite=overwrite)


def on_cpu(manifest: Manifest) -> bool:
    """Whether the run is on the CPU."""
    import torch

    return manifest.train.device == "cpu" or not torch.cuda.is_available()


def require_device(manifest: Manifest) -> None:
    """Raise InputError when a GPU is asked for and there is none."""
    import torch

    if manifest.train.device == "cuda" and not torch.cuda.is_available():
        raise InputError('train.device: "cuda", but torch sees no GPU; set "auto" or "cpu"')


def _require_outside(folder: RunDir, needed: list[Path]) -> None:
    """Raise InputError when --overwrite would delete what the run starts from."""
    for path in needed:
        if path.resolve().is_relative_to(folder.path.resolve()):
            raise InputError(
                f"output.dir: {path} lies in {folder.path}, which --overwrite would delete; name another folder"
            )


def require_visible(manifest: Manifest, folder: RunDir) -> None:
    """Raise InputError unless this node sees the run folder that rank 0 prepared."""
    if folder.state().get("fingerprint") != fingerprint(manifest):
        raise InputError(
            f"output.dir: {folder.path} on {socket.gethostname()} is not the folder that node 0 prepared; "
            "put it on a file system that all nodes share"
        )


def wait_until_visible(manifest: Manifest, folder: RunDir, *, seconds: float = 300.0) -> bool:
    """Wait, on another node than 0, until node 0 has prepared the shared folder. Raises InputError when it does not."""
    give_up = time.monotonic() + seconds
    while folder.state().get("fingerprint") != fingerprint(manifest) or folder.state().get("done"):
        if time.monotonic() > give_up:
            require_visible(manifest, folder)
            raise InputError(f"output.dir: {folder.path} holds a finished run; start node 0 with --overwrite")
        time.sleep(1.0)
    return folder.last_checkpoint() is not None


def base_checkpoint(manifest: Manifest) -> Path:
    """The folder of the base, with coord tokens: expanded into the cache when `[vocab]` asks and they are missing.

    Raises InputError when a component needs coord tokens, the base has none and there is no `[vocab]` section.
    """
    from coordcore_train.checkpoint.base import resolve_base

    base = resolve_base(manifest.model.base, Path.cwd()) or _from_hub(manifest.model.base)
    spec = quantisation(manifest.coords.quantisation)
    needs = any(COORD_TOKENS in one.component.provides(one.config) for one in manifest.selected)
    try:
        read_vocab(base)
    except MissingCoordTokensError:
        if manifest.vocab is not None:
            from coordcore_train.checkpoint.expand import cached_expansion

            return cached_expansion(
                base, initialiser=manifest.vocab.initialiser, seed=manifest.vocab.seed, quantisation=spec
            )
        if needs:
            raise InputError(
                f"model.base: {base} has no coord tokens; add a [vocab] section, or expand it with `coordcore expand`"
            ) from None
    _same_quantisation(base, spec)
    return base


def _from_hub(name: str) -> Path:
    """A checkpoint of the hub, from the local cache when offline."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise InputError(
            f"model.base: {name!r} is no folder here, and could not be had from the hub "
            f"({type(error).__name__}); download it first, or name a local folder"
        ) from error


def _same_quantisation(base: Path, spec: Quantisation) -> None:
    from coordcore_train.checkpoint.folder import read_checkpoint_info

    info = read_checkpoint_info(base)
    if info is not None:
        require_same(info.quantisation, spec, str(base), "coords.quantisation")


def plan_of(manifest: Manifest, run_dir: Path, base: Path) -> Plan:
    """Build the components of a prepared run for this rank."""
    try:
        vocab: CoordVocab | None = read_vocab(base)
    except MissingCoordTokensError:
        vocab = None
    return assemble(
        manifest,
        run_dir=run_dir,
        base=base,
        vocab=vocab,
        quantisation=quantisation(manifest.coords.quantisation),
        rank=rank(),
        world_size=world_size(),
    )


def load_run(run_dir: Path) -> Plan:
    """The plan of an existing run folder, from its resolved manifest. Raises InputError when it is none."""
    folder = RunDir(run_dir)
    state = folder.state()
    if not folder.manifest.is_file() or "base" not in state:
        raise InputError(f"{run_dir} is not a coordcore run folder: it has no {folder.manifest.name}")
    manifest = load(folder.manifest).manifest
    base = Path(str(state["base"]))
    if not base.is_dir():  # the cache was emptied: the same expansion gives the same rows again
        base = base_checkpoint(manifest)
    return plan_of(manifest, run_dir, base)


def set_threads(threads: int | None) -> None:
    """CPU threads of this process; several ranks on one machine otherwise fight over its cores."""
    if threads is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
