"""Keeps what a plugin does while it is imported or asked from reaching anybody else. Torch-free."""

from __future__ import annotations

import io
import os
import sys
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
    """Within this block nothing a plugin raises gets out (but KeyboardInterrupt), nor what it prints, nor its `chdir`.

    What it prints would stand in the middle of `--json`.
    """
    watch, printed = Watch(), io.StringIO()
    folder, heavy = _folder(), {name for name in HEAVY if name in sys.modules}
    try:
        with redirect_stdout(printed):
            yield watch
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a SystemExit, too, is no reason to stop somebody else's run
        watch.error = error
    notes = []
    if text := " ".join(printed.getvalue().split()):
        shown = text if len(text) <= 60 else f"{text[:60]}..."
        notes.append(f"printed {shown!r}, which was left out")
    if folder is not None and _folder() != folder:
        os.chdir(folder)
        notes.append("changed the working directory, which was undone")
    if imported := [name for name in HEAVY if name in sys.modules and name not in heavy]:
        notes.append(f"imports {', '.join(imported)}, which makes every command slow")
    watch.notes = tuple(notes)


def _folder() -> str | None:
    """The working directory, None where it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None
