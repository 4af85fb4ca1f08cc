"""Which records a run leaves out for their images: the same ones on every rank, and from its start to its end."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from coordcore import BuildContext, InputError
from coordcore.files import write_whole
from coordcore_coord_tokens.files import shown
from coordcore_coord_tokens.layout import Layout
from coordcore_coord_tokens.lines import Lines

if TYPE_CHECKING:
    from coordcore_coord_tokens.config import LinesConfig

PATIENCE = 2 * 60 * 60.0
"""Seconds that a rank waits for the first one to decode all images."""

Bad = Sequence[tuple[int, str]]
"""Records that are left out, by their numbers from 1, with the reasons."""


def left_out_line(path: Path, bad: Bad, layout: Layout) -> str:
    """What the user is told."""
    number, reason = bad[0]
    first = f"{layout.noun} {number - 1 + layout.first}"
    return f"{shown(path)}: {len(bad)} records are left out for their images; the first: {first}: {reason}"


def agreed(lines: Lines, bad: Bad, config: LinesConfig, context: BuildContext) -> Bad:
    """The records that this run leaves out of a file. bad: those that rank 0 has found just now.

    They are written into the run folder once. A run that goes on leaves out what it has left out from its start,
    whatever has become of the images, and every rank reads what the first one wrote. Raises InputError when it never
    does.
    """
    file = context.run_dir / f"left-out-{lines.path.name}-{crc32(str(lines.path).encode()):08x}.json"
    key = [str(lines.path), lines.stamp.size, lines.stamp.modified, config.limit, config.max_aspect]
    layout = lines.layout
    known = _read(file, key, layout)
    if known is None and context.rank == 0:
        context.run_dir.mkdir(parents=True, exist_ok=True)
        entries = [{layout.noun: number - 1 + layout.first, "reason": reason} for number, reason in bad]
        write_whole(file, json.dumps({"of": key, "count": len(entries), "left_out": entries}, indent=1) + "\n")
        known = bad
    give_up = time.monotonic() + PATIENCE
    while known is None:
        if time.monotonic() > give_up:
            raise InputError(f"{file}: rank 0 has not written which records are left out; is the run folder shared?")
        time.sleep(0.1)
        known = _read(file, key, layout)
    return known


def _read(file: Path, key: Sequence[object], layout: Layout) -> Bad | None:
    """What was written for this state of the file of records, None where nothing was."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{file}: is no JSON: {error}; remove it") from error
    if found["of"] != list(key):
        return None
    return [(entry[layout.noun] + 1 - layout.first, entry["reason"]) for entry in found["left_out"]]
