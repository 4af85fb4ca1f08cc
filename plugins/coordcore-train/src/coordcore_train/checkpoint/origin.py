"""What a checkpoint says of itself, `coordcore_checkpoint.json`: which run made it, and how that stood. Torch-free."""

from __future__ import annotations

from pathlib import Path

import msgspec

from coordcore.errors import InputError
from coordcore_train.checkpoint.folder import NOT_JSON

FILE = "coordcore_checkpoint.json"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """fingerprint: of the manifest of the run that made the checkpoint.

    moved: whether training has moved any tensor yet. steps: since the last line of metrics. sums: of each rank, what
    its next line will be made of.
    """

    fingerprint: str
    moved: bool
    steps: int
    sums: tuple[tuple[float, ...], ...]


def write_origin(checkpoint: Path, origin: Origin) -> None:
    """Write it into a checkpoint that is not in its place yet."""
    (checkpoint / FILE).write_bytes(msgspec.json.encode(origin) + b"\n")


def read_origin(checkpoint: Path) -> Origin | None:
    """What a checkpoint says of itself, None where it says nothing. Raises InputError when that is damaged."""
    path = checkpoint / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Origin)
    except FileNotFoundError:
        return None
    except NOT_JSON as error:
        raise InputError(f"{path}: not readable: {error}; remove this checkpoint to go on from an older one") from error
