"""The errors a user reads, and the problems of a manifest. Torch-free, and light: every module imports it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import attrs


class InputError(ValueError):
    """The user's input is wrong: the text is the whole message (path, value seen, cure). Exit code 2."""


class RunError(RuntimeError):
    """The run failed for a reason the user should read (not the input): the text is the whole message. Exit code 1."""


@attrs.frozen(kw_only=True)
class Problem:
    """One thing that is wrong with the input, where it stands and how to mend it.

    path: dotted manifest path ("loss.coord_soft_ce_w1.sigma"), "" for the file as a whole.
    message: lower case, with the value seen and the cure.
    file, line: filled in by the core from `path` when a plugin leaves them out.
    """

    path: str
    message: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        return ": ".join(part for part in (where, self.path, self.message) if part)


class ManifestError(InputError):
    """A manifest is wrong. `problems` holds everything that was found, in order; the text is one problem per line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = in_order(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """By file, line and path, each once; what came from `--set` last."""

    def key(problem: Problem) -> tuple[bool, str, int, str]:
        file = problem.file or ""
        return file.startswith("--set "), file, problem.line or 0, problem.path

    return sorted(dict.fromkeys(problems), key=key)


def did_you_mean(name: Any, names: Iterable[str], *, known: bool = True) -> str:
    """The name that was meant, or else (if `known`) all of them: the end of a message about an unknown name."""
    every = sorted(str(name) for name in names)
    close = get_close_matches(name, every, n=1) if isinstance(name, str) else []
    if close:
        return f"did you mean {close[0]!r}?"
    return (f"known: {', '.join(every)}" if every else "there are none here") if known else ""
