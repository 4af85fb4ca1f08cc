"""Which checkpoint a run continues from: the newest of which every file can be read. Imports torch."""

from __future__ import annotations

import errno
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from coordcore.errors import InputError, RunError
from coordcore.manifest.sections import Launch
from coordcore.manifest.types import show
from coordcore_train.checkpoint.trained import TRAINER_STATE, require_readable, trainer_state
from coordcore_train.run.folder import RunDir, checkpoints_in

_CURE = "restore that file, or start over with --overwrite"

# What torch's reader of weights raises for bytes that are none.
_UNREADABLE = (
    *(EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError),
    *(AssertionError, ArithmeticError, ImportError, MemoryError, struct.error),
)

# What the system says of paths that lead to no file. EINVAL is torch's word for an archive that is cut off.
_DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL)

_STATES = ("scheduler.pt", "optimizer.pt", "optimizer.bin", "scaler.pt")
_HOLDS = {"optimizer": ("state", "param_groups"), "rng_state": ("python", "numpy", "cpu")}
_WEIGHTS = ("adapter_model*.bin", "pytorch_model*.bin")


def continues_from(
    folder: RunDir, launch: Launch, ranks: int, log: Callable[[str], None], *, adapter: bool
) -> Path | None:
    """The newest complete checkpoint whose files can all be read, None in a run without a complete one.

    Of torch's own files only what needs no code of theirs is read, and no tensor is loaded. log: told of each newer
    checkpoint that is passed over, with the file. adapter: whether the run trains LoRA.

    Raises InputError naming the file when there is none that can be read, RunError when the system does not give one.
    """
    faults: list[str] = []
    for checkpoint in reversed(checkpoints_in(folder.checkpoints)):
        if not (checkpoint / TRAINER_STATE).is_file():
            continue
        try:
            trainer_state(checkpoint)
            require_readable(checkpoint, adapter=adapter)
            _require_loadable(checkpoint, launch, ranks)
        except (InputError, OSError) as error:
            if denied := _denied(error):
                raise RunError(f"{denied.filename or checkpoint}: cannot be read: {denied.strerror}") from error
            faults.append(str(error))
            continue
        for fault in faults:
            log(f"{fault}; going on from the older {checkpoint.name}")
        return checkpoint
    if faults:
        raise InputError(f"{faults[0]}; no older checkpoint is whole: {_CURE}")
    return None


def _denied(error: Exception) -> OSError | None:
    """What the system had to say, where another time it may give the file: nothing newer is given up for that."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return cause if isinstance(cause, OSError) and cause.errno not in _DAMAGE else None


def _require_loadable(checkpoint: Path, launch: Launch, ranks: int) -> None:
    """Raise InputError naming one of torch's own files that is missing, damaged, or holds another thing."""
    for file in _present(checkpoint, launch, ranks):
        held = _pickled(file)
        wanted = _HOLDS.get(file.name.split(".")[0].rstrip("_0123456789"), ())
        if not isinstance(held, dict) or not all(key in held for key in wanted):
            raise InputError(f"{file}: is not what a run saves there ({', '.join(wanted) or 'a table'})")
    if launch.deepspeed is not None:
        _require_deepspeed(checkpoint, launch.deepspeed, ranks)
    for pattern in _WEIGHTS:
        for file in checkpoint.glob(pattern):
            _pickled(file)


def _present(checkpoint: Path, launch: Launch, ranks: int) -> Iterator[Path]:
    """The files of optimizer, schedule and random numbers. The trainer would start those that are missing afresh."""
    random = ["rng_state.pth"] if ranks == 1 else [f"rng_state_{rank}.pth" for rank in range(ranks)]
    required = {"scheduler.pt", *random}
    if launch.fsdp is not None:
        required |= {"optimizer.bin", "pytorch_model_fsdp.bin"}
    elif launch.deepspeed is None:
        required |= {"optimizer.pt"}
    for name in dict.fromkeys((*_STATES, *random, *sorted(required))):
        file = checkpoint / name
        if file.is_file():
            if not file.match("pytorch_model*.bin"):  # looked at with the weights
                yield file
        elif name in required:
            raise InputError(f"{file}: is missing")


def _require_deepspeed(checkpoint: Path, setting: str, ranks: int) -> None:
    """Raise InputError naming one of DeepSpeed's own files that is missing or cut off. It unpickles them itself."""
    latest = checkpoint / "latest"
    try:
        tag = latest.read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise InputError(f"{latest}: is missing") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{latest}: cannot be read: {error}") from error
    if not re.fullmatch(r"global_step\d+", tag):
        raise InputError(f"{latest}: must name a folder global_step<N>, got {show(tag)}")
    models = sorted((checkpoint / tag).glob("*model_states.pt"))
    optimizers = sorted((checkpoint / tag).glob("*optim_states.pt"))
    if not models:
        raise InputError(f"{checkpoint / tag / 'mp_rank_00_model_states.pt'}: is missing")
    shared = setting.startswith(("zero1", "zero2", "zero3"))
    for found, what in ((optimizers, "optim_states.pt"), (models, "model_states.pt")):
        wanted = ranks if shared and (what != "model_states.pt" or setting.startswith("zero3")) else len(found)
        if len(found) < wanted:
            raise InputError(f"{checkpoint / tag}: has {len(found)} files *{what} of {wanted} ranks")
        for file in found:
            if not zipfile.is_zipfile(file):
                raise InputError(f"{file}: not read: it is damaged, or another run's")


def _pickled(file: Path) -> Any:
    """What torch has saved in `file`, its tensors left on the disk."""
    from transformers.trainer_pt_utils import safe_globals

    with readable(file), safe_globals():
        return torch.load(file, map_location="meta", weights_only=True, mmap=True)


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Turn what torch raises in this block, over the content of `file`, into an InputError that names it."""
    try:
        yield
    except (InputError, torch.OutOfMemoryError):
        raise
    except pickle.UnpicklingError as error:
        why = "it is damaged, or holds objects that only code of its own could build: none is run"
        raise InputError(f"{file}: not read: {why}") from error
    except (*_UNREADABLE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _DAMAGE:
            raise
        raise InputError(f"{file}: not read: it is damaged, or another run's") from error
