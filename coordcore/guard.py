"""Keeps what a plugin does while it is imported or asked from reaching anybody else. Torch-free."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import attrs

HEAVY = ("torch", "transformers", "swift")
"""What takes seconds to import, and would make every command slow."""


@attrs.define
class Watch:
    """What a plugin did. error: what it raised. notes: what it must not do, and what became of it."""

    error: BaseException | None = None
    notes: tuple[str, ...] = ()


@contextmanager
def guarded() -> Iterator[Watch]:
    """Within this block nothing a plugin raises gets out (but KeyboardInterrupt), nor what it prints or changes.

    What it prints would stand in the middle of `--json`. The working directory, the environment, `sys.argv` and the
    entries of `sys.path` are put back.
    """
    watch = Watch()
    notes: list[str] = []
    folder, heavy = _folder(), {name for name in HEAVY if name in sys.modules}
    environment, argv, path, limit = dict(os.environ), sys.argv[:], sys.path[:], sys.getrecursionlimit()
    try:
        with _stdout_aside(notes):
            yield watch
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a SystemExit, too, is no reason to stop somebody else's run
        watch.error = error
    sys.setrecursionlimit(limit)
    if folder is not None and _folder() != folder:
        os.chdir(folder)
        notes.append("changed the working directory, which was undone")
    if dict(os.environ) != environment or sys.argv != argv or not set(path) <= set(sys.path):
        os.environ.clear()
        os.environ.update(environment)
        sys.argv[:], sys.path[:] = argv, [*path, *(entry for entry in sys.path if entry not in path)]
        notes.append("changed the environment, sys.argv or sys.path, which was undone")
    if imported := [name for name in HEAVY if name in sys.modules and name not in heavy]:
        notes.append(f"imports {', '.join(imported)}, which makes every command slow")
    watch.notes = tuple(notes)


@contextmanager
def _stdout_aside(notes: list[str]) -> Iterator[None]:
    """Within this block what goes to stdout, by whatever way, goes into a note."""
    sys.stdout.flush()
    stdout = os.dup(1)
    with tempfile.TemporaryFile("w+", errors="replace") as aside:
        os.dup2(aside.fileno(), 1)
        try:
            with redirect_stdout(aside):
                yield
        finally:
            aside.flush()
            if sys.__stdout__ is not None and not sys.__stdout__.closed:
                sys.__stdout__.flush()
            os.dup2(stdout, 1)  # also where the plugin has closed it
            os.close(stdout)
            aside.seek(0)
            if text := " ".join(aside.read().split()):
                shown = text if len(text) <= 60 else f"{text[:60]}..."
                notes.append(f"printed {shown!r}, which was left out")


def _folder() -> str | None:
    """The working directory, None where it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def told(error: BaseException) -> str:
    """What was raised, on one line, even where its own text cannot be had."""
    with guarded() as watch:
        return " ".join(f"{type(error).__name__}: {error}".split())
    return f"{type(error).__name__} (which cannot be shown: {type(watch.error).__name__})"
