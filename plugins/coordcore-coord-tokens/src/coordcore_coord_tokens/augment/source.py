"""The training examples of `coord_jsonl` as they differ from epoch to epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import attrs

from coordcore import Example, InputError
from coordcore.quantisation import encode_boxes
from coordcore.records.annotations import Rules, read_annotations
from coordcore.records.answers import Located
from coordcore.records.record import Record, RecordError, RecordObject, parse_record
from coordcore_coord_tokens.answer import Answer
from coordcore_coord_tokens.augment.changes import Draws, Move, coloured, drawn, moved_picture, noise_boxes
from coordcore_coord_tokens.augment.shapes import Shape
from coordcore_coord_tokens.augment.words import LeftRight, told_left_right
from coordcore_coord_tokens.locate import locate
from coordcore_coord_tokens.reader import in_order, read_answer, written

if TYPE_CHECKING:
    from coordcore_coord_tokens.augment.config import AugmentConfig
    from coordcore_coord_tokens.config import CoordJsonlConfig
    from coordcore_coord_tokens.jsonl import JsonlSource


@attrs.frozen(kw_only=True, slots=False)
class AugmentedSource:
    """The examples of a `JsonlSource`, changed in each epoch as the run's seed, the epoch and the line say.

    By an index alone, they are as the file has them.
    """

    plain: JsonlSource
    augment: AugmentConfig
    seed: int

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, index: int, /) -> Example:
        return self.plain[index]

    def in_epoch(self, epoch: int, index: int) -> Example:
        """As it is in that epoch. Raises InputError as the plain source does."""
        line = self.plain.file.line_of(index)
        draws = Draws(f"{self.seed} {self.plain.file.lines.path.name} {epoch} {line}")
        try:
            record = parse_record(self.plain.file.lines.read(line))
            image = self.plain.image(record, line)
            record, config, move = self._moved(record, draws)
            said, uncharged = self._said(record, config, draws)
        except RecordError as error:
            self.plain.file.lines.look()  # what stands in the middle of another file's line is no mistake of the record
            raise InputError(f"{self.plain.where(line)}: {error}") from error
        if move is not None:
            image = moved_picture(image, move)
        example = self.plain.example(record, said, coloured(image, self.augment, draws), line)
        messages = example.messages
        if move is not None and move.mirrors:
            asked = [{**message, "content": self.words.exchanged(message["content"])} for message in messages[:-1]]
            messages = [*asked, messages[-1]]
        return attrs.evolve(example, messages=messages, uncharged=uncharged)

    @cached_property
    def words(self) -> LeftRight:
        return LeftRight(self.augment.left_right_words)

    def _moved(self, record: Record, draws: Draws) -> tuple[Record, CoordJsonlConfig, Move | None]:
        """The record of the moved image, and how to read it; as it is, and None, where nothing moves."""
        config, size = self.plain.config, (record.width, record.height)
        shapes = self._shapes(record) if config.mode == "dense" else []
        max_aspect = config.max_aspect or float("inf")
        move = drawn(self.augment, draws, shapes, size, max_aspect=max_aspect)
        if not move.mirrors and move.window == (0, 0, *size) and move.size == size:
            return record, config, None
        exchange: Callable[[str], str] = self._mirrored if move.mirrors else str
        objects: list[Any] = [
            RecordObject(desc=exchange(shape.desc), **{shape.kind: list(shape.values)}) for shape in move.shapes
        ]
        moved = Record(
            images=record.images,
            width=move.size[0],
            height=move.size[1],
            objects=objects,
            summary=None if record.summary is None else exchange(record.summary),
        )
        # A place may lie over the edge by a rounding.
        return moved, attrs.evolve(config, space="pixel", outside="clip"), move

    def _shapes(self, record: Record) -> list[Shape]:
        """The objects of a record in pixels."""
        config, reader = self.plain.config, self.plain.reader
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

    def _mirrored(self, text: str) -> str:
        """`text` of a mirrored image. Raises RecordError where its words are to be refused."""
        if self.augment.left_right == "exchange":
            return self.words.exchanged(text)
        if word := self.words.found(text):
            raise RecordError("", told_left_right(text, word))
        return text

    def _said(self, record: Record, config: CoordJsonlConfig, draws: Draws) -> tuple[Answer, tuple[int, ...]]:
        """The answer, and which of its geometries are noise."""
        reader, augment = self.plain.reader, self.augment
        if config.mode == "summary":
            return read_answer(record, config, reader.quantisation, reader.coords, reader.form), ()
        placed = locate(record, config, reader.quantisation, reader.coords)
        objects = list(placed.objects)
        if augment.shuffle_objects:
            draws("order").shuffle(objects)
            config = attrs.evolve(config, object_order="as_given")
        objects = in_order(objects, config)
        if augment.noise_objects:
            size = record.width, record.height
            boxes = noise_boxes(augment.noise_objects, draws("noise"), size)
            encoded = encode_boxes(boxes, *size, quantisation=reader.quantisation)
            rows = zip(encoded.bins.tolist(), encoded.values.tolist(), strict=True)
            objects += [
                Located(desc=augment.noise_label, kind="bbox_2d", bins=tuple(bins), values=tuple(values))
                for bins, values in rows
            ]
        objects = list(chain.from_iterable(reader.form.grouped(objects)))
        noise = [number for number, item in enumerate(objects) if item.desc == augment.noise_label]
        return written(objects, config, reader.coords, reader.form), tuple(noise if augment.noise_objects else ())
