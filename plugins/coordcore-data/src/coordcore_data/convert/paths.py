"""What an image path of a source means: a prefix of another machine taken off, the file of a folder that it names."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import attrs

from coordcore_data.convert.sizes import IMAGE_SUFFIXES
from coordcore_data.convert.text import clean_path, files_below, is_file

NOT_FOUND = "image file not found in --image-root: the path stays as it is"
FOUND = "image path that names no file in --image-root: taken as the one of that name"


def is_absolute(path: str) -> bool:
    """Of either system, or a URL: "/home/me/a.jpg", "C:/a.jpg", "https://me.org/a.jpg"."""
    return re.match(r"([A-Za-z][\w+.-]*:)?/", path) is not None


def strip_prefix(path: str, prefix: str) -> str | None:
    """`path` without the folder `prefix` in front, None when it does not start with it."""
    head = clean_path(prefix).rstrip("/") + "/"
    return path.removeprefix(head).lstrip("/") if path.startswith(head) else None


def bare(name: str) -> str:
    """A file name or path without its suffix, if that is one of an image."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else name


@attrs.define
class ImageFolder:
    """The image files below a folder, by every name that an annotation may have for them.

    A file is listed for the first path that does not exist as it is written.
    """

    root: Path
    _by_name: dict[str, set[str]] | None = attrs.field(default=None, init=False)

    def has(self, file: str) -> bool:
        return is_file(self.root / file)

    def find(self, file: str, stem: str) -> str | None:
        """The path below the folder of the one file that is meant by `file`, else by `stem`; None without one.

        Looked for are, each in any case: the path, the path under another suffix or without, then the same of its last
        part alone, anywhere below.
        """
        if self._by_name is None:
            self._by_name = self._index()
        plain = unquote(file)  # "a%20b.jpg"
        names = [file, bare(file), *([plain, bare(plain)] if plain != file else [])]
        last = [PurePosixPath(name).name for name in names]
        for name in (*names, *(f"*/{item}" for item in last), stem, f"*/{PurePosixPath(stem).name}" if stem else ""):
            found = self._by_name.get(_key(name), set()) if name else set()
            if len(found) == 1:
                return next(iter(found))
        return None

    def _index(self) -> dict[str, set[str]]:
        names: dict[str, set[str]] = {}
        for path in files_below(self.root):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                file = path.relative_to(self.root).as_posix()
                for name in (file, bare(file), f"*/{path.name}", f"*/{bare(path.name)}"):
                    names.setdefault(_key(name), set()).add(file)
        return names


def _key(name: str) -> str:
    """Names that differ in case, or in how accents are written, are the same."""
    return unicodedata.normalize("NFC", name).lower()
