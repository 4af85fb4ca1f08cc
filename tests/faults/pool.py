"""Commands run in forked processes of their own, each in a folder of its own, under a watch that ends what hangs.

A fork costs a tenth of a new interpreter, and whatever a case does to its process (limits, working directory, threads)
goes with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import attrs

HANG = 5.0
"""Seconds of work after which a command hangs, on a machine that has nothing else to do."""

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


def run(case: Case, seeds: Iterable[int], folder: Path, *, jobs: int, hang: float = HANG) -> Iterator[Outcome]:
    """The outcomes of the cases with these seeds, as they end. `folder`/SEED is a case's own, and stays.

    hang: seconds after which a command of this kind hangs. A case that overruns is run a second time, with twice the
    time, before it counts.
    """
    waiting = iter(seeds)
    alive: dict[int, _Child] = {}
    again: list[int] = []
    more = True
    while more or again or alive:
        while len(alive) < jobs and (again or more):
            if again:
                child = _start(case, again.pop(), folder, hang * 2, retry=True)
            elif (seed := next(waiting, None)) is not None:
                child = _start(case, seed, folder, hang)
            else:
                more = False
                break
            alive[child.descriptor] = child
        for child in _ended(alive) if alive else ():
            outcome = _outcome(child)
            if outcome is None:
                again.append(child.seed)
            else:
                yield outcome


def load_factor() -> float:
    """How many times longer than its work takes a process waits, as others share the machine: 1 on a quiet one."""
    wall, work = time.perf_counter(), time.process_time()
    sum(range(2_000_000))
    return max(1.0, (time.perf_counter() - wall) / max(time.process_time() - work, 1e-3))


@attrs.define(kw_only=True)
class _Child:
    seed: int
    pid: int
    descriptor: int
    folder: Path
    deadline: float
    retry: bool
    reading: int
    told: bytes = b""
    overran: bool = False
    status: int = 0


def _start(case: Case, seed: int, folder: Path, seconds: float, *, retry: bool = False) -> _Child:
    own = folder / (f"{seed}-again" if retry else str(seed))
    own.mkdir(parents=True)
    sys.stdout.flush()
    sys.stderr.flush()
    # Not a file: the disk may be full, as far as the case is concerned.
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _in_child(case, seed, own, writing)
    os.close(writing)
    deadline = time.monotonic() + seconds * load_factor()
    return _Child(
        seed=seed, pid=pid, descriptor=os.pidfd_open(pid), folder=own, deadline=deadline, reading=reading, retry=retry
    )


def _in_child(case: Case, seed: int, folder: Path, told: int) -> None:
    """Never returns."""
    code = 99
    try:
        os.setsid()  # so that what it starts can be ended with it
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        _limit(resource.RLIMIT_AS, _address_space() + MEMORY)
        _limit(resource.RLIMIT_CORE, 0)
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
    soonest = min(child.deadline for child in alive.values()) - time.monotonic()
    ready = {descriptor for descriptor, _ in poll.poll(max(soonest, 0) * 1000)}
    ended = []
    for descriptor, child in list(alive.items()):
        if descriptor not in ready and time.monotonic() < child.deadline:
            continue
        child.overran = descriptor not in ready
        if child.overran:
            os.killpg(child.pid, signal.SIGKILL)
        _, child.status = os.waitpid(child.pid, 0)
        child.told = os.read(child.reading, 1 << 16)
        os.close(child.reading)
        os.close(descriptor)
        del alive[descriptor]
        ended.append(child)
    return ended


def _outcome(child: _Child) -> Outcome | None:
    """None for a case that is to be run again."""
    if child.overran and not child.retry:
        return None
    kept = child.folder / NOTE
    note = kept.read_text() if kept.exists() else ""
    if child.overran:
        breach = "hangs"
    elif os.WIFSIGNALED(child.status):
        breach = f"the process died of {signal.Signals(os.WTERMSIG(child.status)).name}"
    else:
        return Outcome(seed=child.seed, breaches=json.loads(child.told), note=note)
    return Outcome(seed=child.seed, breaches=[breach], note=note)
