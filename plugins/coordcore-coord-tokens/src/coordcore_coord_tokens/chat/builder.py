"""The data builder `chat_jsonl`: a file of chat rows as examples, each read from its line when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import attrs

from coordcore import BuildContext, Example, InputError, Problem
from coordcore.records.images import image_path, open_upright
from coordcore.records.record import RecordError
from coordcore_coord_tokens.answer import UNCHANGED
from coordcore_coord_tokens.chat.augmented import AugmentedRows, Mirroring
from coordcore_coord_tokens.chat.config import ChatJsonlConfig
from coordcore_coord_tokens.chat.reader import ChatReader, Said, Size
from coordcore_coord_tokens.chat.sizes import upright_size
from coordcore_coord_tokens.judging import Images, Judged
from coordcore_coord_tokens.sources import OpenedFile, file_problems, open_files

if TYPE_CHECKING:
    from PIL.Image import Image

    from coordcore.coords import CoordFormat
    from coordcore.quantisation import Quantisation
    from coordcore.records.answers import Format
    from coordcore_coord_tokens.chat.rows import ChatRow
    from coordcore_coord_tokens.checking import Job

Opened = TypeVar("Opened")


def row_problems(
    config: ChatJsonlConfig, quantisation: Quantisation, coords: CoordFormat, form: Format
) -> Iterator[Problem]:
    """What is wrong with the rows of a run, for `coordcore check`, which reports missing files itself."""
    return file_problems(config, quantisation, coords, form, ChatJudge)


class ChatJudge:
    """Judges chat rows. The size of every image is read from its file."""

    def __init__(self, job: Job[ChatJsonlConfig]) -> None:
        self._reader = ChatReader(config=job.config, quantisation=job.quantisation, coords=job.coords)
        self._images = Images(job.config, job.path)
        self._size = _decoded_size if job.config.decodes else upright_size
        self._skips = job.config.on_bad_image == "skip"
        augment = job.config.augment if job.path == job.config.train else None
        self._mirroring = Mirroring(self._reader, augment) if augment is not None and augment.flip > 0 else None
        self.take_stamps = self._images.folders.take_stamps

    def judge(self, line: bytes) -> Judged:
        row = self._reader.read(line)
        sizes = []
        for number, image in enumerate(row.images):
            try:
                sizes.append(self._require(image, f"images[{number}]"))
            except RecordError as error:
                if not self._skips:
                    raise
                return UNCHANGED, str(error)
        said = self._reader.say(row, sizes)
        if self._mirroring is not None:
            self._mirroring.say(row, sizes)
        return said.changes, ""

    def _require(self, image: str, place: str) -> Size:
        self._images.require(image, place)
        try:
            width, height = self._size(self._images.root / image)
        except InputError as error:
            raise RecordError(place, str(error)) from error
        self._images.require_size(width, height, place)
        return width, height


def _decoded_size(path: Path) -> Size:
    width, height = open_upright(path).size
    return width, height


@attrs.frozen(kw_only=True)
class ChatSource:
    """The examples of one file of chat rows, on lines or in one array. Reads one of its rows at each access.

    It can be pickled, and shared with forked processes. Raises InputError ("train.jsonl:17: objects.bbox[2]: ...",
    "train.json[16]: ..." of an array) for a row or image that is not right, and when the file has changed.
    """

    config: ChatJsonlConfig
    reader: ChatReader = attrs.field(repr=False)
    file: OpenedFile

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int, /) -> Example:
        line = self.file.line_of(index)
        with self.told(line):
            row, images = self.read(line, open_upright)
            said = self.reader.say(row, [image.size for image in images])
        return self.example(line, said, images)

    def length(self, epoch: int, index: int) -> tuple[int, list[Size]]:
        """About how many tokens its texts have, and the sizes of its images, as `ExampleSource` says.

        Of the images, the heads of their files are read.
        """
        line = self.file.line_of(index)
        with self.told(line):
            row, sizes = self.read(line, upright_size)
            said = self.reader.say(row, sizes)
        return self.reader.coords.rough_length(said.text), sizes

    def example(self, line: int, said: Said, images: Sequence[Image]) -> Example:
        """What the row on a line says of its images."""
        return Example(
            messages=said.messages,
            images=images,
            geometries=said.geometries,
            source=self.file.where(line),
            image_size=None if said.owner is None else images[said.owner].size,
        )

    def read(self, line: int, opened: Callable[[Path], Opened]) -> tuple[ChatRow, list[Opened]]:
        """The row on a line, from 0, and what `opened` gives of each of its images. Raises RecordError."""
        row = self.reader.read(self.file.lines.read(line))
        root, found = self.config.image_root or self.file.lines.path.parent, []
        for number, name in enumerate(row.images):
            try:
                found.append(opened(image_path(root, name, self.config.images_within)))
            except InputError as error:
                raise RecordError(f"images[{number}]", str(error)) from error
        return row, found

    @contextmanager
    def told(self, line: int) -> Iterator[None]:
        """Say of a RecordError on which line it is."""
        try:
            yield
        except RecordError as error:
            self.file.lines.look()  # what stands in the middle of another file's line is no mistake of the row
            raise InputError(f"{self.file.where(line)}: {error}") from error


@attrs.frozen(kw_only=True)
class ChatJsonl:
    """The `DataBuilder` of `[data.chat_jsonl]`."""

    train_source: ChatSource
    validation_source: ChatSource | None
    seed: int = 0

    @classmethod
    def open(cls, config: ChatJsonlConfig, context: BuildContext) -> ChatJsonl:
        """Index the files. Raises InputError with up to 20 problems of each file; logs what reading had to change."""
        reader = ChatReader(config=config, quantisation=context.quantisation, coords=context.coords)
        files = open_files(config, context, ChatJudge)
        train, *held_out = [ChatSource(config=config, reader=reader, file=file) for file in files]
        return cls(train_source=train, validation_source=held_out[0] if held_out else None, seed=context.seed)

    def train(self) -> ChatSource | AugmentedRows:
        augment = self.train_source.config.augment
        if augment is not None:
            return AugmentedRows(plain=self.train_source, augment=augment, seed=self.seed)
        return self.train_source

    def validation(self) -> ChatSource | None:
        return self.validation_source
