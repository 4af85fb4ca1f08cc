"""Processes that check a large file: `python -m coordcore_coord_tokens.workers` is one, spoken to through pipes.

They are started anew, not forked: a process that has imported torch runs threads, which a fork would cut off. Unlike
those of `multiprocessing` they do not import the caller's main module, which may be a script without a guard.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any, cast

from coordcore import InputError, RunError
from coordcore_coord_tokens.checking import Checked, Checker, Job, Part
from coordcore_coord_tokens.files import shown


def check_in_processes(job: Job[Any], parts: list[Part], count: int) -> Iterator[Checked]:
    """What was found in each part, in order. Raises RunError for a process that cannot start or ends too early."""
    with ExitStack() as stack, ThreadPoolExecutor(count) as threads:
        idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for _ in range(count):
            idle.put(stack.enter_context(_started(job)))

        def check(part: Part) -> Checked:
            process = idle.get()
            try:
                return _ask(process, part)
            except (EOFError, BrokenPipeError) as error:
                raise RunError(
                    f"{shown(job.path)}: a process that checks it ended with status {process.wait()}; "
                    "what it had to say stands above"
                ) from error
            finally:
                idle.put(process)

        yield from threads.map(check, parts)


@contextmanager
def _started(job: Job[Any]) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    command = [sys.executable, "-P", "-m", "coordcore_coord_tokens.workers"]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    except OSError as error:
        raise RunError(f"{shown(job.path)}: cannot start a process to check it: {error.strerror}") from error
    try:
        with suppress(BrokenPipeError):  # it has ended, which the first part finds out
            _send(process.stdin, job)
        yield process
    finally:
        process.kill()
        process.communicate()


def _ask(process: subprocess.Popen[bytes], part: Part) -> Checked:
    _send(process.stdin, part)
    answer = pickle.load(cast(IO[bytes], process.stdout))
    if isinstance(answer, Exception):
        raise answer
    return cast(Checked, answer)


def _send(pipe: IO[bytes] | None, message: object) -> None:
    assert pipe is not None
    pickle.dump(message, pipe)
    pipe.flush()


def main() -> None:
    """Read a job and then parts from stdin until it ends, and answer each part on stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller ends its processes itself
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    job: Job[Any] = pickle.load(asked)
    checker: Checker | None = None
    with suppress(EOFError, BrokenPipeError):  # the caller has what it wanted, or is gone
        while True:
            part = pickle.load(asked)
            answer: Checked | Exception
            try:
                checker = checker or Checker(job)
                answer = checker.check(part)
            except (InputError, OSError) as error:
                answer = error
            _send(answers, answer)


if __name__ == "__main__":
    main()
