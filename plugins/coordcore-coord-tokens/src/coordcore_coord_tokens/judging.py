"""Whether a line holds what can be trained on, and its images are there: what a check asks of each line."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from coordcore import InputError
from coordcore.records.images import image_path, open_upright
from coordcore.records.record import Record, RecordError
from coordcore_coord_tokens.answer import Changes
from coordcore_coord_tokens.augment.check import Augmented
from coordcore_coord_tokens.files import Stamp
from coordcore_coord_tokens.folders import ImageFolders
from coordcore_coord_tokens.locate import are_fractions
from coordcore_coord_tokens.questions import Questions
from coordcore_coord_tokens.reader import Reader

if TYPE_CHECKING:
    from coordcore_coord_tokens.checking import Job
    from coordcore_coord_tokens.config import CoordJsonlConfig, LinesConfig

MOST_PIXELS = 2 * (1024**3 // 4 // 3)
"""Pillow takes an image of more pixels for an attack (`Image.MAX_IMAGE_PIXELS`, twice), and opens none."""

_SILENT, _SPECK = Changes(silent=1), Changes(specks=1)

Judged = tuple[Changes, str]
"""What reading the record had to change, and why it is left out for its image: "" for one that stays."""


class Judge(Protocol):
    """Judges the lines of one file."""

    def judge(self, line: bytes) -> Judged:
        """Raises RecordError."""
        ...

    def take_stamps(self) -> dict[str, Stamp | None] | None:
        """As `ImageFolders.take_stamps`."""
        ...


class Images:
    """The images that the lines of one file name."""

    def __init__(self, config: LinesConfig, path: Path) -> None:
        self.root = config.image_root or path.parent
        self.folders = ImageFolders(str(self.root))
        self._within = config.images_within
        self._aspect = config.max_aspect or inf

    def require(self, image: str, place: str) -> None:
        """Raise RecordError unless the image lies where it may and is there. place: "images[0]"."""
        if image.startswith("/") or ".." in image:
            try:
                image_path(self.root, image, self._within)
            except ValueError as error:  # also a NUL byte, which no path can have
                raise RecordError(place, str(error), reason="lies outside the folder of the images") from error
        if not self.folders.has(image):
            raise RecordError(place, f"no image file at {self.root / image}")

    def require_size(self, width: int, height: int, place: str) -> None:
        """Raise RecordError for a size that cannot be trained on. place: what says it."""
        if width <= self._aspect * height and height <= self._aspect * width and width * height <= MOST_PIXELS:
            return
        if width * height > MOST_PIXELS:
            raise RecordError(place, f"{width} x {height} are more than the {MOST_PIXELS} pixels that Pillow opens")
        raise RecordError(
            place,
            f"{width} x {height} is {max(width, height) / min(width, height):.4g} times as long one way as the other; "
            f"the image processor takes up to {self._aspect:g} (`max_aspect`): cut the image, or leave it out",
        )


class RecordJudge:
    """Judges records."""

    def __init__(self, job: Job[CoordJsonlConfig]) -> None:
        self._check = Reader(job.config, job.quantisation, job.coords, job.form).check
        self._questions = Questions(config=job.config, quantisation=job.quantisation, coords=job.coords, path=job.path)
        self._images = Images(job.config, job.path)
        trained = job.path == job.config.train
        self._augmented = Augmented(job.config) if job.config.augment is not None and trained else None
        self._pixels = job.config.space == "pixel" and job.config.mode != "summary"  # which reads no objects
        self._decodes, self._skips = job.config.decodes, job.config.on_bad_image == "skip"
        self.take_stamps = self._images.folders.take_stamps

    def judge(self, line: bytes) -> Judged:
        record, answer = self._check(line)
        if record.task is not None:
            self._questions.ask(record, "")
        if self._augmented is not None:
            self._augmented.require(record)
        changes = answer.changes
        if self._pixels and not record.objects:
            changes += _SILENT
        elif self._pixels and are_fractions(_numbers(record)):
            changes += _SPECK
        image, width, height = record.images[0], record.width, record.height
        try:
            self._images.require_size(width, height, "width")
            self._images.require(image, "images[0]")
            if self._decodes:
                _decode(self._images.root / image, width, height)
        except RecordError as error:
            if not self._skips:
                raise
            return answer.changes + _SILENT, str(error)
        return changes, ""


def _numbers(record: Record) -> Iterator[float]:
    for item in record.objects or ():
        yield from item.bbox_2d or item.poly or item.point or item.quad or ()  # type: ignore[misc]  # texts are bins


def _decode(path: Path, width: int, height: int) -> None:
    try:
        open_upright(path, width=width, height=height)
    except InputError as error:
        raise RecordError("images[0]", str(error)) from error
