"""What the files hold that a run starts from, by hashes: it must not go on with other ones. Torch-free.

Hashed are the files that keys of the [data] section name (those declared with `exists`). Files in folders that such a
key names, as those of images, are not: they may be millions, and the builder compares each with its record. Of the
base's weights, which may be hundreds of gigabytes, sizes and samples are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import attrs

from coordcore import kinds
from coordcore.errors import InputError
from coordcore.manifest import Manifest
from coordcore.manifest.types import keys
from coordcore_train.checkpoint.weights import weight_files, weights_entry

Content = Mapping[str, Mapping[str, Any]]
"""Dotted manifest key -> file, bytes, time of its last change in nanoseconds, and SHA-256 of what it holds; of the base
the folder and a SHA-256 alone."""

BASE = "model.base"
"""The key of the base's weights in a `Content`; all others are of files of the data."""

_SAMPLE, _SAMPLES = 1 << 16, 64
"""Bytes of a sample, and how many are taken of a file that is longer than all of them."""


def content_of(manifest: Manifest, known: object) -> Content:
    """What the files hold now. known: an earlier `Content`; a file that has its size and time is not read again."""
    earlier = known if isinstance(known, Mapping) else {}
    found = {}
    for path, file in _files(manifest):
        status = file.stat()
        entry = {"file": str(file), "bytes": status.st_size, "modified": status.st_mtime_ns}
        before = earlier.get(path, {})
        same = all(before.get(key) == value for key, value in entry.items())
        found[path] = {**entry, "sha256": before["sha256"] if same else _hash(file)}
    return found


def content_of_base(base: Path) -> Content:
    """What the weights of a base are now. Raises InputError as `weight_files`, and for files that cannot be read."""
    whole = weights_entry(base) is not None
    digest = hashlib.sha256()
    for file in sorted({*weight_files(base).values()} if whole else base.glob("*.bin")):
        with _opened(file) as content:
            size = os.fstat(content.fileno()).st_size
            digest.update(f"{file.name} {size}\n".encode())
            for at in range(0, size, max(_SAMPLE, size // _SAMPLES)):
                content.seek(at)
                digest.update(content.read(_SAMPLE))
    return {BASE: {"file": str(base), "sha256": digest.hexdigest()}}


def changed(now: Content, earlier: object) -> str | None:
    """A word about the first file that holds something else than `earlier`, a `Content`; None where none does."""
    for path, entry in now.items():
        before = earlier.get(path) if isinstance(earlier, Mapping) else None
        if before is not None and before["sha256"] != entry["sha256"]:
            return f"{path}: {entry['file']} is not what this run was started with"
    return None


def _files(manifest: Manifest) -> Iterator[tuple[str, Path]]:
    for selected in manifest.of(kinds.DATA):
        yield from _files_in(selected.config, selected.path)


def _files_in(value: Any, path: str, *, exists: bool = False) -> Iterator[tuple[str, Path]]:
    """The same of a structured value, with those that it holds; exists: whether its key is declared so."""
    if attrs.has(type(value)):
        for key, field in keys(type(value)).items():
            inner = getattr(value, field.name)
            yield from _files_in(inner, f"{path}.{key}", exists=bool(field.metadata.get("exists")))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _files_in(inner, f"{path}.{key}", exists=exists)
    elif exists and isinstance(value, Path) and value.is_file():
        yield path, value


def _hash(file: Path) -> str:
    with _opened(file) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def _opened(file: Path) -> Iterator[BufferedReader]:
    try:
        with file.open("rb") as content:
            yield content
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {(error.strerror or str(error)).lower()}") from error
