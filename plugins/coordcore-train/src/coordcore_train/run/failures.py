"""What ended the ranks of a run, handed from them to the process that started torchrun, which says it once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from coordcore.errors import InputError, RunError
from coordcore.files import write_whole

FOLDER = "COORDCORE_FAILURES"
"""The variable that tells ranks the folder where each leaves what ended it."""


def leave(error: InputError | RunError, rank: int) -> None:
    """Leave what ended this rank; print it where nobody has asked for it."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        print(f"coordcore: {error}", file=sys.stderr)
        return
    said = {"input": isinstance(error, InputError), "message": str(error)}
    write_whole(Path(folder) / f"rank-{rank}.json", json.dumps(said))


def others() -> bool:
    """Whether another rank of this node has left anything."""
    folder = os.environ.get(FOLDER)
    return folder is not None and any(Path(folder).glob("rank-*.json"))


def raise_first(folder: Path) -> None:
    """Raise what the first rank of this node left; nothing where none has."""
    left = sorted(folder.glob("rank-*.json"), key=lambda file: (file.stat().st_mtime_ns, file.name))
    for file in left:
        said = json.loads(file.read_text(encoding="utf-8"))
        raise (InputError if said["input"] else RunError)(said["message"])
