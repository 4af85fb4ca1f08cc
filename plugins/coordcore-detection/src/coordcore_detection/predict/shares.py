"""A prediction shared out among processes: which images are whose, and one file of all their answers. Torch-free.

Batches are shared out, for what an image is answered depends, in the last digits, on the others of its batch. Each
process writes a file of its own beside that of all, locked while it lives. Whoever finds at its end that all is
answered, and that no other process is at work, puts the files together.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from coordcore.errors import InputError
from coordcore.files import require_regular
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict import prediction_files
from coordcore_detection.predict.prediction_files import NO_IMAGE
from coordcore_detection.predict.predictions import Header, Row

OURS = "COORDCORE_SHARE"
"""The variable by which `--procs` tells a process its share: "2/4" for the last but one of four."""

_TRIES, _LOOK = 20, 0.05
"""How often a lock is tried, and seconds between."""

_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),  # torchrun
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # a step of srun; the script of a job is none
)


@attrs.frozen(kw_only=True)
class Share:
    """Part `rank` of `world`. local: which process of its machine this is, and so which GPU is its own."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def here(cls) -> Share:
        """The share of this process: all of it, unless it was started as one of several. Raises InputError."""
        if OURS in os.environ:
            rank, _, world = os.environ[OURS].partition("/")
            return cls._checked(OURS, rank, world, rank)
        for names in _LAUNCHERS:
            if names[0] in os.environ and names[1] in os.environ:
                return cls._checked(names[0], *(os.environ.get(name, "0") for name in names))
        return cls()

    @classmethod
    def _checked(cls, name: str, rank: str, world: str, local: str) -> Share:
        if not all(text.isdecimal() for text in (rank, world, local)) or not int(rank) < int(world):
            raise InputError(
                f"{name}: says rank {rank!r} of {world!r}, which is none; unset it, or start with a launcher"
            )
        return cls(rank=int(rank), world=int(world), local=int(local))

    def file(self, output: Path) -> Path:
        """Where this share of `output` is written."""
        return output.with_name(f".{output.name}.part-{self.rank}-of-{self.world}")


def files(output: Path) -> list[Path]:
    """The shares of `output` that there are, of any number of processes."""
    pattern = re.compile(rf"\.{re.escape(output.name)}\.part-\d+-of-\d+")
    if not output.parent.is_dir():
        return []
    return sorted(file for file in output.parent.iterdir() if pattern.fullmatch(file.name))


def answered(output: Path, header: Header) -> dict[str, Row]:
    """By image, the rows of `output` and of all its shares; an image that could be shown once, was.

    Raises InputError for a file that was made under another contract than `header`.
    """
    rows: dict[str, Row] = {}
    for file in [*files(output), output]:  # the whole last: it is there before its shares go
        for row in prediction_files.glimpse(file, header):
            if row.image not in rows or is_shown(row):
                rows[row.image] = row
    return rows


def is_shown(row: Row) -> bool:
    """Whether the model was shown the image."""
    return not any(item.at == NO_IMAGE for item in row.unread)


def left(images: Sequence[TruthImage], rows: Mapping[str, Row], batch_size: int, share: Share) -> list[TruthImage]:
    """The images of a share's batches, but for batches that are answered whole."""
    done = {name for name, row in rows.items() if is_shown(row)}
    batches = [images[begin : begin + batch_size] for begin in range(0, len(images), batch_size)]
    mine = batches[share.rank :: share.world]
    return [image for batch in mine if any(image.key not in done for image in batch) for image in batch]


