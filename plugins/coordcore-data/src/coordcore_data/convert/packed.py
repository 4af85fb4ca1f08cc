"""Sources that come packed: gzip files read as what they hold, zip archives unpacked beside nothing of the user's.

A packed file may unpack to at most `RATIO` times its size, or `SMALL` bytes if that is more: annotations shrink to a
fifth or a fiftieth, only a file that was made to fill disk and memory shrinks to less.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from coordcore import InputError
from coordcore.records.source import RATIO, SMALL
from coordcore_data.convert.sizes import IMAGE_SUFFIXES

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second of an archive without files

FOLDERS = ("voc", "yolo", "labelme", "openimages", "datumaro", "dota")
"""Formats whose source is a folder; an archive of any other holds one file to read."""

_SUFFIXES = {"cvat": (".xml",), "coco": (".json",), "lvis": (".json",)}
_WITH_SIZES = (*FOLDERS, "swift", "via", "createml")
"""Formats that take sizes from the image files, so that these are unpacked too."""


@contextmanager
def unpacked(source: Path, source_format: str) -> Iterator[Path]:
    """`source` itself, or what a reader of the format shall read of a zip archive, in a folder of its own for a while.

    Raises InputError for an archive that cannot or must not be unpacked, or that holds several files to read.
    """
    if not source.is_file() or not _is_zip(source):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="coordcore-") as name:
        folder = Path(name)
        try:
            _unpack(source, folder, images=source_format in _WITH_SIZES)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
            # RuntimeError is zipfile's word for a password, NotImplementedError for a compression it cannot undo.
            raise InputError(f"{source}: zip archive that cannot be unpacked: {error}; unpack it yourself") from error
        except OSError as error:
            raise InputError(f"{source}: cannot be unpacked: {(error.strerror or str(error)).lower()}") from error
        found = folder if source_format in FOLDERS else _the_file(source, folder, source_format)
        try:
            yield found
        except InputError as error:
            raise InputError(str(error).replace(str(folder), str(source))) from error


def _is_zip(source: Path) -> bool:
    try:
        with source.open("rb") as file:
            return file.read(4) in _ZIP
    except OSError:
        return False  # its reader says so


def _unpack(source: Path, folder: Path, *, images: bool) -> None:
    with zipfile.ZipFile(source) as archive:
        members = [member for member in archive.infolist() if _is_wanted(member, images)]
        for member in members:
            parts = PurePosixPath(member.filename.replace("\\", "/")).parts
            if ".." in parts or not parts or parts[0].startswith("/") or ":" in parts[0]:
                raise InputError(f"{source}: holds {member.filename!r}, a path out of the archive: not unpacked")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise InputError(f"{source}: holds {member.filename!r}, a link: not unpacked")
        size = sum(member.file_size for member in members)
        if size > max(SMALL, RATIO * source.stat().st_size):
            raise InputError(f"{source}: unpacks to {size} bytes, more than {RATIO} times its size: not unpacked")
        for member in members:
            target = folder / member.filename.replace("\\", "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as packed, target.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)


def _is_wanted(member: zipfile.ZipInfo, images: bool) -> bool:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts  # what macOS adds, and other hidden files
    return not member.is_dir() and not hidden and (images or path.suffix.lower() not in IMAGE_SUFFIXES)


def _the_file(source: Path, folder: Path, source_format: str) -> Path:
    suffixes = _SUFFIXES.get(source_format, (".json", ".jsonl", ".ndjson"))
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if len(found) != 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in found[:5]) or "none"
        raise InputError(
            f"{source}: an archive with one file of {' or '.join(suffixes)} can be read, this one holds {names}; "
            "unpack it and name the file"
        )
    return found[0]
