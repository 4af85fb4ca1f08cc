"""Sizes of image files, and boxes that were drawn on an image before its EXIF orientation was applied."""

from __future__ import annotations

import stat
import warnings
from pathlib import Path

import attrs

from coordcore_data.convert.core import Account, SourceImage

IMAGE_SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".heic", ".jfif", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")
)
"""Of the names of image files, in lower case."""

_ORIENTATION = 0x0112  # EXIF tag
_MAX = 10**6  # the largest width or height of a record


@attrs.frozen
class FileSize:
    """width, height: of the stored pixels. orientation: EXIF's, 1 (upright) to 8; 5 to 8 swap width and height."""

    width: int
    height: int
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_size(path: Path) -> FileSize | str:
    """The size of an image file, from its header, or the reason why there is none."""
    from PIL import Image

    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            return "image file cannot be read"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large images, which are not decoded here, and damaged metadata
            with Image.open(path) as file:
                orientation = file.getexif().get(_ORIENTATION, 1)
                width, height = file.size
    except (FileNotFoundError, NotADirectoryError):
        return "image file missing"
    # Pillow's readers raise all of these for damaged files; SyntaxError comes from its PNG reader.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return "image file cannot be read"
    return FileSize(width, height, orientation if orientation in range(1, 9) else 1)


def turn(points: list[float], width: float, height: float, orientation: int) -> list[float]:
    """x, y, ... on the stored image of `width` x `height`, as positions on the upright one."""
    turned = []
    for x, y in zip(points[::2], points[1::2], strict=True):
        if orientation in (2, 3, 7, 8):  # EXIF 2.3, 4.6.4: which side of the scene row 0 and column 0 of the file are
            x = width - x
        if orientation in (3, 4, 6, 7):
            y = height - y
        turned += [y, x] if orientation >= 5 else [x, y]
    return turned


@attrs.frozen(kw_only=True)
class Sized:
    """width, height: of the upright image. orientation: the one by which shapes must be turned, 1 for none."""

    width: int
    height: int
    orientation: int = 1


def find_size(image: SourceImage, folder: Path | None, check: bool, account: Account) -> Sized | str:
    """The size of the upright image, or the reason why the image is dropped.

    The file is opened when the source states no size, and with `check` to compare. Annotations of the size before
    the EXIF orientation were drawn on the unturned image: the shapes are to be turned. Any other difference means
    that image or annotations were resized, and is a reason to drop.
    """
    stated = _stated(image)
    if isinstance(stated, str):
        return stated
    path = image.path or (folder / image.file if folder is not None else None)
    if stated is not None and not check:
        return Sized(width=stated[0], height=stated[1])
    if path is None:
        return "no size in the source; --image-root DIR reads it from the files"
    size = read_size(path)
    if isinstance(size, str):
        return size
    width, height = size.upright
    if stated is None:
        account.note("size read from the image file")
        return Sized(width=width, height=height)
    if stated == (width, height):
        if size.orientation in (2, 3, 4) or (size.orientation > 4 and width == height):
            account.note("EXIF orientation that keeps the size: taken as drawn on the upright image", image.file)
        return Sized(width=width, height=height)
    if stated == (size.width, size.height):
        account.note("turned by the EXIF orientation: drawn on the unturned image", image.file)
        return Sized(width=width, height=height, orientation=size.orientation)
    return "size in the source is not that of the image file: resized?"


def _stated(image: SourceImage) -> tuple[int, int] | str | None:
    """Width and height of the source, None without them (0 is how several tools write that), else what is wrong."""
    if not image.width and not image.height:
        return None
    if image.width is None or image.height is None:
        return "width and height must be whole numbers from 1 to 1,000,000"
    for value in (image.width, image.height):
        if not (1 <= value <= _MAX and value == int(value)):
            return "width and height must be whole numbers from 1 to 1,000,000"
    return int(image.width), int(image.height)
