"""What is done with a file before it is used: index it, read every record, look for every image. Once, if it stays."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from coordcore import Problem
from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.quantisation import Quantisation
from coordcore.records.answers import COORDJSON, Format
from coordcore_coord_tokens.answer import UNCHANGED, Changes
from coordcore_coord_tokens.bar import Bar
from coordcore_coord_tokens.cache import Cache, Outcome
from coordcore_coord_tokens.checking import SHOWN_PROBLEMS, Checked, Checker, Config, Job, Part, total
from coordcore_coord_tokens.files import Stamp, has_changed, open_regular, shown, unreadable
from coordcore_coord_tokens.index import UnindexedError, joined, load_index, save_index
from coordcore_coord_tokens.judging import Judge
from coordcore_coord_tokens.layout import ON_LINES, Layout, layout_of
from coordcore_coord_tokens.lines import Lines

if TYPE_CHECKING:
    from coordcore_coord_tokens.config import LinesConfig

PART = 1 << 20
"""Bytes of records that are checked at a time."""

DECODING = 256
"""How much longer a record takes whose image is decoded."""

PROCESSES = 8
SHARE = 1 << 26
"""Bytes that are worth a process of their own; it takes about as long to start as a quarter of them to check."""


@attrs.frozen(kw_only=True)
class Scan:
    """What was found. lines: None where there are problems, of which there are `SHOWN_PROBLEMS` and one at most.

    changes: none when the records were not looked at. bad: as in `Checked`.
    """

    lines: Lines | None = None
    problems: tuple[Problem, ...] = ()
    changes: Changes = UNCHANGED
    bad: tuple[tuple[int, str], ...] = ()


def scan(
    path: Path,
    config: Config,
    quantisation: Quantisation,
    coords: CoordFormat = DEFAULT_COORDS,
    form: Format = COORDJSON,
    *,
    judge: Callable[[Job[Config]], Judge],
    rank: int = 0,
) -> Scan:
    """Index `path`; with `config.validate` also read every record and look for its images (decoded if that is asked).

    judge: what judges the lines.

    Neither is done again while file, settings and image folders stay as they are. Several processes may scan one file:
    the first does the work and the others wait for it. The records are looked at on rank 0 alone, which ends all ranks
    if need be. Raises InputError when the file changes meanwhile.
    """
    if rank != 0:
        config = attrs.evolve(config, validate=False, on_bad_image="stop")
    layout: Layout = ON_LINES
    try:
        descriptor, stamp = open_regular(path)
        try:
            layout = layout_of(descriptor, arrays=config.arrays)
            job = Job(
                path=path,
                stamp=stamp,
                config=config,
                quantisation=quantisation,
                coords=coords,
                form=form,
                judge=judge,
                layout=layout,
            )
            cache = Cache(path, config, quantisation, coords, form, layout)
            known = _known(job, cache)
            if known is None and not stamp.at_rest():  # nothing will be kept that another process could wait for
                known = _scan(job, cache, descriptor, show=rank == 0)
            if known is None:
                with cache.alone():
                    known = _known(job, cache) or _scan(job, cache, descriptor, show=rank == 0)
            return known
        finally:
            os.close(descriptor)
    except EOFError as error:
        raise has_changed(path) from error
    except UnindexedError as error:
        return Scan(problems=(layout.problem(path, error.message, error.number),))
    except OSError as error:
        return Scan(problems=(layout.problem(path, unreadable(error)),))


def _known(job: Job[Any], cache: Cache) -> Scan | None:
    """What was found the last time, if it still holds."""
    found: dict[str, Any] = {}
    if _looks(job.config):
        outcome = cache.outcome()
        if outcome is None or not outcome.holds(job.stamp):
            return None
        found = {"changes": outcome.changes, "bad": outcome.bad}
    offsets = load_index(cache.index, job.stamp)
    if offsets is None:
        return None
    return Scan(lines=Lines(job.path, job.stamp, job.layout, offsets, cache.index), **found)


def _looks(config: LinesConfig) -> bool:
    """Whether the records are looked at."""
    return bool(config.validate) or config.decodes


def _scan(job: Job[Any], cache: Cache, descriptor: int, *, show: bool) -> Scan:
    at_rest, problem = job.stamp.at_rest(), job.layout.problem
    lines = _indexed(job, cache, descriptor, show=show)
    if len(lines) == 0:
        return Scan(problems=(problem(job.path, f"holds no records; {job.layout.cure}, or name another file"),))
    found = _checked(job, lines.offsets, show=show) if _looks(job.config) else total(())
    if not Stamp.of(os.fstat(descriptor)).same_content(job.stamp):
        raise has_changed(job.path)
    if found.wrong:
        return Scan(problems=_shown(job, found))
    specks, placed = found.changes.specks, len(lines) - found.changes.silent
    if specks and specks * 2 >= placed:  # of fewer, the rest tells what the numbers are
        seen = f"{specks} of {placed} records with objects hold pixels of 0..1 alone, as fractions of an image are"
        return Scan(problems=(problem(job.path, f'{seen}; if they are, set `space = "norm1"`'),))
    folders = {folder: stamp for folder, stamp in (found.folders or {}).items() if stamp is not None}
    if len(found.bad) == len(lines):
        return Scan(problems=(problem(job.path, f"every record has a bad image; the first: {found.bad[0][1]}"),))
    if _looks(job.config) and at_rest and folders == found.folders:
        cache.keep(
            Outcome(
                stamp=job.stamp,
                settings=cache.settings,
                changes=found.changes,
                folders=folders,
                bad=found.bad,
            )
        )
    return Scan(lines=lines, changes=found.changes, bad=found.bad)


def _indexed(job: Job[Any], cache: Cache, descriptor: int, *, show: bool) -> Lines:
    """The lines of the file, indexed in the cache if that can be, else in memory."""
    stamp, limit, layout = job.stamp, job.config.limit, job.layout
    offsets = load_index(cache.index, stamp)
    if offsets is None and stamp.at_rest():
        with suppress(OSError), Bar(f"index {shown(job.path)}", stamp.size, shown=show) as bar:
            save_index(cache.index, stamp, layout.ends(descriptor, stamp.size, limit, bar.advance))
            offsets = load_index(cache.index, stamp)
    if offsets is not None:
        return Lines(job.path, stamp, layout, offsets, cache.index)
    with Bar(f"index {shown(job.path)}", stamp.size, shown=show) as bar:
        return Lines(job.path, stamp, layout, joined(layout.ends(descriptor, stamp.size, limit, bar.advance)), None)


def _checked(job: Job[Any], offsets: Sequence[int], *, show: bool) -> Checked:
    weight = DECODING if job.config.decodes else job.config.weight
    parts = list(_parts(offsets, PART // weight))
    count = processes_for(offsets[-1] * weight)
    with Bar(f"check {shown(job.path)}", offsets[-1], shown=show) as bar:

        def counted(found: Iterator[Checked]) -> Iterator[Checked]:
            for part, checked in zip(parts, found, strict=True):
                bar.advance(part.end - part.start)
                yield checked

        if count > 1:
            from coordcore_coord_tokens.workers import check_in_processes

            return total(counted(check_in_processes(job, parts, count)))
        checker = Checker(job)
        try:
            return total(counted(map(checker.check, parts)))
        finally:
            checker.close()


def processes_for(size: int) -> int:
    """How many processes the check of `size` bytes is worth on this machine; 1 is this one alone."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, PROCESSES, size // SHARE))


def _parts(offsets: Sequence[int], size: int) -> Iterator[Part]:
    """The lines in parts of about `size` bytes, of one line at least."""
    first, last = 0, len(offsets) - 1
    while first < last:
        after = max(first + 1, bisect_right(offsets, offsets[first] + size) - 1)
        yield Part(first=first + 1, start=offsets[first], end=offsets[after])
        first = after


def _shown(job: Job[Any], found: Checked) -> tuple[Problem, ...]:
    if found.wrong <= SHOWN_PROBLEMS:
        return found.problems
    *first, last = found.problems
    rest = f"from here on {found.wrong - SHOWN_PROBLEMS} more records have problems"
    return (*first, job.layout.problem(job.path, rest, last.line))
