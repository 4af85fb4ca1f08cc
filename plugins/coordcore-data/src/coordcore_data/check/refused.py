"""What `coordcore check` would refuse of a file's objects in a space, read by the strict rules themselves."""

from __future__ import annotations

import numpy as np

from coordcore.errors import shortened
from coordcore.records.annotations import Rules, Space, read_annotations
from coordcore.records.record import LeftOut, RecordError, parse_record
from coordcore.records.source import all_lines
from coordcore_data.check.sample import Sample, coords_of, limits, valid
from coordcore_data.check.suspicion import Suspicion


def refused(sample: Sample, space: Space) -> list[Suspicion]:
    """One for each reason, but for those of objects that cannot be read at all, which are counted already."""
    wanted = _doubtful(sample, space)
    counts: dict[str, int] = {}
    first: dict[str, str] = {}
    last = max(wanted, default=0)
    for number, line in all_lines(sample.path) if wanted else ():
        if number in wanted:
            for error in _errors(line, sample, space):
                counts[error.reason] = counts.get(error.reason, 0) + 1
                first.setdefault(error.reason, f"line {number}: {error}")
        if number == last:
            break
    return [
        Suspicion(
            kind="refused",
            share=count / max(len(sample.boxes), 1),
            text=f'`coordcore check` refuses this in the space "{space}", {count} times; first: '
            f"{shortened(first[reason], 300)}",
        )
        for reason, count in counts.items()
        if reason not in sample.problems
    ]


def _doubtful(sample: Sample, space: Space) -> set[int]:
    """The lines that may hold something to refuse. Plain boxes are known by their numbers, which is quicker."""
    wrong = ~valid(sample.boxes, limits(sample, space))
    if space == "bin":
        wrong |= (sample.boxes % 1 != 0).any(1)
    records = {*sample.odd, *sample.owner[wrong].tolist()}
    if sample.tokens and space != "bin":
        records = set(range(len(sample.files)))
    return set(sample.lines[np.array(sorted(records), dtype=np.int64)].tolist())


def _errors(line: bytes, sample: Sample, space: Space) -> list[RecordError]:
    left_out = LeftOut()
    record = parse_record(line, LeftOut())
    read_annotations(record, Rules(space=space, coords=coords_of(sample.spec.bins)), left_out)
    return left_out.objects
