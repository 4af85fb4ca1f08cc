"""Files and folders that appear whole or not at all, where a command may write, the cache folder. Torch-free."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from coordcore.errors import InputError, RunError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a file cannot grow."""


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part. Raises OSError naming it."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:  # where the disk is full, nothing is left of the try
        beside.unlink(missing_ok=True)


def require_regular(path: Path, most: int | None = None) -> None:
    """Raise OSError for a pipe, which waits for its writer for ever, a device, and a file of more than `most` bytes."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # a folder says so itself
        raise OSError(errno.EINVAL, "is a pipe or a device; write what it gives into a file", str(path))
    if most is not None and status.st_size > most:
        raise OSError(errno.EFBIG, f"has {status.st_size:,} bytes, more than {most:,}", str(path))


def cache_folder() -> Path:
    """Where what can be made again is kept: `$COORDCORE_CACHE`, else `coordcore` in the user's cache folder.

    It need not exist. For a user without a home it is a path that nothing can be written to.
    """
    if chosen := os.environ.get("COORDCORE_CACHE"):
        return Path(chosen)
    from platformdirs import user_cache_path

    try:
        return user_cache_path("coordcore", appauthor=False)
    except RuntimeError:  # no home
        return Path(os.devnull, "coordcore")


def own_cache_folder() -> Path:
    """The cache folder, made for this user alone where it is not there.

    Raises InputError where others can write to it, for a run would go by what they put there, and where none can be.
    """
    folder = cache_folder()
    cure = "or name another one in COORDCORE_CACHE"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InputError(f"{folder}: the cache folder cannot be made: {why}; make room there, {cure}") from error
    if status.st_uid != os.geteuid():
        raise InputError(f"{folder}: the cache folder belongs to user {status.st_uid}; make it your own, {cure}")
    if status.st_mode & 0o022:
        raise InputError(f"{folder}: others can write to the cache folder; chmod go-w {folder}, {cure}")
    return folder


def require_writable(output: Path | None, *inputs: Path | None, overwrite: bool) -> None:
    """Raise InputError for an `output` that is there and not to be replaced, is a folder, or is one of the inputs."""
    if output is None or not os.path.lexists(output):  # a link to nothing is somebody's, too
        return
    if output.exists() and any(item is not None and item.exists() and output.samefile(item) for item in inputs):
        raise InputError(f"{output}: is read by this command; name another file to write")
    if output.is_dir():
        raise InputError(f"{output}: is a folder; name a file")
    if not overwrite:
        raise InputError(f"{output}: exists; replace it with --overwrite, or name another file")


@contextmanager
def whole_folder(output: Path, *, if_exists: Literal["error", "replace", "keep"] = "error") -> Iterator[Path]:
    """Give a fresh folder beside `output`, and rename it to `output` when the block ends without an exception.

    `output` therefore appears whole or not at all. What a process that was killed left beside it is removed.
    if_exists: what to do when `output` exists by then: "error" (also checked at the start), "replace" it, or "keep" it
    and drop the new one, for a cache that several processes fill.
    Raises InputError for an existing `output` under "error", and where no folder can be made; RunError where the disk
    is full.
    """
    output = Path(os.path.abspath(output))
    refusal = f"{output}: already exists; choose another folder, or ask for it to be replaced"
    _remove_abandoned(output)
    if if_exists == "error" and os.path.lexists(output):
        raise InputError(refusal)
    scratch = output.with_name(f".{output.name}.{uuid.uuid4().hex[:12]}.tmp")
    fresh = scratch.with_suffix(".new")
    try:
        fresh.mkdir(parents=True)
    except OSError as error:
        above = next(parent for parent in output.parents if os.path.lexists(parent))
        why = (error.strerror or str(error)).lower()
        raise InputError(f"{output}: cannot be made in {above}: {why}; choose another folder") from error
    alive = os.open(fresh, os.O_RDONLY)
    _try_lock(alive)
    os.rename(fresh, scratch)  # under the name that others look at it is locked from the start
    try:
        yield scratch
        if if_exists == "replace" and os.path.lexists(output):
            old = scratch.with_suffix(".old")
            os.replace(output, old)
            os.replace(scratch, output)
            _remove(old)
            return
        try:
            os.replace(scratch, output)
        except OSError as error:
            if if_exists == "keep" and output.is_dir():
                return
            if os.path.lexists(output):
                raise InputError(refusal) from error
            raise
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        why = os.strerror(error.errno).lower()
        raise RunError(f"{output}: cannot be written: {why}; make room there, and start again") from error
    finally:
        _remove(scratch)
        os.close(alive)


def _remove_abandoned(output: Path) -> None:
    """Remove what a process that was killed left of an earlier try. A folder whose writer lives is locked by it.

    One that was killed as it replaced `output` has put the old one aside, which is put back.
    """
    pattern = f".{glob.escape(output.name)}.{'[0-9a-f]' * 12}"
    for path in output.parent.glob(f"{pattern}.tmp"):
        with suppress(FileNotFoundError):  # another process removes it as well
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if _try_lock(descriptor):
                    _put_back(path.with_suffix(".old"), output)
                    shutil.rmtree(path)
            finally:
                os.close(descriptor)
    left = output.parent.glob(f"{pattern}.old")  # it was to be removed, after the new folder had its place
    for path in (path for path in left if not path.with_suffix(".tmp").exists()):
        _put_back(path, output)


def _put_back(old: Path, output: Path) -> None:
    """Give the old output its name again, or remove it where there is a new one."""
    with suppress(FileNotFoundError):
        if os.path.lexists(output):
            _remove(old)
        else:
            os.rename(old, output)


def _try_lock(descriptor: int) -> bool:
    """Lock a folder for as long as the descriptor is open; False when another process has it, or none can.

    Not filelock's: it locks files only, and a file of its own would be renamed with the folder and stay in `output`.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # taken, or a network file system without locks: then nothing is ever taken for abandoned
        return False
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
