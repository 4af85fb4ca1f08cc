"""Files of records: what state one is in, and how it is named to the user."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from coordcore import InputError
from coordcore.files import require_regular

AT_REST = 2_000_000_000
"""Nanoseconds after its last change from which on another change shows in a file's times, on any file system."""


class Stamp(msgspec.Struct, frozen=True):
    """What tells one state of a file or folder from another: bytes, times in nanoseconds, inode.

    `changed` moves with every change and cannot be set back, as `cp -p`, tar and rsync set back `modified`.
    """

    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> Stamp:
        return cls(size=found.st_size, modified=found.st_mtime_ns, changed=found.st_ctime_ns, inode=found.st_ino)

    def same_content(self, other: Stamp) -> bool:
        """Whether a file can be read on: a new name or new permissions, which `changed` shows, do no harm."""
        return (self.size, self.modified, self.inode) == (other.size, other.modified, other.inode)

    def at_rest(self) -> bool:
        """Whether it can stand for the content from now on; taken at once, a second change could look the same."""
        return time.time_ns() - self.changed > AT_REST


def open_regular(path: Path) -> tuple[int, Stamp]:
    """A descriptor to read `path` with, and the state it is in. Raises OSError."""
    require_regular(path)
    descriptor = os.open(path, os.O_RDONLY)
    return descriptor, Stamp.of(os.fstat(descriptor))


def shown(path: Path) -> str:
    """The path as a person at this working directory would type it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith(os.pardir) else relative


def unreadable(error: OSError) -> str:
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


def has_changed(path: Path) -> InputError:
    """The error for a file that is not what it was when it was indexed."""
    return InputError(f"{shown(path)}: changed since it was indexed; leave it as it is during a run, and start again")
