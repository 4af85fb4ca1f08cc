"""The training examples of `coord_jsonl` as they differ from epoch to epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from coordcore import Example, InputError
from coordcore.quantisation import encode_boxes
from coordcore.records.annotations import Rules, read_annotations
from coordcore.records.answers import Located
from coordcore.records.asking import ABSENT, INCOMPLETE, asks_in_own_words, labels_aside
from coordcore.records.record import Record, RecordError, RecordObject, parse_record
from coordcore.tasks import TASKS
from coordcore_coord_tokens.answer import Answer
from coordcore_coord_tokens.augment.changes import Draws, Move, coloured, drawn, moved_picture, noise_boxes
from coordcore_coord_tokens.augment.shapes import Shape
from coordcore_coord_tokens.augment.words import LeftRight, told_left_right
from coordcore_coord_tokens.locate import locate
from coordcore_coord_tokens.reader import asked_for, in_order, labels_cut_off, read_answer, refers, written

if TYPE_CHECKING:
    from coordcore_coord_tokens.augment.config import AugmentConfig
    from coordcore_coord_tokens.config import CoordJsonlConfig
    from coordcore_coord_tokens.jsonl import JsonlSource

Turn = Callable[[str], str]
"""What a text becomes beside the picture: itself, or with its left and right exchanged. Raises RecordError."""


@attrs.frozen(kw_only=True)
class _Changed:
    """A record as an epoch has it. move: of its image, None where nothing moves. asked: as `Questions.ask` gives it."""

    record: Record
    move: Move | None
    draws: Draws
    turn: Turn
    answer: Answer
    uncharged: tuple[int, ...]
    asked: tuple[str, tuple[str, ...]]


@attrs.frozen(kw_only=True, slots=False)
class AugmentedSource:
    """The examples of a `JsonlSource`, changed in each epoch as the run's seed, the epoch and the line say.

    By an index alone, they are as the file has them.
    """

    plain: JsonlSource
    augment: AugmentConfig

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, index: int, /) -> Example:
        return self.plain[index]

    def in_epoch(self, epoch: int, index: int) -> Example:
        """As it is in that epoch. Raises InputError as the plain source does."""
        line = self.plain.file.line_of(index)
        with self._told(line):
            record = parse_record(self.plain.file.lines.read(line))
            image = self.plain.image(record, line)
            changed = self._changed(record, line, epoch)
            if changed.move is not None:
                image = moved_picture(image, changed.move)
            image = coloured(image, self.augment, changed.draws)
            example = self.plain.example(changed.record, changed.answer, changed.asked, image, line)
            messages = [
                {**message, "content": changed.turn(message["content"])} if message["role"] == "system" else message
                for message in example.messages
            ]
        return attrs.evolve(example, messages=messages, uncharged=changed.uncharged)

    def length(self, epoch: int, index: int) -> tuple[int, list[tuple[int, int]]]:
        """As of the plain source, in that epoch."""
        plain = self.plain
        line = plain.file.line_of(index)
        with self._told(line):
            changed = self._changed(parse_record(plain.file.lines.read(line)), line, epoch)
        text = f"{plain.config.system or ''}{changed.asked[0]}{changed.answer.text}"
        return plain.reader.coords.rough_length(text), [(changed.record.width, changed.record.height)]

    def _changed(self, record: Record, line: int, epoch: int) -> _Changed:
        """What a record says in an epoch, and how its image moves. Raises RecordError."""
        plain = self.plain
        draws = Draws(f"{plain.seed} {plain.file.lines.path.name} {epoch} {line}")
        record, config, move = self._moved(record, draws)
        turn: Turn = self._mirrored if move is not None and move.mirrors else str
        said, uncharged = self._said(record, config, draws, turn)
        questions = plain.questions
        if record.task == "region":  # the one question that holds a place
            questions = attrs.evolve(questions, config=config)
        shown = () if move is None else move.hidden
        draw = plain.draw(line, epoch)
        question, categories = questions.ask(record, draw, varied=True, shown=shown, cut=said.cut)
        asked = turn(question), tuple(map(turn, categories))
        return _Changed(record=record, move=move, draws=draws, turn=turn, answer=said, uncharged=uncharged, asked=asked)

    @contextmanager
    def _told(self, line: int) -> Iterator[None]:
        """Say of a RecordError on which line it is."""
        try:
            yield
        except RecordError as error:
            self.plain.file.lines.look()  # what stands in the middle of another file's line is no mistake of the record
            raise InputError(f"{self.plain.where(line)}: {error}") from error

    @cached_property
    def words(self) -> LeftRight:
        return LeftRight(self.augment.left_right_words)

    def _mirrored(self, text: str) -> str:
        if self.augment.left_right == "exchange":
            return self.words.exchanged(text)
        if word := self.words.found(text):
            raise RecordError("", told_left_right(text, word))
        return text

    def _moved(self, record: Record, draws: Draws) -> tuple[Record, CoordJsonlConfig, Move | None]:
        """The record of the moved image, its texts as they were, and how to read it; as it is, and None, where nothing
        moves.

        What is asked for text alone is not cut out: its answer would speak of what is cut off. Nor is what asks for
        categories in its own words, which would go on asking for one that is only seen in part. A window leaves all
        that a phrase refers to, and something of what else is asked for.
        """
        config, size = self.plain.config, (record.width, record.height)
        shapes = self._shapes(record) if config.mode == "dense" else []
        cuts = (record.task not in TASKS or not TASKS[record.task].is_text) and not asks_in_own_words(record)
        aspect = config.max_aspect or float("inf")
        least = len(shapes) if refers(record) else min(1, len(asked_for(record, shapes)))
        move = drawn(
            self.augment,
            draws,
            shapes,
            size,
            cuts=cuts,
            enough=lambda left: len(asked_for(record, left)) >= least,
            max_aspect=aspect,
        )
        if not move.mirrors and move.window == (0, 0, *size) and move.size == size:
            return record, config, None
        fields: list[dict[str, Any]] = [{"desc": shape.desc, shape.kind: list(shape.values)} for shape in move.shapes]
        objects: list[Any] = [RecordObject(**field) for field in fields]
        # Of a list of its own the record has been asked as it is: what a window leaves out is absent there.
        kept = (ABSENT, INCOMPLETE) if record.categories is None else ()
        told = {key: value for key, value in (record.metadata or {}).items() if key in kept}
        moved = msgspec.structs.replace(
            record,
            width=move.size[0],
            height=move.size[1],
            objects=None if record.objects is None else objects,
            metadata=told or None,
            categories=record.categories
            and [category for category in record.categories if category not in move.hidden],
        )
        draws_absent = record.task == "named" and record.categories is None
        aside = labels_aside(record) if draws_absent else []
        move = attrs.evolve(move, hidden=move.hidden.union(aside))
        # A place may lie over the edge by a rounding.
        return moved, attrs.evolve(config, space="pixel", outside="clip"), move

    def _shapes(self, record: Record) -> list[Shape]:
        """The objects of a record in pixels."""
        config, reader = self.plain.config, self.plain.reader
        if record.objects is None:
            return []
        rules = Rules(space=config.space, outside=config.outside, coords=reader.coords)
        shapes = []
        for item in read_annotations(record, rules):
            if item.crowd:
                continue
            sizes = (record.width, record.height) * (len(item.values) // 2)
            values: Sequence[float] = item.values
            if config.space == "bin":
                values = reader.quantisation.decode(values, sizes).tolist()
            elif config.space == "norm1":
                values = [value * side for value, side in zip(values, sizes, strict=True)]
            shapes.append(Shape(item.desc, item.kind, tuple(map(float, values))))
        return shapes

    def _said(
        self, record: Record, config: CoordJsonlConfig, draws: Draws, turn: Turn
    ) -> tuple[Answer, tuple[int, ...]]:
        """The answer, and which of its geometries are noise."""
        reader, augment = self.plain.reader, self.augment
        # Also where it is written again: it looks at whether the record has what its task needs.
        answer = read_answer(record, config, reader.quantisation, reader.coords, reader.form)
        task = record.task or "detect"
        if config.mode == "summary" or TASKS[task].is_text:
            return msgspec.structs.replace(answer, text=turn(answer.text)), ()
        objects = asked_for(record, locate(record, config, reader.quantisation, reader.coords).objects)
        if augment.shuffle_objects:
            draws("order").shuffle(objects)
            config = attrs.evolve(config, object_order="as_given")
        kept = in_order(objects, config)
        cut = labels_cut_off(objects, kept)
        objects = [attrs.evolve(item, desc=turn(item.desc)) for item in kept]
        count = augment.noise_objects if task == "detect" else 0
        if count:
            size = record.width, record.height
            encoded = encode_boxes(noise_boxes(count, draws("noise"), size), *size, quantisation=reader.quantisation)
            rows = zip(encoded.bins.tolist(), encoded.values.tolist(), strict=True)
            objects += [
                Located(desc=augment.noise_label, kind="bbox_2d", bins=tuple(bins), values=tuple(values))
                for bins, values in rows
            ]
        objects = list(chain.from_iterable(reader.form.grouped(objects)))
        noise = [number for number, item in enumerate(objects) if count and item.desc == augment.noise_label]
        answer = written(objects, config, reader.coords, reader.form)
        return msgspec.structs.replace(answer, cut=cut), tuple(noise)
