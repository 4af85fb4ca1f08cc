"""Faults that are known and not mended, each with the reason why. Nothing else is excused."""

from __future__ import annotations

import re

import attrs


@attrs.frozen(kw_only=True)
class Known:
    """A fault that is left in. kind: where it shows ("records", "importers"). breach, note: patterns of it."""

    name: str
    kind: str
    breach: str
    note: str = ""
    reason: str


KNOWN = (
    Known(
        name="pipes are opened",
        kind="importers|records|special|checkpoints",
        breach="^hangs|MemoryError",
        note="fifo|endless|/dev/zero|/dev/stdin|/proc/self/mem|checkpoints:",
        reason="data, doctor, run and eval open a path without looking at what it is; check does not",
    ),
    Known(
        name="labels are printed whole",
        kind="records",
        breach="^line of .* characters on stdout",
        reason="data check cuts no label",
    ),
    Known(
        name="names of a source are told whole",
        kind="importers",
        breach="^line of .* characters on stderr",
        reason="messages about a source as a whole repeat its tags and keys uncut",
    ),
    Known(
        name="a full disk",
        kind="surroundings",
        breach="^traceback: OSError.*File too large",
        note="^(run|expand) ",
        reason="run writes its state and manifest, and expand its files, without a look at what the system says",
    ),
    Known(
        name="a damaged adapter",
        kind="checkpoints",
        breach="^traceback: .*pipeline.py:train",
        note="^run .*checkpoints/checkpoint-",
        reason="a run that continues hands the checkpoint to transformers and PEFT as it lies there",
    ),
    Known(
        name="paths that no file can have",
        kind="special",
        breach="^traceback: (OSError|RuntimeError).*(too long|home directory)",
        note="^(?!check)",
        reason="commands ask the system about a path without expecting that it refuses the path itself",
    ),
)


def known(kind: str, breach: str, note: str) -> str | None:
    """The name and reason of a known fault, None for any other."""
    for one in KNOWN:
        if re.match(one.kind, kind) and re.search(one.breach, breach) and re.search(one.note, note):
            return f"{one.name}: {one.reason}"
    return None
