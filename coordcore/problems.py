"""Problems put in order, and the error that carries them. Torch-free, and light: every command imports it."""

from __future__ import annotations

from collections.abc import Iterable

from coordcore.components import Problem
from coordcore.records import InputError


class ManifestError(InputError):
    """A manifest is wrong. `problems` holds everything that was found, in order; the text is one problem per line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = in_order(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """By file, line and path, each once; what came from `--set` last."""

    def key(one: Problem) -> tuple[bool, str, int, str]:
        file = one.file or ""
        return file.startswith("--set "), file, one.line or 0, one.path

    return sorted(dict.fromkeys(problems), key=key)
