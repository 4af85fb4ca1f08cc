"""The sizes of images as they are shown, from the heads of their files."""

from __future__ import annotations

from pathlib import Path

from coordcore import InputError
from coordcore.files import require_regular
from coordcore_coord_tokens.chat.reader import Size

_ORIENTATION = 0x0112  # EXIF tag
_ON_ITS_SIDE = range(5, 9)


def upright_size(path: Path) -> Size:
    """Width and height of an image turned by its EXIF orientation, without decoding it. Raises InputError."""
    from PIL import Image

    try:
        require_regular(path)
        with Image.open(path) as file:
            # Not `file.getexif()`: of a PNG file that decodes the image, for what might stand behind its pixels.
            turned = Image.Image.getexif(file).get(_ORIENTATION) in _ON_ITS_SIDE
            width, height = file.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"image {path} cannot be read: {error}") from error
    return (height, width) if turned else (width, height)
