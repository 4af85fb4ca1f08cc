"""What a checkpoint says of itself, `coordcore_checkpoint.json`: which run made it, and how that stood. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from coordcore.errors import InputError
from coordcore.files import require_regular
from coordcore_train.checkpoint.folder import NOT_JSON, read_json
from coordcore_train.checkpoint.tensorfile import metadata_of, tensors_in

FILE = "coordcore_checkpoint.json"
SIGNATURE = "coordcore_fingerprint"
"""What the metadata of an adapter's file calls the fingerprint of the run that made it."""

GUARD = "I64"
"""The dtype, in the words of safetensors, of the ids that stand in an adapter in the place of the embedding matrix."""

_ADAPTER = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_CURE = "put back what the run saved, or remove this checkpoint to go on from an older one"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """fingerprint: of the manifest of the run that made the checkpoint.

    moved: whether training has moved any tensor yet. steps: since the last line of metrics. sums: of each rank, what
    its next line will be made of. config: of the adapter. dtypes: of its tensors, or of the full tuner's, by name. Both
    as they were saved.
    """

    fingerprint: str
    moved: bool
    steps: int
    sums: tuple[tuple[float, ...], ...]
    config: Mapping[str, Any] = {}
    dtypes: Mapping[str, str] = {}


def write_origin(checkpoint: Path, origin: Origin) -> None:
    """Write it into a checkpoint that is not in its place yet, with the config and dtypes that are found there."""
    config = read_json(checkpoint / _CONFIG) if (checkpoint / _CONFIG).is_file() else {}
    origin = msgspec.structs.replace(origin, config=config, dtypes=_dtypes(checkpoint))
    (checkpoint / FILE).write_bytes(msgspec.json.encode(origin) + b"\n")


def read_origin(checkpoint: Path) -> Origin | None:
    """What a checkpoint says of itself, None where it says nothing. Raises InputError when that is damaged."""
    path = checkpoint / FILE
    try:
        require_regular(path)
        return msgspec.json.decode(path.read_bytes(), type=Origin)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    except NOT_JSON as error:
        raise InputError(f"{path}: not readable: {error}") from error


def require_own(checkpoint: Path, fingerprint: str) -> None:
    """Raise InputError for a checkpoint of another run than that of `fingerprint`, and for an adapter that is another
    run's, or has another config or dtype than it was saved with.

    One that says nothing of itself is taken as it is, unless its numbers are no floating-point ones.
    """
    origin = read_origin(checkpoint)
    if origin is not None:
        _require_same(checkpoint / FILE, origin.fingerprint, fingerprint)
        _require_as_saved(checkpoint, origin)
    for name, dtype in _dtypes(checkpoint).items():
        if dtype != GUARD and not dtype.lstrip("B").startswith("F"):
            raise InputError(f"{checkpoint}: {name} is {dtype}, and holds no floating-point numbers; {_CURE}")
    if (checkpoint / _ADAPTER).is_file():
        signature = (metadata_of(checkpoint / _ADAPTER) or {}).get(SIGNATURE, fingerprint)
        _require_same(checkpoint / _ADAPTER, signature, fingerprint)


def _require_same(file: Path, found: str, fingerprint: str) -> None:
    if found != fingerprint:
        raise InputError(
            f"{file}: was made by a run of another manifest (its fingerprint is {found[:12]}, this run's "
            f"{fingerprint[:12]}); {_CURE}"
        )


def _require_as_saved(checkpoint: Path, origin: Origin) -> None:
    if origin.config:
        now = read_json(checkpoint / _CONFIG)
        for key in sorted({*origin.config, *now}):
            if now.get(key) != origin.config.get(key):
                raise InputError(
                    f"{checkpoint / _CONFIG}: {key} is {now.get(key)!r}, it was saved with "
                    f"{origin.config.get(key)!r}; {_CURE}"
                )
    for name, dtype in _dtypes(checkpoint).items():
        saved = origin.dtypes.get(name, dtype)
        if dtype != saved:
            raise InputError(f"{checkpoint}: {name} is {dtype}, it was saved as {saved}; {_CURE}")


def _dtypes(checkpoint: Path) -> dict[str, str]:
    """The dtype of each tensor of its weights, in the words of safetensors."""
    return {
        tensor.name: tensor.dtype for file in sorted(checkpoint.glob("*.safetensors")) for tensor in tensors_in(file)
    }
