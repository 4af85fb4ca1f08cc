"""A prediction shared out among processes: which images are whose, and one file of all their answers. Torch-free.

Batches are shared out, for what an image is answered depends, in the last digits, on the others of its batch. Each
process writes a file of its own beside that of all, locked while it lives. Whoever finds at its end that all is
answered, and that no other process is at work, puts the files together.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from coordcore.errors import InputError
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict import prediction_files
from coordcore_detection.predict.prediction_files import NO_IMAGE
from coordcore_detection.predict.predictions import Header, Row

OURS = "COORDCORE_SHARE"
"""The variable by which `--procs` tells a process its share: "2/4" for the last but one of four."""

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
def held(file: Path) -> Iterator[None]:
    """Within this context no other process takes the share for abandoned. Raises InputError where one writes it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as handle:
        if not _locked(handle.fileno()):
            raise InputError(f"{file}: another process writes it; wait for that one, or end it")
        yield


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
    for file in found:
        if _is_held(file):
            raise InputError(f"{file}: another process writes it; wait for that one, or end it")
    if found:
        prediction_files.write(output, header, answered(output, header).values())
    for file in found:
        file.unlink()
    return bool(found)


def remove(output: Path) -> None:
    """Remove `output` and its shares."""
    for file in [output, *files(output)]:
        file.unlink(missing_ok=True)


def _is_held(file: Path) -> bool:
    try:
        with file.open("rb") as handle:
            return not _locked(handle.fileno())
    except FileNotFoundError:
        return False


def _locked(handle: int) -> bool:
    """Take the lock; False where another process has it. A file system without locks has none that is taken."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
