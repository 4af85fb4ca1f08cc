"""From a line of a file to the record on it and its answer, by the settings of one run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import msgspec

from coordcore import Geometry, InputError
from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.quantisation import Quantisation
from coordcore.records.answers import COORDJSON, Format, Located, answer_text
from coordcore.records.asking import INCOMPLETE, asks_in_own_words, check_asked
from coordcore.records.record import Record, RecordError, check_text, labels_under, parse_record
from coordcore_coord_tokens.answer import Answer
from coordcore_coord_tokens.augment.shapes import Shape
from coordcore_coord_tokens.locate import locate
from coordcore_coord_tokens.quick import quick_reader

if TYPE_CHECKING:
    from coordcore_coord_tokens.config import CoordJsonlConfig

Item = TypeVar("Item", Located, Shape)


class Reader:
    """Reads lines: on the fast path where it judges them, by the reference everywhere else."""

    def __init__(
        self,
        config: CoordJsonlConfig,
        quantisation: Quantisation,
        coords: CoordFormat = DEFAULT_COORDS,
        form: Format = COORDJSON,
    ) -> None:
        self.config = config
        self.quantisation = quantisation
        self.coords = coords
        self.form = form
        quick = quick_reader(config, quantisation, coords, form)
        self._quick = quick.read if quick is not None else _nothing

    def read(self, line: bytes) -> tuple[Record, Answer]:
        """The record and what it says to the model. Raises RecordError."""
        return self._quick(line) or self._reference(line)

    def check(self, line: bytes) -> tuple[Record, Answer]:
        """The same for one who only wants to know whether it is right: the answer may lack its text."""
        return self._quick(line, text=False) or self._reference(line)

    def _reference(self, line: bytes) -> tuple[Record, Answer]:
        record = parse_record(line)
        return record, read_answer(record, self.config, self.quantisation, self.coords, self.form)

    def __reduce__(self) -> tuple[type[Reader], tuple[CoordJsonlConfig, Quantisation, CoordFormat, Format]]:
        return Reader, (self.config, self.quantisation, self.coords, self.form)  # decoders cannot be pickled


def _nothing(_line: bytes, *, text: bool = True) -> None:
    """The fast path where there is none."""


def read_answer(
    record: Record,
    config: CoordJsonlConfig,
    quantisation: Quantisation,
    coords: CoordFormat = DEFAULT_COORDS,
    form: Format = COORDJSON,
) -> Answer:
    """The answer of one record: the reference for the fast path. Raises RecordError."""
    if config.mode == "summary":
        for key in ("task", "question", "answer", "categories"):
            if getattr(record, key) is not None:
                raise RecordError(key, '`mode = "summary"` asks each record for its summary; leave the key out')
        if record.summary is None:
            raise RecordError("summary", 'missing; `mode = "summary"` needs one in every record')
        check_text(record.summary, "summary", coords)
        return Answer(text=record.summary)
    placed = locate(record, config, quantisation, coords)
    if check_asked(record, coords).is_text:
        return Answer(text=record.answer or "", changes=placed.changes)
    every = asked_for(record, placed.objects)
    kept = in_order(every, config)
    cut: tuple[str, ...] = ()
    if refers(record) and len(kept) < len(every):
        raise RecordError(
            "question",
            f"refers to {len(every)} objects, of which `max_objects = {config.max_objects}` leaves out "
            f"{len(every) - len(kept)}; raise max_objects, or leave the record out",
        )
    if record.task == "named" and len(kept) < len(every):
        cut = labels_cut_off(every, kept)
        # Which labels are cut off may follow from the order, and that be another in each epoch.
        if asks_in_own_words(record) and len({item.desc for item in every}) > 1:
            raise RecordError(
                "question",
                f"asks in its own words for {len(every)} objects, of which `max_objects = {config.max_objects}` may "
                "leave none of a category; write {categories} there, which leaves it out, or raise max_objects",
            )
    answer = written(list(chain.from_iterable(form.grouped(kept))), config, coords, form)
    return msgspec.structs.replace(answer, changes=placed.changes, cut=cut)


def refers(record: Record) -> bool:
    """Whether it asks for what a phrase refers to, all of which is its answer."""
    return record.task in ("refer", "point")


def labels_cut_off(every: Sequence[Located], kept: Sequence[Located]) -> tuple[str, ...]:
    """The labels of which no object is kept."""
    left = {item.desc for item in kept}
    return tuple(dict.fromkeys(item.desc for item in every if item.desc not in left))


def asked_for(record: Record, objects: Sequence[Item]) -> list[Item]:
    """The objects that a record asks for.

    Where not every one of a label is marked, the label is not asked for, and no part of the answer either.
    """
    unsure = labels_under(record, INCOMPLETE) if record.task == "named" else ()
    return [item for item in objects if item.desc not in unsure]


def in_order(objects: Iterable[Located], config: CoordJsonlConfig) -> list[Located]:
    """The objects that an answer names, in their order."""
    if config.object_order == "top_left":
        objects = sorted(objects, key=lambda located: located.top_left)
    return list(objects)[: config.max_objects]


def written(objects: Sequence[Located], config: CoordJsonlConfig, coords: CoordFormat, form: Format) -> Answer:
    """The answer that names `objects`. Raises RecordError for what its format cannot hold."""
    try:
        text = answer_text(
            objects,
            coord_tokens=config.coord_tokens,
            geometry_first=config.field_order == "geometry_first",
            form=form,
            coords=coords,
        )
    except InputError as error:  # a description or a kind that the format cannot hold
        cure = "" if all(item.kind in form.places for item in objects) else "; name another format in the manifest"
        raise RecordError("objects", f"{error}{cure}") from error
    geometries = [Geometry(kind=item.kind, values=item.values) for item in objects] if config.coord_tokens else []
    return Answer(text=text, geometries=tuple(geometries))
