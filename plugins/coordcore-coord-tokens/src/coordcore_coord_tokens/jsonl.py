"""The data builder `coord_jsonl`: a JSONL file as examples, indexed once and read line by line when asked."""

from __future__ import annotations

import itertools
import logging
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from coordcore import BuildContext, Example, Geometry, InputError, Problem
from coordcore_coord_tokens.answer import answer_text
from coordcore_coord_tokens.images import open_upright
from coordcore_coord_tokens.locate import locate
from coordcore_coord_tokens.records import Record, RecordError, check_text, parse_record

if TYPE_CHECKING:
    from coordcore.coords import Quantisation
    from coordcore_coord_tokens.plugin import CoordJsonlConfig

SHOWN_PROBLEMS = 20
"""Problems reported one by one for each file; the rest is counted."""

_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Answer:
    """What a record says to the model, and what reading it had to change."""

    text: str
    geometries: tuple[Geometry, ...] = ()
    widened: int = 0
    clipped: int = 0


def read_answer(record: Record, config: CoordJsonlConfig, quantisation: Quantisation) -> Answer:
    """The answer of one record. Raises RecordError."""
    if config.mode == "summary":
        if record.summary is None:
            raise RecordError("summary", 'missing; `mode = "summary"` needs one in every record')
        check_text(record.summary, "summary")
        return Answer(text=record.summary)
    placed = locate(record, config, quantisation)
    objects = list(placed.objects)
    if config.object_order == "top_left":
        objects.sort(key=lambda one: one.top_left)
    objects = objects[: config.max_objects]
    text = answer_text(objects, coord_tokens=config.coord_tokens, geometry_first=config.field_order == "geometry_first")
    geometries = [Geometry(kind=one.kind, values=one.values) for one in objects] if config.coord_tokens else []
    return Answer(text=text, geometries=tuple(geometries), widened=placed.widened, clipped=placed.clipped)


@attrs.frozen(kw_only=True)
class Scan:
    """One pass over a file.

    offsets: where each record starts, and where the last one ends. problems: the first `SHOWN_PROBLEMS`, and how many
    more records have one. widened, clipped: boxes changed on reading, as `locate` counts them.
    """

    offsets: array[int]
    problems: tuple[Problem, ...]
    widened: int
    clipped: int


def scan(path: Path, config: CoordJsonlConfig, quantisation: Quantisation) -> Scan:
    """Index `path`; with `config.validate` also read every record and look for its image (which is not decoded)."""
    offsets = array("Q", [0])
    problems: list[Problem] = []
    wrong = widened = clipped = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(itertools.islice(file, config.limit), start=1):
                offsets.append(offsets[-1] + len(line))
                if config.validate:
                    try:
                        answer = _read_whole(line, path, config, quantisation)
                    except RecordError as error:
                        wrong += 1
                        if wrong <= SHOWN_PROBLEMS + 1:
                            problems.append(_problem(path, error.message, number, error.path))
                    else:
                        widened += answer.widened
                        clipped += answer.clipped
    except OSError as error:
        problems = [_problem(path, f"cannot be read: {(error.strerror or str(error)).lower()}")]
    else:
        if len(offsets) == 1:
            problems.append(_problem(path, "holds no records"))
        if wrong > SHOWN_PROBLEMS:
            rest = f"from here on {wrong - SHOWN_PROBLEMS} more records have problems"
            problems[-1] = _problem(path, rest, problems[-1].line)
    return Scan(offsets=offsets, problems=tuple(problems), widened=widened, clipped=clipped)


def _read_whole(line: bytes, path: Path, config: CoordJsonlConfig, quantisation: Quantisation) -> Answer:
    record = parse_record(line)
    answer = read_answer(record, config, quantisation)
    image = image_path(record, path, config)
    if not os.path.isfile(image):  # Path.is_file raises for names no file system allows
        raise RecordError("images[0]", f"no image file at {image}")
    return answer


def _problem(path: Path, message: str, line: int | None = None, place: str = "") -> Problem:
    return Problem(path=place, message=message, file=_shown(path), line=line)


def record_problems(config: CoordJsonlConfig, quantisation: Quantisation) -> Iterator[Problem]:
    """What is wrong with the records of a run, for `coordcore check`, which reports missing files itself."""
    for path in (config.train, config.validation):
        if path is not None and path.exists():
            yield from scan(path, config, quantisation).problems


@attrs.frozen(kw_only=True)
class JsonlSource:
    """The examples of one JSONL file. Holds an index, 8 bytes a record, and opens the file at each access.

    It can be pickled and shared with forked worker processes: there is no open file whose position they would fight
    over. Raises InputError ("train.jsonl:17: objects[2].bbox_2d: ...") for a record or image that is not right.
    """

    path: Path
    config: CoordJsonlConfig
    quantisation: Quantisation
    offsets: array[int] = attrs.field(repr=False)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int, /) -> Example:
        index = range(len(self))[index]  # negative indices, and IndexError past the end
        source = f"{_shown(self.path)}:{index + 1}"
        start, end = self.offsets[index], self.offsets[index + 1]
        with self.path.open("rb") as file:
            file.seek(start)
            line = file.read(end - start)
        try:
            record = parse_record(line)
            answer = read_answer(record, self.config, self.quantisation)
        except RecordError as error:
            raise InputError(f"{source}: {error}") from error
        try:
            image = open_upright(image_path(record, self.path, self.config), width=record.width, height=record.height)
        except InputError as error:
            raise InputError(f"{source}: images[0]: {error}") from error
        messages = [
            {"role": "user", "content": f"<image>{self.config.question}"},
            {"role": "assistant", "content": answer.text},
        ]
        if self.config.system is not None:
            messages.insert(0, {"role": "system", "content": self.config.system})
        return Example(messages=messages, images=[image], geometries=answer.geometries, source=source)


@attrs.frozen(kw_only=True)
class CoordJsonl:
    """The `DataBuilder` of `[data.coord_jsonl]`."""

    train_source: JsonlSource
    validation_source: JsonlSource | None

    @classmethod
    def open(cls, config: CoordJsonlConfig, context: BuildContext) -> CoordJsonl:
        """Index the files. Raises InputError with up to 20 problems of each file; logs what reading had to change."""
        paths = [path for path in (config.train, config.validation) if path is not None]
        scans = [scan(path, config, context.quantisation) for path in paths]
        wrong = [str(problem) for one in scans for problem in one.problems]
        if wrong:
            raise InputError("\n".join(wrong))
        if context.rank == 0:
            for path, one in zip(paths, scans, strict=True):
                _report(path, one)
        sources = [
            JsonlSource(path=path, config=config, quantisation=context.quantisation, offsets=one.offsets)
            for path, one in zip(paths, scans, strict=True)
        ]
        return cls(train_source=sources[0], validation_source=sources[1] if len(sources) == 2 else None)

    def train(self) -> JsonlSource:
        return self.train_source

    def validation(self) -> JsonlSource | None:
        return self.validation_source


def image_path(record: Record, path: Path, config: CoordJsonlConfig) -> Path:
    """Where the image of a record of `path` lies."""
    return (config.image_root or path.parent) / record.images[0]


def _report(path: Path, one: Scan) -> None:
    if one.widened:
        _log.warning("%s: %d boxes narrower than one bin were widened by one bin", _shown(path), one.widened)
    if one.clipped:
        _log.warning("%s: %d objects reaching over the image's edge were clipped", _shown(path), one.clipped)


def _shown(path: Path) -> str:
    """The path as a person at this working directory would type it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith(os.pardir) else relative
