"""What builders of files of rows share: the examples of a file by their lines, and opening and checking the files."""

from __future__ import annotations

import logging
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from coordcore import BuildContext, InputError, Problem
from coordcore.coords import CoordFormat
from coordcore.quantisation import Quantisation
from coordcore.records.answers import Format
from coordcore_coord_tokens.checking import Config, Job
from coordcore_coord_tokens.files import shown
from coordcore_coord_tokens.judging import Judge
from coordcore_coord_tokens.layout import Layout
from coordcore_coord_tokens.lines import Lines
from coordcore_coord_tokens.scan import Scan, scan
from coordcore_coord_tokens.skipping import Bad, agreed, left_out_line

_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class OpenedFile:
    """Where the lines of a file start, and what the user calls it.

    gaps: for each line that is left out for its image, the number of examples before it.
    """

    lines: Lines = attrs.field(repr=False)
    name: str
    gaps: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.lines) - len(self.gaps)

    def line_of(self, index: int) -> int:
        """The line of an example, from 0. Negative indices count from the end. Raises IndexError past it."""
        index = range(len(self))[index]
        return index + bisect_right(self.gaps, index)

    def where(self, line: int) -> str:
        """What messages call a line, from 0: "train.jsonl:17", or "train.json[16]" of an array."""
        return self.lines.layout.where(self.name, line + 1)


def file_problems(
    config: Config,
    quantisation: Quantisation,
    coords: CoordFormat,
    form: Format,
    judge: Callable[[Job[Config]], Judge],
) -> Iterator[Problem]:
    """What is wrong with the records of a run, for `coordcore check`, which reports missing files itself."""
    for path in (config.train, config.validation):
        if path is not None and path.exists():
            rank = int(os.environ.get("RANK") or 0) if os.environ.get("WORLD_SIZE") else 0
            found = scan(path, config, quantisation, coords, form, judge=judge, rank=rank)
            if found.bad and found.lines is not None:
                _log.warning("%s", left_out_line(path, found.bad, found.lines.layout))
            yield from found.problems


def open_files(config: Config, context: BuildContext, judge: Callable[[Job[Config]], Judge]) -> list[OpenedFile]:
    """Index the files: of training, and of validation where there is one.

    Raises InputError with up to 20 problems of each file; logs what reading had to change.
    """
    paths = [path for path in (config.train, config.validation) if path is not None]
    how = (config, context.quantisation, context.coords, context.format)
    scans = [scan(path, *how, judge=judge, rank=context.rank) for path in paths]
    wrong = [str(problem) for scanned in scans for problem in scanned.problems]
    if wrong:
        raise InputError("\n".join(wrong))
    files = []
    for path, scanned in zip(paths, scans, strict=True):
        assert scanned.lines is not None
        bad = agreed(scanned.lines, scanned.bad, config, context) if config.on_bad_image == "skip" else ()
        gaps = tuple(number - 1 - before for before, (number, _) in enumerate(bad))
        files.append(OpenedFile(lines=scanned.lines, name=shown(path), gaps=gaps))
        if context.rank == 0:
            _report(path, scanned, bad, scanned.lines.layout)
    return files


def _report(path: Path, scanned: Scan, bad: Bad, layout: Layout) -> None:
    if bad:
        _log.warning("%s", left_out_line(path, bad, layout))
    for count, what in (
        (scanned.changes.widened, "boxes narrower than one bin were widened by one bin"),
        (scanned.changes.clipped, "objects reaching over the image's edge were clipped"),
        (scanned.changes.flat, "polygons and quads have no area: in bins, their corners lie on one line"),
    ):
        if count:
            _log.warning("%s: %d %s", shown(path), count, what)
