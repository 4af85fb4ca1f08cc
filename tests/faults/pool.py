"""Commands run in forked processes of their own, each in a folder of its own, under a watch that ends what hangs.

A fork costs a tenth of a new interpreter, and whatever a case does to its process (limits, working directory, threads)
goes with it.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import attrs

HANG = 5
"""Seconds of processor time after which a command hangs: the same on a busy machine as on a quiet one."""

WAIT = 5.0
"""Seconds by the clock after which it is looked whether a command has done any work."""

IDLE = 3
"""Looks in a row that find none, after which it is taken to wait for ever: a busy machine may leave it out once."""

MEMORY = 4 << 30
"""Bytes of address space that a case may take beyond what the process has already."""

NOTE = "note"

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of linux/prctl.h


@attrs.frozen(kw_only=True)
class Outcome:
    """How a case ended. breaches: what it broke, [] when all is well. note: what the case was, for a person."""

    seed: int
    breaches: list[str]
    note: str = ""


Case = Callable[[int, Path], list[str]]
"""Works on the case of a seed in an empty folder, in a forked process; gives its breaches, and leaves a NOTE there."""


def run(case: Case, seeds: Iterable[int], folder: Path, *, jobs: int, hang: int = HANG) -> Iterator[Outcome]:
    """The outcomes of the cases with these seeds, as they end. `folder`/SEED is a case's own, and stays.

    hang: seconds of work after which a command of this kind hangs.
    """
    waiting = iter(seeds)
    alive: dict[int, _Child] = {}
    while True:
        for seed in itertools.islice(waiting, jobs - len(alive)):
            child = _start(case, seed, folder, hang)
            alive[child.descriptor] = child
        if not alive:
            return
        yield from map(_outcome, _ended(alive))


@attrs.define(kw_only=True)
class _Child:
    seed: int
    pid: int
    descriptor: int
    folder: Path
    reading: int
    looked: float
    work: int = 0
    idle: int = 0
    told: bytes = b""
    overran: bool = False
    status: int = 0


def _start(case: Case, seed: int, folder: Path, hang: int) -> _Child:
    own = folder / str(seed)
    own.mkdir(parents=True)
    sys.stdout.flush()
    sys.stderr.flush()
    # Not a file: the disk may be full, as far as the case is concerned.
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _in_child(case, seed, own, writing, hang)
    os.close(writing)
    return _Child(
        seed=seed, pid=pid, descriptor=os.pidfd_open(pid), folder=own, reading=reading, looked=time.monotonic()
    )


def _in_child(case: Case, seed: int, folder: Path, told: int, hang: int) -> None:
    """Never returns."""
    code = 99
    try:
        os.setsid()  # so that what it starts can be ended with it
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        _limit(resource.RLIMIT_AS, _address_space() + MEMORY)
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_CPU, hang)
        os.write(told, json.dumps([breach[:1000] for breach in case(seed, folder)[:20]]).encode())
        code = 0
    except BaseException:
        os.write(told, json.dumps([f"the test itself failed: {traceback.format_exc()}"[-4000:]]).encode())
    finally:
        os._exit(code)


def _limit(what: int, value: int) -> None:
    resource.setrlimit(what, (value, resource.getrlimit(what)[1]))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _ended(alive: dict[int, _Child]) -> list[_Child]:
    """Wait for the next children to end, by themselves or by the watch, and take them out of `alive`."""
    poll = select.poll()
    for descriptor in alive:
        poll.register(descriptor, select.POLLIN)
    soonest = min(child.looked for child in alive.values()) + WAIT - time.monotonic()
    ready = {descriptor for descriptor, _ in poll.poll(max(soonest, 0) * 1000)}
    ended = []
    for descriptor, child in list(alive.items()):
        child.overran = descriptor not in ready and _waits(child)
        if descriptor not in ready and not child.overran:
            continue
        if child.overran:
            os.killpg(child.pid, signal.SIGKILL)
        _, child.status = os.waitpid(child.pid, 0)
        child.overran |= os.WIFSIGNALED(child.status) and os.WTERMSIG(child.status) == signal.SIGXCPU
        child.told = os.read(child.reading, 1 << 16)
        os.close(child.reading)
        os.close(descriptor)
        del alive[descriptor]
        ended.append(child)
    return ended


def _waits(child: _Child) -> bool:
    """Whether neither the child nor what it started has done any work for so long that it never will."""
    if time.monotonic() < child.looked + WAIT:
        return False
    before, child.work, child.looked = child.work, _work(child.pid), time.monotonic()
    child.idle = child.idle + 1 if child.work == before else 0
    return child.idle >= IDLE


def _work(session: int) -> int:
    """The processor time of the processes of a session, in ticks."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields = status.read_text().rpartition(")")[2].split()  # from the state on, the third field
            if int(fields[3]) == session:
                total += sum(map(int, fields[11:15]))
    return total


def _outcome(child: _Child) -> Outcome:
    kept = child.folder / NOTE
    note = kept.read_text() if kept.exists() else ""
    if child.overran:
        breach = "hangs"
    elif os.WIFSIGNALED(child.status):
        breach = f"the process died of {signal.Signals(os.WTERMSIG(child.status)).name}"
    else:
        return Outcome(seed=child.seed, breaches=json.loads(child.told), note=note)
    return Outcome(seed=child.seed, breaches=[breach], note=note)
