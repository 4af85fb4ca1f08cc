"""The data builder `coord_jsonl`: a JSONL file as examples, each read from its line when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import attrs

from coordcore import BuildContext, Example, InputError, Problem
from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.records.answers import COORDJSON, Format
from coordcore.records.images import image_path, open_upright
from coordcore.records.record import Record, RecordError
from coordcore.tasks import TASKS
from coordcore_coord_tokens.answer import Answer
from coordcore_coord_tokens.judging import RecordJudge
from coordcore_coord_tokens.questions import Questions
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
    questions: Questions = attrs.field(repr=False)
    file: OpenedFile
    seed: int = 0

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int, /) -> Example:
        """The example with the first wording of its prompt, and what is drawn from its place in the file alone."""
        return self._example(index, None)

    def in_epoch(self, epoch: int, index: int) -> Example:
        """The example with what is drawn for this epoch of a run with this seed."""
        return self._example(index, epoch)

    def length(self, epoch: int, index: int) -> tuple[int, list[tuple[int, int]]]:
        """About how many tokens its texts have, and the size of its image, as `ExampleSource` says."""
        record, answer, (question, _) = self._asked(self.file.line_of(index), epoch)
        text = f"{self.config.system or ''}{question}{answer.text}"
        return self.reader.coords.rough_length(text), [(record.width, record.height)]

    def _example(self, index: int, epoch: int | None) -> Example:
        line = self.file.line_of(index)
        record, answer, asked = self._asked(line, epoch)
        return self.example(record, answer, asked, self.image(record, line), line)

    def _asked(self, line: int, epoch: int | None) -> tuple[Record, Answer, tuple[str, tuple[str, ...]]]:
        """The record on a line, its answer, and what `Questions.ask` gives of it."""
        record, answer = self.read(line)
        try:
            asked = self.questions.ask(record, self.draw(line, epoch), varied=epoch is not None, cut=answer.cut)
            return record, answer, asked
        except RecordError as error:
            raise InputError(f"{self.where(line)}: {error}") from error

    def where(self, line: int) -> str:
        return self.file.where(line)

    def draw(self, line: int, epoch: int | None) -> str:
        """What all that is drawn for a question follows from."""
        return f"{line + 1}" if epoch is None else f"{self.seed} {epoch} {line + 1}"

    def image(self, record: Record, line: int) -> Image:
        """The image of the record on a line."""
        root = self.config.image_root or self.file.lines.path.parent
        try:
            path = image_path(root, record.images[0], self.config.images_within)
            return open_upright(path, width=record.width, height=record.height)
        except InputError as error:
            raise InputError(f"{self.where(line)}: images[0]: {error}") from error

    def example(
        self, record: Record, answer: Answer, asked: tuple[str, tuple[str, ...]], image: Image, line: int
    ) -> Example:
        """What a record and its answer say of an image that is `record.width` x `record.height`.

        asked: as `Questions.ask` gives it.
        """
        question, categories = asked
        messages = [
            {"role": "user", "content": f"<image>{question}"},
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
            task=record.task or "detect",
            categories=categories,
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

    train_source: JsonlSource
    validation_source: JsonlSource | None

    @classmethod
    def open(cls, config: CoordJsonlConfig, context: BuildContext) -> CoordJsonl:
        """Index the files. Raises InputError with up to 20 problems of each file; logs what reading had to change."""
        reader = Reader(config, context.quantisation, context.coords, context.format)
        files = open_files(config, context, RecordJudge)
        quantisation, coords = context.quantisation, context.coords
        train, *held_out = [
            JsonlSource(
                config=config,
                reader=reader,
                questions=Questions(config=config, quantisation=quantisation, coords=coords, path=file.lines.path),
                file=file,
                seed=context.seed,
            )
            for file in files
        ]
        return cls(train_source=train, validation_source=held_out[0] if held_out else None)

    @property
    def prompts(self) -> Mapping[str, str] | None:
        """The first wording by task, for a checkpoint to carry; None where every record is asked the same prompt."""
        config = self.train_source.config
        first = self.train_source.read(self.train_source.file.line_of(0))[0]
        if not config.prompts and first.task is None and first.question is None:
            return None
        return {name: config.wordings(name)[0] for name in TASKS if config.wordings(name)[0]}

    def train(self) -> JsonlSource | AugmentedSource:
        augment = self.train_source.config.augment
        if augment is not None:
            from coordcore_coord_tokens.augment.source import AugmentedSource

            return AugmentedSource(plain=self.train_source, augment=augment)
        return self.train_source

    def validation(self) -> JsonlSource | None:
        return self.validation_source
