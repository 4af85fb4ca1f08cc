"""A command of coordcore in this process, and what must hold of every command whatever it is given."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import attrs
from pool import NOTE

LONGEST = 5500
"""Characters of the longest line of a message, beyond the paths in it: values are echoed cut."""

_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ of fcntl.h

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MISUSED = re.compile(r"No such (?:option|command)[^\n]*|Got unexpected extra[^\n]*|Missing (?:argument|option)[^\n]*")
_FRAME = re.compile(r'File "([^"]+)", line \d+, in (\S+)')
_TRACE = "Traceback (most recent call last)"


@attrs.frozen(kw_only=True)
class Ended:
    """How a command ended: its exit code, what it printed, and the files that are there and were not before."""

    code: int
    out: str
    err: str
    new: tuple[str, ...]
    changed: tuple[str, ...]


def invoke(arguments: list[str], folder: Path, note: str = "") -> Ended:
    """Run `coordcore ARGUMENTS` in this process and in `folder`/work. What it prints lies beside that.

    note: what is special about it, kept for the case that it never comes back.
    """
    with suppress(OSError):  # where the disk is full
        (folder / NOTE).write_text(
            f"{shlex.join(arguments)[:300]}: {note}", encoding="utf-8", errors="backslashreplace"
        )
    from coordcore.cli import app

    work = folder / "work"
    os.chdir(work)
    before = _state(work)
    out, err = _redirect()
    try:
        app(args=arguments, prog_name="coordcore")
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    after = _state(work)
    return Ended(
        code=code,
        out=_text(out, folder / "stdout"),
        err=_text(err, folder / "stderr"),
        new=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(sorted(name for name in before if after.get(name) != before[name])),
    )


def breaches(ended: Ended, *, codes: Iterable[int] = (0, 1, 2), outputs: Iterable[str] = ()) -> list[str]:
    """What a command broke of the rules that hold for all of them.

    codes: the exit codes it may have. outputs: files that may be there afterwards, if it succeeded.
    """
    found = []
    for text in (ended.err, ended.out):
        if _TRACE in text:
            found.append(f"traceback: {_raised(text)}")
    if ended.code not in codes and not found:
        found.append(f"exit code {ended.code}")
    if wrong := _MISUSED.search(ended.err):
        found.append(f"the test calls the command wrongly: {wrong[0]}")
    if ended.code and not ended.err.strip():
        found.append(f"exit code {ended.code} without a word on stderr")
    for name, text in (("stderr", ended.err), ("stdout", ended.out)):
        if control := _CONTROL.search(text):
            found.append(f"raw control character on {name} in {_around(text, control.start())!r}")
        longest = max(map(len, text.splitlines()), default=0)
        if longest > LONGEST and _TRACE not in text:
            found.append(f"line of {longest:,} characters on {name}: {max(text.splitlines(), key=len)[:100]!r}...")
    allowed = set(outputs) if ended.code == 0 else set()
    if left := [name for name in ended.new if name not in allowed]:
        found.append(f"left behind with exit code {ended.code}: {', '.join(map(_nameless, left[:3]))}")
    if ended.changed:
        found.append(f"changed or removed its input: {', '.join(ended.changed[:3])}")
    return found


def _state(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every file below a folder, and what changes when it is written."""
    found = {}
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(place, name)
            status = os.lstat(path)
            kind = (status.st_mode, status.st_ino)
            is_folder = name in folders and not os.path.islink(path)
            found[os.path.relpath(path, folder)] = kind if is_folder else (*kind, status.st_size, status.st_mtime_ns)
    return found


def _redirect() -> tuple[int, int]:
    """Standard streams of the process, for good: input is empty, output goes into pipes that hold a megabyte.

    Not into files: the disk may be full, as far as a case is concerned.
    """
    ends = []
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    for descriptor in (1, 2):
        reading, writing = os.pipe()
        fcntl.fcntl(reading, _SET_PIPE_SIZE, 1 << 20)
        os.set_blocking(reading, False)
        os.dup2(writing, descriptor)
        os.close(writing)
        ends.append(reading)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(  # noqa: SIM115
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    return ends[0], ends[1]


def _text(end: int, kept: Path) -> str:
    """What was printed, kept in a file for a person where there is room."""
    data = b""
    with suppress(BlockingIOError):
        while part := os.read(end, 1 << 20):
            data += part
    with suppress(OSError):
        kept.write_bytes(data)
    return data.decode("utf-8", "backslashreplace")


def _raised(text: str) -> str:
    """The exception of the last traceback in a text, and where in the project it came from."""
    lines = text[text.rindex(_TRACE) :].splitlines()
    error = next((line for line in lines[1:] if re.match(r"[A-Za-z_][\w.]*(:|$)", line)), lines[-1])
    frames = [match for match in map(_FRAME.search, lines) if match and "coordcore" in match[1]]
    where = f" in {frames[-1][1].rpartition('coordcore')[2]}:{frames[-1][2]}" if frames else ""
    return f"{error.partition(':')[0]}{where} ({error.partition(':')[2].strip()[:80]})"


def _around(text: str, place: int) -> str:
    return text[max(place - 30, 0) : place + 30]


def _nameless(name: str) -> str:
    return re.sub(r"[0-9a-f]{12,}", "HEX", name)
