"""The data builder `chat_jsonl`: a JSONL file of chat rows as examples, each read from its line when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import attrs

from coordcore import BuildContext, Example, InputError, Problem
from coordcore.files import require_regular
from coordcore.records.images import image_path, open_upright
from coordcore.records.record import RecordError
from coordcore_coord_tokens.chat.config import ChatJsonlConfig
from coordcore_coord_tokens.chat.reader import ChatReader, Size
from coordcore_coord_tokens.judging import Images, Judged
from coordcore_coord_tokens.sources import OpenedFile, file_problems, open_files

if TYPE_CHECKING:
    from coordcore.coords import CoordFormat
    from coordcore.quantisation import Quantisation
    from coordcore.records.answers import Format
    from coordcore_coord_tokens.chat.rows import ChatRow
    from coordcore_coord_tokens.checking import Job

_ORIENTATION = 0x0112  # EXIF tag
_ON_ITS_SIDE = range(5, 9)

Read = TypeVar("Read")


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
                return 0, 0, str(error)
        said = self._reader.say(row, sizes)
        return said.widened, said.clipped, ""

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


def upright_size(path: Path) -> Size:
    """Width and height of an image turned by its EXIF orientation, without decoding it. Raises InputError."""
    from PIL import Image

    try:
        require_regular(path)
        with Image.open(path) as file:
            # Not `file.getexif()`: of a PNG file that decodes the image, for what might stand behind its pixels.
            turned = Image.Image.getexif(file).get(_ORIENTATION) in _ON_ITS_SIDE
            width, height = file.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"image {path} cannot be read: {error}") from error
    return (height, width) if turned else (width, height)


@attrs.frozen(kw_only=True)
class ChatSource:
    """The examples of one JSONL file of chat rows. Reads one of its lines at each access.

    It can be pickled, and shared with forked processes. Raises InputError ("train.jsonl:17: objects.bbox[2]: ...")
    for a row or image that is not right, and when the file has changed.
    """

    config: ChatJsonlConfig
    reader: ChatReader = attrs.field(repr=False)
    file: OpenedFile

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int, /) -> Example:
        line = self.file.line_of(index)
        with self._told(line):
            row = self.reader.read(self.file.lines.read(line))
            images = self._each(row, open_upright)
            said = self.reader.say(row, [image.size for image in images])
        return Example(
            messages=said.messages,
            images=images,
            geometries=said.geometries,
            source=self._where(line),
            image_size=said.image_size,
        )

    def length(self, epoch: int, index: int) -> tuple[int, list[Size]]:
        """About how many tokens its texts have, and the sizes of its images, as `ExampleSource` says.

        Of the images, the heads of their files are read.
        """
        line = self.file.line_of(index)
        with self._told(line):
            row = self.reader.read(self.file.lines.read(line))
            sizes = self._each(row, upright_size)
            said = self.reader.say(row, sizes)
        text = "".join(message["content"] for message in said.messages)
        return self.reader.coords.rough_length(text), sizes

    def _each(self, row: ChatRow, read: Callable[[Path], Read]) -> list[Read]:
        """What `read` gives of each image of a row. Raises RecordError."""
        root, found = self.config.image_root or self.file.lines.path.parent, []
        for number, name in enumerate(row.images):
            try:
                found.append(read(image_path(root, name, self.config.images_within)))
            except InputError as error:
                raise RecordError(f"images[{number}]", str(error)) from error
        return found

    def _where(self, line: int) -> str:
        return f"{self.file.name}:{line + 1}"

    @contextmanager
    def _told(self, line: int) -> Iterator[None]:
        """Say of a RecordError on which line it is."""
        try:
            yield
        except RecordError as error:
            self.file.lines.look()  # what stands in the middle of another file's line is no mistake of the row
            raise InputError(f"{self._where(line)}: {error}") from error


@attrs.frozen(kw_only=True)
class ChatJsonl:
    """The `DataBuilder` of `[data.chat_jsonl]`."""

    train_source: ChatSource
    validation_source: ChatSource | None

    @classmethod
    def open(cls, config: ChatJsonlConfig, context: BuildContext) -> ChatJsonl:
        """Index the files. Raises InputError with up to 20 problems of each file; logs what reading had to change."""
        reader = ChatReader(config=config, quantisation=context.quantisation, coords=context.coords)
        files = open_files(config, context, ChatJudge)
        train, *held_out = [ChatSource(config=config, reader=reader, file=file) for file in files]
        return cls(train_source=train, validation_source=held_out[0] if held_out else None)

    def train(self) -> ChatSource:
        return self.train_source

    def validation(self) -> ChatSource | None:
        return self.validation_source
