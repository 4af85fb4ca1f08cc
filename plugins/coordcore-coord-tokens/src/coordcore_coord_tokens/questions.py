"""What the records of a file ask: which wording of a prompt, which categories, where a box stands. Drawn, not kept."""

from __future__ import annotations

import random
from collections.abc import Collection
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import msgspec

from coordcore.coords import CoordFormat
from coordcore.quantisation import Quantisation
from coordcore.records.answers import reserved
from coordcore.records.asking import asked_categories, question_of
from coordcore.records.record import Record
from coordcore.records.source import all_lines
from coordcore_coord_tokens.augment.words import refused_words
from coordcore_coord_tokens.locate import locate

if TYPE_CHECKING:
    from coordcore_coord_tokens.config import CoordJsonlConfig

_NAMED = b'"named"'


@attrs.frozen(kw_only=True, slots=False)
class Questions:
    """The questions of the file `path`."""

    config: CoordJsonlConfig
    quantisation: Quantisation
    coords: CoordFormat
    path: Path

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """That absent categories are drawn from: those that can be asked for. Read when first needed."""
        words = refused_words(self.config.augment) if self.path == self.config.train else None
        return tuple(
            label
            for label in labels_of(self.path, self.config.limit)
            if label.strip() and not reserved(label, self.coords) and not (words and words.found(label))
        )

    def ask(
        self,
        record: Record,
        draw: str,
        *,
        varied: bool = False,
        shown: Collection[str] = (),
        cut: Collection[str] = (),
    ) -> tuple[str, tuple[str, ...]]:
        """The question of a record, and the categories that it names.

        draw: what all that is drawn follows from. varied: draw the wording too; else it is the first. shown:
        labels that are not drawn as absent. cut: those that are there and not in the answer, which are not asked for
        either: that would say that they are absent. Raises RecordError where there is nothing to ask for.
        """
        config, name = self.config, record.task or "detect"
        if config.mode == "summary":
            return config.question, ()
        wordings = config.wordings(name)
        wording = random.Random(f"{draw} wording").choice(wordings) if varied and len(wordings) > 1 else wordings[0]
        categories: tuple[str, ...] = ()
        if name == "named":
            others = tuple(label for label in self.labels if label not in shown and label not in cut)
            asking = _without(record, cut) if cut else record
            categories = tuple(asked_categories(asking, others, config.absent_categories, draw))
        box = self._box(record) if name == "region" else ""
        return question_of(record, wording, categories=categories, box=box), categories

    def _box(self, record: Record) -> str:
        """The place of a record's one object, as a question says it: `[<|coord_12|>, ...]`, in every answer format."""
        [item] = locate(record, self.config, self.quantisation, self.coords).objects
        written = self.coords.written
        said = (
            [written[k] for k in self.coords.arranged(item.bins)] if self.config.coord_tokens else map(str, item.bins)
        )
        return f"[{', '.join(said)}]"


def _without(record: Record, cut: Collection[str]) -> Record:
    """A record that neither holds objects of these labels nor asks for them."""
    return msgspec.structs.replace(
        record,
        objects=[item for item in record.objects or () if item.desc not in cut],
        categories=record.categories and [label for label in record.categories if label not in cut],
    )


class _Desc(msgspec.Struct):
    desc: str


class _Named(msgspec.Struct):
    task: str
    objects: list[_Desc] = []
    categories: list[str] | None = None


def labels_of(path: Path, limit: int | None = None) -> tuple[str, ...]:
    """The labels in the records of a file with the task "named", sorted. limit: lines that are read, all when None.

    Lines that are no such record have none. Raises InputError for a file that cannot be read.
    """
    found: set[str] = set()
    for _, line in islice(all_lines(path), limit):
        if _NAMED in line:
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                record = msgspec.json.decode(line, type=_Named)
                if record.task == "named":
                    found.update(record.categories or (), (item.desc for item in record.objects))
    return tuple(sorted(found))
