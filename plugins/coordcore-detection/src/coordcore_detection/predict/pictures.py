"""A folder of pictures, of which nothing is known, as images to ask about. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from coordcore.errors import InputError, printable
from coordcore.records.images import open_upright
from coordcore_detection.evaluate.truth import TruthImage

SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".jfif", ".jpe", ".jpeg", ".jpg"),
    *(".mpo", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Of the files that are taken for pictures."""

_ORIENTATION = 0x0112  # EXIF tag
_ON_ITS_SIDE = (5, 6, 7, 8)


def pictures(folder: Path, question: str, system: str | None = None) -> tuple[list[TruthImage], int]:
    """The pictures below `folder`, named by their paths from there and in the order of these names, and how many other
    files lie there. Names that begin with a dot are passed over.

    question, system: what is asked of each. A picture that is broken is one all the same: opening it raises InputError.
    Raises InputError for a folder without pictures, and for a name that no file of predictions can hold.
    """
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"<image>{question}"}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    files = sorted(_files(folder))
    names = [name for name in files if name.lower().endswith(SUFFIXES)]
    if not names:
        raise InputError(
            f"{folder}: holds no pictures ({', '.join(SUFFIXES)}) among {len(files)} files; name another folder, or a "
            "record file"
        )
    for name in names:
        if printable(name) != name or "\n" in name:  # blanks of all kinds may stand in it, as in names of screenshots
            raise InputError(
                f"{folder}: the file name {printable(ascii(name))} cannot be written down; rename the file"
            )
    return [_picture(folder, name, messages) for name in names], len(files) - len(names)


def _files(folder: Path) -> Iterator[str]:
    """The paths of the files below `folder`, from there. Links are followed, in a circle once."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                yield (Path(here) / name).relative_to(folder).as_posix()


def _raise(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be read: {(error.strerror or str(error)).lower()}") from error


def _picture(folder: Path, name: str, messages: Sequence[dict[str, Any]]) -> TruthImage:
    path = folder / name
    width, height = _upright_size(path)
    return TruthImage(
        key=name,
        width=width,
        height=height,
        labels=(),
        boxes=np.zeros((0, 4)),
        crowd=np.zeros(0, dtype=bool),
        open=partial(open_upright, path, width=width or None, height=height or None),
        messages=tuple(messages),
        path=path,
    )


def _upright_size(path: Path) -> tuple[int, int]:
    """0 x 0 where it cannot be read, which is told when the picture is opened.

    A PNG is read whole for it: what says that it is turned may stand behind its pixels.
    """
    from PIL import Image

    from coordcore.files import require_regular

    try:
        require_regular(path)
        with Image.open(path) as file:
            turned = file.getexif().get(_ORIENTATION, 1) in _ON_ITS_SIDE
            return (file.height, file.width) if turned else file.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 0, 0
