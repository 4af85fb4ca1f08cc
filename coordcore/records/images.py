"""Image files and the images of examples, as the model sees them. Needs Pillow, imported when an image is opened."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordcore.errors import InputError
from coordcore.files import require_regular

if TYPE_CHECKING:
    from PIL.Image import Image

_ORIENTATION = 0x0112  # EXIF tag


def image_path(root: Path, image: str, within: Path | None = None) -> Path:
    """Where the image lies that a record names, from the folder `root`. Links are followed.

    Raises InputError for an absolute path, or one with "..", that lies outside `within`, which is `root` when absent.
    """
    path = root / image
    if os.path.isabs(image) or os.pardir in path.parts[len(root.parts) :]:
        limit = within or root
        real, top = Path(os.path.realpath(path)), os.path.realpath(limit)  # ".." may follow a link
        as_written = os.pardir not in path.parts and path.is_relative_to(os.path.abspath(limit))
        if not as_written and not real.is_relative_to(top):
            raise InputError(
                f"{image} lies outside {limit}, where image paths start; if images may lie there, say so with "
                f'images_within = "{real.parent}" (an option of commands: --images-within)'
            )
    return path


def open_upright(path: Path, *, width: int | None = None, height: int | None = None) -> Image:
    """The decoded RGB image, turned by its EXIF orientation, on white where it is transparent.

    Raises InputError with the path for a missing, corrupt or too deep image, and when its upright size is not
    `width` x `height`, where these are given: boxes would land elsewhere.
    """
    from PIL import Image, ImageOps

    try:
        require_regular(path)
        with Image.open(path) as file:
            orientation = file.getexif().get(_ORIENTATION, 1)
            image = ImageOps.exif_transpose(file)
            image.load()
    except FileNotFoundError as error:
        raise InputError(f"no image file at {path}") from error
    # Pillow's decoders raise all of these for damaged files; SyntaxError comes from its PNG reader.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"image {path} cannot be read: {error}") from error
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        raise InputError(f"image {path} has mode {image.mode}, more than 8 bits a channel; convert it to 8 bits first")
    if image.size != (width or image.width, height or image.height):
        turned = f" once its EXIF orientation {orientation} is applied" if orientation != 1 else ""
        raise InputError(
            f"image {path} is {image.width} x {image.height}{turned}, but the record says {width} x {height}; "
            "width and height are those of the upright image"
        )
    if image.has_transparency_data:
        # The colour under full transparency is an accident of the program that wrote the file; viewers hide it.
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def open_example_image(source: Any) -> Image:
    """The RGB image of an example: a path, encoded bytes or a PIL image. Raises InputError when it cannot be read."""
    from PIL import Image

    if isinstance(source, Image.Image):
        return source.convert("RGB")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            return file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        where = "in memory" if isinstance(source, bytes) else source
        raise InputError(f"image {where} cannot be read: {error}") from error
