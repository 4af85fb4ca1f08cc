"""Which checkpoint a run continues from: the newest of which every file can be read. Imports torch."""

from __future__ import annotations

import errno
import pickle
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from coordcore.errors import InputError, RunError
from coordcore.manifest.sections import Launch
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
    for pattern in _WEIGHTS:
        for file in checkpoint.glob(pattern):
            _pickled(file)


def _present(checkpoint: Path, launch: Launch, ranks: int) -> Iterator[Path]:
    """The files of optimizer, schedule and random numbers. The trainer would start those that are missing afresh."""
    plain = launch.deepspeed is None and launch.fsdp is None  # which have names of their own for them
    random = ["rng_state.pth"] if ranks == 1 else [f"rng_state_{rank}.pth" for rank in range(ranks)]
    for name in (*_STATES, *random):
        file = checkpoint / name
        if file.is_file():
            yield file
        elif plain and name not in ("optimizer.bin", "scaler.pt"):
            raise InputError(f"{file}: is missing")


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
