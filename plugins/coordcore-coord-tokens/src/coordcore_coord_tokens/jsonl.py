"""The data builder `coord_jsonl`: a JSONL file as examples, each read from its line when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from coordcore import BuildContext, Example, InputError, Problem
from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.records.answers import COORDJSON, Format
from coordcore.records.images import image_path, open_upright
from coordcore.records.record import Record, RecordError
from coordcore_coord_tokens.answer import Answer
from coordcore_coord_tokens.judging import RecordJudge
from coordcore_coord_tokens.reader import Reader
from coordcore_coord_tokens.sources import OpenedFile, file_problems, open_files

if TYPE_CHECKING:
    from PIL.Image import Image

    from coordcore.quantisation import Quantisation
    from coordcore_coord_tokens.augment.source import AugmentedSource
    from coordcore_coord_tokens.config import CoordJsonlConfig


def record_problems(
    config: CoordJsonlConfig,
    quantisation: Quantisation,
    coords: CoordFormat = DEFAULT_COORDS,
    form: Format = COORDJSON,
) -> Iterator[Problem]:
    """What is wrong with the records of a run, for `coordcore check`, which reports missing files itself."""
    return file_problems(config, quantisation, coords, form, RecordJudge)


@attrs.frozen(kw_only=True)
class JsonlSource:
    """The examples of one JSONL file. Holds where its lines start, and reads one of them at each access.

    It can be pickled, and shared with forked processes. Raises InputError ("train.jsonl:17: objects[2].bbox_2d: ...")
    for a record or image that is not right, and when the file has changed.
    """

    config: CoordJsonlConfig
    reader: Reader = attrs.field(repr=False)
    file: OpenedFile

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int, /) -> Example:
        line = self.file.line_of(index)
        record, answer = self.read(line)
        return self.example(record, answer, self.image(record, line), line)

    def where(self, line: int) -> str:
        return f"{self.file.name}:{line + 1}"

    def image(self, record: Record, line: int) -> Image:
        """The image of the record on a line."""
        root = self.config.image_root or self.file.lines.path.parent
        try:
            path = image_path(root, record.images[0], self.config.images_within)
            return open_upright(path, width=record.width, height=record.height)
        except InputError as error:
            raise InputError(f"{self.where(line)}: images[0]: {error}") from error

    def example(self, record: Record, answer: Answer, image: Image, line: int) -> Example:
        """What a record and its answer say of an image that is `record.width` x `record.height`."""
        messages = [
            {"role": "user", "content": f"<image>{self.config.question}"},
            {"role": "assistant", "content": answer.text},
        ]
        if self.config.system is not None:
            messages.insert(0, {"role": "system", "content": self.config.system})
        return Example(
            messages=messages,
            images=[image],
            geometries=answer.geometries,
            source=self.where(line),
            image_size=(record.width, record.height),
        )

    def read(self, line: int) -> tuple[Record, Answer]:
        """The record on a line, from 0, and its answer, without the image."""
        try:
            return self.reader.read(self.file.lines.read(line))
        except RecordError as error:
            self.file.lines.look()  # what stands in the middle of another file's line is no mistake of the record
            raise InputError(f"{self.where(line)}: {error}") from error


@attrs.frozen(kw_only=True)
class CoordJsonl:
    """The `DataBuilder` of `[data.coord_jsonl]`."""

    train_source: JsonlSource | AugmentedSource
    validation_source: JsonlSource | None

    @classmethod
    def open(cls, config: CoordJsonlConfig, context: BuildContext) -> CoordJsonl:
        """Index the files. Raises InputError with up to 20 problems of each file; logs what reading had to change."""
        reader = Reader(config, context.quantisation, context.coords, context.format)
        files = open_files(config, context, RecordJudge)
        train, *held_out = [JsonlSource(config=config, reader=reader, file=file) for file in files]
        if config.augment is None:
            return cls(train_source=train, validation_source=held_out[0] if held_out else None)
        from coordcore_coord_tokens.augment.source import AugmentedSource

        changed = AugmentedSource(plain=train, augment=config.augment, seed=context.seed)
        return cls(train_source=changed, validation_source=held_out[0] if held_out else None)

    def train(self) -> JsonlSource | AugmentedSource:
        return self.train_source

    def validation(self) -> JsonlSource | None:
        return self.validation_source
