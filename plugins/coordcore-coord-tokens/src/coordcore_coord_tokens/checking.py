"""Checking the records of a file, some lines at a time: what is wrong with them, and what reading them changes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from coordcore import InputError, Problem
from coordcore.coords import CoordFormat
from coordcore.quantisation import Quantisation
from coordcore.records.answers import Format
from coordcore.records.images import image_path, open_upright
from coordcore.records.record import Record, RecordError
from coordcore_coord_tokens.files import Stamp, has_changed, open_regular, shown
from coordcore_coord_tokens.folders import FOLDERS, ImageFolders
from coordcore_coord_tokens.reader import Reader

if TYPE_CHECKING:
    from coordcore_coord_tokens.config import CoordJsonlConfig

MOST_PIXELS = 2 * (1024**3 // 4 // 3)
"""Pillow takes an image of more pixels for an attack (`Image.MAX_IMAGE_PIXELS`, twice), and opens none."""

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
    widened, clipped: as in `Answer`. folders: as `ImageFolders.take_stamps`. bad: the records that are left out for
    their image, with the reason.
    """

    bad: tuple[tuple[int, str], ...] = ()
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
    coords: CoordFormat
    form: Format


class Checker:
    """Checks parts of a file. It can live in a process of its own."""

    def __init__(self, job: Job) -> None:
        self._path = job.path
        self._reader = Reader(job.config, job.quantisation, job.coords, job.form)
        self._root = job.config.image_root or job.path.parent
        self._images = ImageFolders(str(self._root))
        self._config = job.config
        self._descriptor, stamp = open_regular(job.path)
        if not stamp.same_content(job.stamp):
            raise has_changed(job.path)

    def check(self, part: Part) -> Checked:
        """Read every record of a part and look for its image. Raises OSError."""
        data = os.pread(self._descriptor, part.end - part.start, part.start)
        check, has = self._reader.check, self._images.has
        problems: list[Problem] = []
        wrong = widened = clipped = 0
        bad: list[tuple[int, str]] = []
        decodes, skips, aspect = (
            self._config.decodes,
            self._config.on_bad_image == "skip",
            self._config.max_aspect or inf,
        )
        for number, line in enumerate(io.BytesIO(data), start=part.first):
            try:
                record, answer = check(line)
                image, width, height = record.images[0], record.width, record.height
                try:
                    if width > aspect * height or height > aspect * width or width * height > MOST_PIXELS:
                        raise _odd_size(record, aspect)
                    _require_inside(self._root, image, self._config.images_within)
                    if not has(image):
                        raise RecordError("images[0]", f"no image file at {self._root / image}")
                    if decodes:
                        _decode(self._root / image, record)
                except RecordError as error:
                    if not skips:
                        raise
                    bad.append((number, str(error)))
            except RecordError as error:
                wrong += 1
                if wrong <= SHOWN_PROBLEMS + 1:
                    problems.append(problem(self._path, error.message, number, error.path))
            else:
                widened += answer.widened
                clipped += answer.clipped
        return Checked(
            bad=tuple(bad),
            wrong=wrong,
            problems=tuple(problems),
            widened=widened,
            clipped=clipped,
            folders=self._images.take_stamps(),
        )

    def close(self) -> None:
        os.close(self._descriptor)


def _require_inside(root: Path, image: str, within: Path | None) -> None:
    if image.startswith("/") or ".." in image:
        try:
            image_path(root, image, within)
        except ValueError as error:  # also a NUL byte, which no path can have
            raise RecordError("images[0]", str(error), reason="lies outside the folder of the images") from error


def _odd_size(record: Record, aspect: float) -> RecordError:
    width, height = record.width, record.height
    if width * height > MOST_PIXELS:
        return RecordError("width", f"{width} x {height} are more than the {MOST_PIXELS} pixels that Pillow opens")
    return RecordError(
        "width",
        f"{width} x {height} is {max(width, height) / min(width, height):.4g} times as long one way as the other; "
        f"the image processor takes up to {aspect:g} (`max_aspect`): cut the image, or leave it out",
    )


def _decode(path: Path, record: Record) -> None:
    try:
        open_upright(path, width=record.width, height=record.height)
    except InputError as error:
        raise RecordError("images[0]", str(error)) from error


def total(parts: Iterable[Checked]) -> Checked:
    """What was found in all parts together, which come in the order of the file."""
    problems: list[Problem] = []
    bad: list[tuple[int, str]] = []
    folders: dict[str, Stamp | None] | None = {}
    wrong = widened = clipped = 0
    for part in parts:
        bad.extend(part.bad)
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
    return Checked(
        bad=tuple(bad), wrong=wrong, problems=tuple(problems), widened=widened, clipped=clipped, folders=folders
    )


def problem(path: Path, message: str, line: int | None = None, place: str = "") -> Problem:
    return Problem(path=place, message=message, file=shown(path), line=line)