@contextmanager
def held(file: Path, header: Header) -> Iterator[list[Row]]:
    """Within this context no other process takes the file, a share or the whole, for abandoned, nor writes it.

    Gives the rows that an earlier process left there, mended once it is this one's. A file that this context began and
    put no answer into is removed: what `replaced` set aside comes back then. Raises InputError where another process
    writes it, and as `resume`.
    """
    was_there = os.path.lexists(file)
    with ExitStack() as locks:
        handle = _hold(file, locks)
        try:
            rows = prediction_files.resume(file, header)
            while not _is_at(file, handle):  # mending has put another file in its place, which is not locked
                handle = _hold(file, locks)
                rows = prediction_files.resume(file, header)
            yield rows
        finally:
            if not was_there and _is_at(file, handle):  # while it is locked: the next process may begin there at once
                _remove_unused(file)


def _hold(file: Path, locks: ExitStack) -> int:
    """Open a file and lock it. Raises InputError where another process writes it."""
    try:
        if file.exists():
            require_regular(file)  # to open a pipe waits for its reader
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = locks.enter_context(file.open("ab")).fileno()
    except OSError as error:
        raise InputError(f"{file}: cannot be written: {(error.strerror or str(error)).lower()}") from error
    for _ in range(_TRIES):
        if _locked(handle, fcntl.LOCK_EX):
            return handle
        pause(_LOOK)  # whoever only looks whether somebody writes it is gone by then
    raise _taken(file)


def _remove_unused(file: Path) -> None:
    with file.open("rb") as begun:
        begun.readline()  # the header
        answer = begun.readline()
    if not answer:
        file.unlink()


def require_free(file: Path) -> None:
    """Raise InputError where another process writes a file."""
    if _is_held(file):
        raise _taken(file)


def _taken(file: Path) -> InputError:
    return InputError(f"{file}: another process writes it; wait for that one, or end it")


def _is_at(file: Path, handle: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def pause(seconds: float) -> None:
    """Wait before a lock is tried again."""
    time.sleep(seconds)


def together(output: Path, header: Header, keys: Sequence[str], share: Share) -> list[Row] | None:
    """Put the shares into `output`, in the order of `keys`; what else was answered follows. Returns all rows.

    None while an image has no answer, or another process is at work.
    """
    found = files(output)
    if any(_is_held(file) for file in found):
        return None
    rows = answered(output, header)
    if not rows.keys() >= set(keys):
        return None
    ordered = [rows.pop(key) for key in keys]
    ordered += rows.values()
    own = share.file(output).with_suffix(".whole")
    prediction_files.write(own, header, ordered)
    os.replace(own, output)
    for file in found:
        file.unlink(missing_ok=True)
    return ordered


def gather(output: Path, header: Header) -> bool:
    """Put what abandoned shares hold into `output`; whether there were any.

    Raises InputError where a process still writes one.
    """
    found = files(output)
    for file in [output, *found]:
        require_free(file)
    if found:
        prediction_files.write(output, header, answered(output, header).values())
    for file in found:
        file.unlink()
    return bool(found)


@contextmanager
def replaced(output: Path) -> Iterator[None]:
    """Set `output` and its shares aside, and give them back where this context has put nothing in their place.

    Raises InputError where a process still writes one.
    """
    aside: dict[Path, Path] = {}
    for file in [output, *files(output)]:
        require_free(file)
        if os.path.lexists(file):
            aside[file] = file.with_name(f".{file.name}.before")
    for file, other in aside.items():
        os.replace(file, other)
    try:
        yield
    finally:
        nothing = not os.path.lexists(output) and not files(output)
        for file, other in aside.items():
            if nothing:
                os.replace(other, file)
            else:
                other.unlink(missing_ok=True)


def _is_held(file: Path) -> bool:
    try:
        require_regular(file)  # to open a pipe waits for its writer
        # Those that only look do not see one another, and a network file system lets a reader lock this way alone.
        with file.open("rb") as handle:
            return not _locked(handle.fileno(), fcntl.LOCK_SH)
    except OSError:  # not there, or nothing that can be read: whoever reads it says so
        return False


def _locked(handle: int, kind: int) -> bool:
    """Take the lock; False where another process has it. A file system without locks has none that is taken."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
