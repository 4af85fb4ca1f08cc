"""Checking the records of a file, some lines at a time: what is wrong with them, and what reading them changes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from coordcore import Problem
from coordcore.quantisation import Quantisation
from coordcore.records.record import RecordError
from coordcore_coord_tokens.files import Stamp, has_changed, open_regular, shown
from coordcore_coord_tokens.folders import FOLDERS, ImageFolders
from coordcore_coord_tokens.reader import Reader

if TYPE_CHECKING:
    from coordcore_coord_tokens.config import CoordJsonlConfig

SHOWN_PROBLEMS = 20
"""Problems reported one by one for each file; the rest is counted."""


@attrs.frozen(kw_only=True)
class Part:
    """Some lines of a file: the number of the first, and the bytes from `start` to `end` that they take."""

    first: int
    start: int
    end: int


@attrs.frozen(kw_only=True)
class Checked:
    """What was found in some lines.

    wrong: records with a problem. problems: those of the first of them, at most one more than is shown.
    widened, clipped: as in `Answer`. folders: as `ImageFolders.take_stamps`.
    """

    wrong: int
    problems: tuple[Problem, ...]
    widened: int
    clipped: int
    folders: dict[str, Stamp | None] | None


@attrs.frozen(kw_only=True)
class Job:
    """The file to check, the state it is in, and the settings to check it by."""

    path: Path
    stamp: Stamp
    config: CoordJsonlConfig
    quantisation: Quantisation


class Checker:
    """Checks parts of a file. It can live in a process of its own."""

    def __init__(self, job: Job) -> None:
        self._path = job.path
        self._reader = Reader(job.config, job.quantisation)
        self._root = job.config.image_root or job.path.parent
        self._images = ImageFolders(str(self._root))
        self._descriptor, stamp = open_regular(job.path)
        if not stamp.same_content(job.stamp):
            raise has_changed(job.path)

    def check(self, part: Part) -> Checked:
        """Read every record of a part and look for its image. Raises OSError."""
        data = os.pread(self._descriptor, part.end - part.start, part.start)
        check, has = self._reader.check, self._images.has
        problems: list[Problem] = []
        wrong = widened = clipped = 0
        for number, line in enumerate(io.BytesIO(data), start=part.first):
            try:
                record, answer = check(line)
                image = record.images[0]
                if not has(image):
                    raise RecordError("images[0]", f"no image file at {self._root / image}")
            except RecordError as error:
                wrong += 1
                if wrong <= SHOWN_PROBLEMS + 1:
                    problems.append(problem(self._path, error.message, number, error.path))
            else:
                widened += answer.widened
                clipped += answer.clipped
        return Checked(
            wrong=wrong, problems=tuple(problems), widened=widened, clipped=clipped, folders=self._images.take_stamps()
        )

    def close(self) -> None:
        os.close(self._descriptor)


def total(parts: Iterable[Checked]) -> Checked:
    """What was found in all parts together, which come in the order of the file."""
    problems: list[Problem] = []
    folders: dict[str, Stamp | None] | None = {}
    wrong = widened = clipped = 0
    for part in parts:
        wrong += part.wrong
        widened += part.widened
        clipped += part.clipped
        problems.extend(part.problems[: SHOWN_PROBLEMS + 1 - len(problems)])
        if folders is None or part.folders is None:
            folders = None
            continue
        for folder, stamp in part.folders.items():
            # Another process may have found it in another state: then neither stands for what both saw.
            folders[folder] = stamp if folders.get(folder, stamp) == stamp else None
        if len(folders) > FOLDERS:
            folders = None
    return Checked(wrong=wrong, problems=tuple(problems), widened=widened, clipped=clipped, folders=folders)


def problem(path: Path, message: str, line: int | None = None, place: str = "") -> Problem:
    return Problem(path=place, message=message, file=shown(path), line=line)
