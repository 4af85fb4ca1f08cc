"""A folder to work in, with every kind of thing that a path can lead to."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

RECORDS = (
    {"images": ["a.png"], "width": 64, "height": 48, "objects": [{"desc": "red circle", "bbox_2d": [4, 5, 30, 40]}]},
    {
        "images": ["b.png"],
        "width": 48,
        "height": 64,
        "objects": [
            {"desc": "cat", "poly": [1, 2, 40, 2, 40, 60], "poly_points": 3},
            {"desc": "é 'x'", "bbox_2d": [0, 0, 48, 64]},
        ],
        "summary": "two things",
        "metadata": {"image_id": 7, "x": [1, {"y": None}]},
    },
    {"images": ["a.png"], "width": 64, "height": 48, "objects": []},
)


def work_folder(folder: Path) -> Path:
    """`folder`/work with two images, a pipe nobody writes to, a loop of links, a link to what never ends, a folder."""
    work = folder / "work"
    work.mkdir()
    for name, size in (("a.png", (64, 48)), ("b.png", (48, 64))):
        (work / name).write_bytes(png(size))
    os.mkfifo(work / "fifo")
    (work / "loop").symlink_to("loop")
    (work / "endless").symlink_to("/dev/zero")
    (work / "link").symlink_to("a.png")
    (work / "folder").mkdir()
    (work / "empty").touch()
    return work


@lru_cache
def png(size: tuple[int, int]) -> bytes:
    """A picture in shades."""
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "PNG")
    return file.getvalue()
