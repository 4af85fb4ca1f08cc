"""What is kept of a file from one run to the next: its index, and that its records were found right."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import msgspec

from coordcore import InputError
from coordcore.coords import CoordFormat
from coordcore.files import own_cache_folder
from coordcore.quantisation import Quantisation
from coordcore.records.answers import Format
from coordcore_coord_tokens.answer import Changes
from coordcore_coord_tokens.files import Stamp

if TYPE_CHECKING:
    from coordcore_coord_tokens.config import LinesConfig
    from coordcore_coord_tokens.layout import Layout

_log = logging.getLogger(__name__)

RULES = 6
"""Changes when a record that was right could now be wrong, or the other way round."""

# Settings that make no record right or wrong.
_HARMLESS = {
    "train",
    "validation",
    "prompt",
    "prompts",
    "system",
    "validate",
    "coord_tokens",
    "field_order",
    "object_order",
}


class Outcome(msgspec.Struct, frozen=True):
    """That the records of a file were right, and their images there.

    settings: by which they were. changes: what reading them had to change. folders: the state of the images' folders at
    that time. bad: as in `Checked`.
    """

    stamp: Stamp
    settings: str
    changes: Changes
    folders: dict[str, Stamp]
    bad: tuple[tuple[int, str], ...] = ()

    def holds(self, stamp: Stamp) -> bool:
        """Whether the file, now in the state `stamp`, has not changed since, and no image has come or gone."""
        with suppress(OSError):
            return self.stamp == stamp and all(Stamp.of(os.stat(item)) == then for item, then in self.folders.items())
        return False


class Cache:
    """The files that belong to one file of records, in `records` of the cache folder.

    They can be deleted at any time. Where nothing can be written, nothing is kept.
    """

    def __init__(
        self,
        path: Path,
        config: LinesConfig,
        quantisation: Quantisation,
        coords: CoordFormat,
        form: Format,
        layout: Layout,
    ) -> None:
        settings = attrs.asdict(config, filter=lambda field, _: field.name not in _HARMLESS)
        settings["decodes"] = config.decodes
        if settings.get("augment", 0) is None:  # it changes what is right, where there is one
            del settings["augment"]
        settings["coords"] = attrs.asdict(coords)
        settings["format"] = form.as_dict()
        root = os.path.abspath(config.image_root or path.parent)
        self.settings = json.dumps([RULES, settings, root, quantisation.as_dict()], default=str)
        # Should two names ever have one checksum, their files take turns; each says what it belongs to.
        name = f"{path.name[:100]}-{_sum(f'{os.path.abspath(path)} {config.limit}')}"
        try:
            folder = own_cache_folder() / "records"
        except InputError as error:
            _log.info("no cache: %s", error)
            folder = Path(os.devnull, "records")
        self.index = folder / f"{name}.{layout.suffix}"
        self._outcome = folder / f"{name}-{_sum(self.settings)}.json"
        self._lock = folder / f"{name}.lock"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let the processes that fill this cache wait for each other, where the file system has locks."""
        descriptor = None
        with suppress(OSError):
            self._lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def outcome(self) -> Outcome | None:
        """What was kept for these settings, None when there is nothing that can be read."""
        try:
            outcome = msgspec.json.decode(self._outcome.read_bytes(), type=Outcome)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return outcome if outcome.settings == self.settings else None

    def keep(self, outcome: Outcome) -> None:
        """Write an outcome: whole, or not at all."""
        scratch = self._outcome.with_name(f".{uuid.uuid4().hex}.tmp")
        with suppress(OSError):
            try:
                scratch.write_bytes(msgspec.json.encode(outcome))
                scratch.replace(self._outcome)
            finally:
                scratch.unlink(missing_ok=True)


def _sum(text: str) -> str:
    return f"{zlib.crc32(text.encode('utf-8', 'surrogateescape')):08x}"
