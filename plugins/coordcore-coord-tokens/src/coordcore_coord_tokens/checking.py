"""Checking the records of a file, some lines at a time: what is wrong with them, and what reading them changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs

from coordcore import Problem
from coordcore.coords import CoordFormat
from coordcore.quantisation import Quantisation
from coordcore.records.answers import Format
from coordcore.records.record import RecordError
from coordcore_coord_tokens.answer import UNCHANGED, Changes
from coordcore_coord_tokens.config import LinesConfig
from coordcore_coord_tokens.files import Stamp, has_changed, open_regular
from coordcore_coord_tokens.folders import FOLDERS
from coordcore_coord_tokens.judging import Judge
from coordcore_coord_tokens.layout import Layout

Config = TypeVar("Config", bound=LinesConfig)

SHOWN_PROBLEMS = 20
"""Problems reported one by one for each file; the rest is counted."""


@attrs.frozen(kw_only=True)
class Part:
    """Some lines of a file, or rows of its array.

    first: the number of the first, from 1. start, end: the bytes that they take.
    """

    first: int
    start: int
    end: int


@attrs.frozen(kw_only=True)
class Checked:
    """What was found in some lines.

    wrong: records with a problem. problems: those of the first of them, at most one more than is shown.
    changes: what reading them had to change. folders: as `ImageFolders.take_stamps`. bad: the records that are left out
    for their image, with the reason.
    """

    bad: tuple[tuple[int, str], ...] = ()
    wrong: int
    problems: tuple[Problem, ...]
    changes: Changes
    folders: dict[str, Stamp | None] | None


@attrs.frozen(kw_only=True)
class Job(Generic[Config]):
    """The file to check, its state and layout, the settings to check it by, and what makes the judge of its lines."""

    path: Path
    stamp: Stamp
    config: Config
    quantisation: Quantisation
    coords: CoordFormat
    form: Format
    judge: Callable[[Job[Config]], Judge]
    layout: Layout


class Checker:
    """Checks parts of a file. It can live in a process of its own."""

    def __init__(self, job: Job[Any]) -> None:
        self._path, self._layout = job.path, job.layout
        self._judge = job.judge(job)
        self._descriptor, stamp = open_regular(job.path)
        if not stamp.same_content(job.stamp):
            raise has_changed(job.path)

    def check(self, part: Part) -> Checked:
        """Read every record of a part and look for its images. Raises OSError."""
        data = os.pread(self._descriptor, part.end - part.start, part.start)
        judge, layout = self._judge.judge, self._layout
        problems: list[Problem] = []
        wrong, changes = 0, UNCHANGED
        bad: list[tuple[int, str]] = []
        for number, piece in enumerate(layout.pieces(data, part.first), start=part.first):
            try:
                changed, reason = judge(layout.row(piece, number))
            except RecordError as error:
                wrong += 1
                if wrong <= SHOWN_PROBLEMS + 1:
                    problems.append(layout.problem(self._path, error.message, number, error.path))
            else:
                if changed is not UNCHANGED:  # as most are
                    changes += changed
                if reason:
                    bad.append((number, reason))
        return Checked(
            bad=tuple(bad),
            wrong=wrong,
            problems=tuple(problems),
            changes=changes,
            folders=self._judge.take_stamps(),
        )

    def close(self) -> None:
        os.close(self._descriptor)


def total(parts: Iterable[Checked]) -> Checked:
    """What was found in all parts together, which come in the order of the file."""
    problems: list[Problem] = []
    bad: list[tuple[int, str]] = []
    folders: dict[str, Stamp | None] | None = {}
    wrong, changes = 0, UNCHANGED
    for part in parts:
        bad.extend(part.bad)
        wrong += part.wrong
        changes += part.changes
        problems.extend(part.problems[: SHOWN_PROBLEMS + 1 - len(problems)])
        if folders is None or part.folders is None:
            folders = None
            continue
        for folder, stamp in part.folders.items():
            # Another process may have found it in another state: then neither stands for what both saw.
            folders[folder] = stamp if folders.get(folder, stamp) == stamp else None
        if len(folders) > FOLDERS:
            folders = None
    return Checked(
        bad=tuple(bad),
        wrong=wrong,
        problems=tuple(problems),
        changes=changes,
        folders=folders,
    )
