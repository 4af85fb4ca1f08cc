"""The errors a user reads, and the problems of a manifest. Torch-free, and light: every module imports it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import attrs

# Control characters but for the line break, what turns the direction of text, and halves of surrogate pairs.
_UNSAFE = re.compile("[\x00-\t\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` as a terminal and a log may hold it: what would steer them, or cannot be encoded, is escaped."""
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)


def shortened(text: str, most: int) -> str:
    """`text`, or its beginning and its length where it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[: most * 3 // 4]}... ({len(text)} characters)"


def _message(text: str) -> str:
    """A message as it is told: `printable`, and no line of it endless, whatever value it repeats."""
    return "\n".join(shortened(line, 5_400) for line in printable(text).split("\n"))


class InputError(ValueError):
    """The user's input is wrong: the text is the whole message (path, value seen, cure). Exit code 2."""

    def __str__(self) -> str:
        return _message(super().__str__())


class RunError(RuntimeError):
    """The run failed for a reason the user should read (not the input): the text is the whole message. Exit code 1."""

    def __str__(self) -> str:
        return _message(super().__str__())


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
        parts = shortened(where, 1_000), shortened(self.path, 200), shortened(self.message, 4_000)
        return printable(": ".join(part for part in parts if part))


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
    close = get_close_matches(name, every, n=1, cutoff=0.65) if isinstance(name, str) else []
    if close:
        return f"did you mean {close[0]!r}?"
    return (f"known: {', '.join(every)}" if every else "there are none here") if known else ""
