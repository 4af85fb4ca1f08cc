"""`coordcore predict --procs N`: the same command in N processes, each with its share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import IO, NoReturn

import typer

from coordcore.errors import RunError
from coordcore_detection.predict.shares import OURS
from coordcore_train.run.launch import PARENT

COMMAND = (sys.executable, "-P", "-m", "coordcore", "predict")  # -P: this folder is no place of modules


def run(context: typer.Context, count: int) -> None:
    """Run this command once for each share, and wait for all of them.

    Raises RunError, when all have ended, where one failed; typer.Exit where it was the same for all, and is told.
    """
    command = [*COMMAND, *words(context, without=("procs", "overwrite"))]
    threads = str(max(1, (os.cpu_count() or 1) // count))
    environment = {"OMP_NUM_THREADS": threads, **os.environ, PARENT: str(os.getpid())}
    codes = watched([command] * count, [{**environment, OURS: f"{rank}/{count}"} for rank in range(count)])
    if len({*codes}) == 1 and codes[0] in (1, 2):
        raise typer.Exit(codes[0])
    ended = [f"process {rank} of {count} {_end(code)}" for rank, code in enumerate(codes) if code]
    if ended:
        raise RunError(f"{'; '.join(ended)}; what was answered is kept: give the same command again")


def _end(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed (exit code {code})"


def words(context: typer.Context, without: Collection[str]) -> list[str]:
    """What of the command line gave the command its arguments, but for those `without`."""
    options, arguments = [], []
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in without or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        for item in value if isinstance(value, list | tuple) else [value]:
            text = str(item.value if isinstance(item, Enum) else item)
            if parameter.param_type_name == "argument":
                arguments.append(text)
            elif isinstance(item, bool):
                options.append((parameter.opts if item else parameter.secondary_opts)[0])
            else:
                options.append(f"{parameter.opts[0]}={text}")
    return [*options, "--", *arguments]


def watched(commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]]) -> list[int]:
    """The exit codes of these commands, run side by side. What several of them print as an error is printed once.

    They end when this process is interrupted, or ended.
    """
    told: set[str] = set()
    lock = threading.Lock()

    def relay(stream: IO[str]) -> None:
        for line in stream:
            with lock:
                if line not in told:
                    told.add(line)
                    typer.echo(line, err=True, nl=False)

    def end(*_: object) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end) if threading.current_thread() is threading.main_thread() else None
    started: list[subprocess.Popen[str]] = []
    readers: list[threading.Thread] = []
    try:
        for command, environment in zip(commands, environments, strict=True):
            process = subprocess.Popen(
                command, env=dict(environment), stderr=subprocess.PIPE, text=True, errors="replace"
            )
            started.append(process)
            readers.append(threading.Thread(target=relay, args=[process.stderr], daemon=True))
            readers[-1].start()
        return [process.wait() for process in started]
    except BaseException:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()
        raise
    finally:
        for reader in readers:
            reader.join()
        if before is not None:
            signal.signal(signal.SIGTERM, before)
