"""The data builder `coord_jsonl`: a JSONL file as examples, each read from its line when it is asked for."""

from __future__ import annotations

import logging
import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from coordcore import BuildContext, Example, InputError, Problem
from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.records.answers import COORDJSON, Format
from coordcore.records.images import image_path, open_upright
from coordcore.records.record import Record, RecordError
from coordcore_coord_tokens.answer import Answer
from coordcore_coord_tokens.files import shown
from coordcore_coord_tokens.lines import Lines
from coordcore_coord_tokens.reader import Reader
from coordcore_coord_tokens.scan import Scan, scan
from coordcore_coord_tokens.skipping import Bad, agreed, left_out_line

if TYPE_CHECKING:
    from coordcore.quantisation import Quantisation
    from coordcore_coord_tokens.config import CoordJsonlConfig

_log = logging.getLogger(__name__)


def record_problems(
    config: CoordJsonlConfig,
    quantisation: Quantisation,
    coords: CoordFormat = DEFAULT_COORDS,
    form: Format = COORDJSON,
) -> Iterator[Problem]:
    """What is wrong with the records of a run, for `coordcore check`, which reports missing files itself."""
    for path in (config.train, config.validation):
        if path is not None and path.exists():
            found = scan(path, config, quantisation, coords, form, rank=int(os.environ.get("RANK", "0")))
            if found.bad:
                _log.warning("%s", left_out_line(path, found.bad))
            yield from found.problems


@attrs.frozen(kw_only=True)
class JsonlSource:
    """The examples of one JSONL file. Holds where its lines start, and reads one of them at each access.

    gaps: for each line that is left out for its image, the number of examples before it.

    It can be pickled, and shared with forked processes. Raises InputError ("train.jsonl:17: objects[2].bbox_2d: ...")
    for a record or image that is not right, and when the file has changed.
    """

    config: CoordJsonlConfig
    lines: Lines = attrs.field(repr=False)
    reader: Reader = attrs.field(repr=False)
    name: str
    gaps: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.lines) - len(self.gaps)

    def __getitem__(self, index: int, /) -> Example:
        index = range(len(self))[index]  # negative indices, and IndexError past the end
        index += bisect_right(self.gaps, index)
        record, answer = self.read(index)
        source = f"{self.name}:{index + 1}"
        root = self.config.image_root or self.lines.path.parent
        try:
            path = image_path(root, record.images[0], self.config.images_within)
            image = open_upright(path, width=record.width, height=record.height)
        except InputError as error:
            raise InputError(f"{source}: images[0]: {error}") from error
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
            source=source,
            image_size=(record.width, record.height),
        )

    def read(self, index: int) -> tuple[Record, Answer]:
        """The record on a line and its answer, without the image. index: of the line, from 0."""
        try:
            return self.reader.read(self.lines.read(index))
        except RecordError as error:
            self.lines.look()  # what stands in the middle of another file's line is no mistake of the record
            raise InputError(f"{self.name}:{index + 1}: {error}") from error


@attrs.frozen(kw_only=True)
class CoordJsonl:
    """The `DataBuilder` of `[data.coord_jsonl]`."""

    train_source: JsonlSource
    validation_source: JsonlSource | None

    @classmethod
    def open(cls, config: CoordJsonlConfig, context: BuildContext) -> CoordJsonl:
        """Index the files. Raises InputError with up to 20 problems of each file; logs what reading had to change."""
        paths = [path for path in (config.train, config.validation) if path is not None]
        how = (config, context.quantisation, context.coords, context.format)
        scans = [scan(path, *how, rank=context.rank) for path in paths]
        wrong = [str(problem) for scanned in scans for problem in scanned.problems]
        if wrong:
            raise InputError("\n".join(wrong))
        reader = Reader(*how)
        sources = []
        for path, scanned in zip(paths, scans, strict=True):
            assert scanned.lines is not None
            bad = agreed(scanned.lines, scanned.bad, config, context) if config.on_bad_image == "skip" else ()
            gaps = tuple(number - 1 - before for before, (number, _) in enumerate(bad))
            sources.append(JsonlSource(config=config, lines=scanned.lines, reader=reader, name=shown(path), gaps=gaps))
            if context.rank == 0:
                _report(path, scanned, bad)
        return cls(train_source=sources[0], validation_source=sources[1] if len(sources) == 2 else None)

    def train(self) -> JsonlSource:
        return self.train_source

    def validation(self) -> JsonlSource | None:
        return self.validation_source


def _report(path: Path, scanned: Scan, bad: Bad) -> None:
    if bad:
        _log.warning("%s", left_out_line(path, bad))
    if scanned.widened:
        _log.warning("%s: %d boxes narrower than one bin were widened by one bin", shown(path), scanned.widened)
    if scanned.clipped:
        _log.warning("%s: %d objects reaching over the image's edge were clipped", shown(path), scanned.clipped)
