"""LabelMe: one JSON file per image, shapes in pixels.

Rectangles become boxes whichever corners they were drawn from, polygons and rotated rectangles ("rotation", four
corners) polygons, circles their enclosing boxes, points go under `metadata.points`. Sizes that a file does not state
come from the image, which lies where the file says, seen from the file's own folder, or in `--image-root`.
Not carried: lines and line strips (dropped), masks (their boxes are), group ids, flags, descriptions, the image data
in the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from coordcore.records.geometry import bounds
from coordcore_data.convert.core import TURNED, Account, Box, Found, Reading, Shape, SourceImage
from coordcore_data.convert.geometry import ellipse
from coordcore_data.convert.mask import png_size
from coordcore_data.convert.paths import is_absolute
from coordcore_data.convert.text import (
    UnreadableError,
    clean_path,
    count_of,
    find_files,
    loose_structure,
    parse_json,
    read_bytes,
)


class _File(msgspec.Struct):
    shapes: list[Any]
    imagePath: str | None = None  # noqa: N815 - the format's own names
    imageWidth: int | float | None = None  # noqa: N815
    imageHeight: int | float | None = None  # noqa: N815


class _Shape(msgspec.Struct):
    points: list[tuple[float, float]]
    label: str | int | float | None = None
    shape_type: str | None = "polygon"
    difficult: bool | None = None
    mask: Any = None


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError when there are no JSON files."""
    files = find_files(source, ".json")
    root = source if source.is_dir() else source.parent
    return Found(images=_images(files, root, reading.images is None, account), total=len(files))


def _images(files: list[Path], root: Path, beside: bool, account: Account) -> Iterator[SourceImage]:
    """beside: the images are where the files say, not in a folder of their own."""
    for path in files:
        account.images.read += 1
        data = b""
        try:
            data = read_bytes(path)
            content = loose_structure(parse_json(data), _File)
        except UnreadableError as error:
            count = count_of(data, "shapes")
            account.objects.read += count
            account.drop_image(error.reason, path, error.detail, objects=count)
            continue
        account.objects.read += len(content.shapes)
        shapes = [
            shape
            for index, item in enumerate(content.shapes)
            if (shape := _shape(item, path, index, account)) is not None
        ]
        image = clean_path(content.imagePath or "")
        yield SourceImage(
            file=_image_path(path, root, image) if image else "",
            stem=path.relative_to(root).with_suffix("").as_posix(),
            path=path.parent / image if beside else None,
            width=content.imageWidth,
            height=content.imageHeight,
            shapes=shapes,
            lost=len(content.shapes) - len(shapes),
        )


def _image_path(path: Path, root: Path, image: str) -> str:
    """The image's path from the folder that is converted; LabelMe writes it from the JSON file's own."""
    if is_absolute(image):
        return image
    parts: list[str] = []
    for part in [*path.parent.relative_to(root).parts, *image.split("/")]:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _shape(given: Any, path: Path, index: int, account: Account) -> Shape | None:
    name = f"shape {index} of {path.name}"
    try:
        item = loose_structure(given, _Shape)
    except UnreadableError as error:
        account.drop_object(f"shape not readable: {error.reason}", name)
        return None
    label = None if item.label is None else str(item.label)
    flat = [value for point in item.points for value in point]
    kind = item.shape_type or "polygon"
    wanted = {"rectangle": (2, 4), "mask": (2,), "circle": (2,)}.get(kind)
    if wanted is not None and len(item.points) not in wanted:
        account.drop_object(f"{kind} of {len(item.points)} points", name)
        return None
    difficult = bool(item.difficult)
    if kind in ("rectangle", "mask"):
        was = "mask" if kind == "mask" else ""
        corners = [flat] if len(item.points) == 4 else None  # which may be turned
        box = _around_mask(flat, item.mask) if kind == "mask" else _around(flat)
        return Shape(label=label, box=box, outlines=corners, difficult=difficult, was=was, name=name)
    if kind == "circle":
        (cx, cy), (x, y) = item.points
        radius = math.hypot(x - cx, y - cy)
        around, points, turned = ellipse((cx - radius, cy - radius, cx + radius, cy + radius), 0.0)
        return Shape(
            label=label, box=around, outlines=[points], turned=turned, difficult=difficult, was=kind, name=name
        )
    if kind in ("polygon", "rotation", "quadrilateral"):
        was = TURNED if kind == "rotation" else "polygon"
        return Shape(label=label, poly=flat, difficult=difficult, was=was, name=name)
    if kind in ("point", "points"):
        return Shape(label=label, points=flat, name=name)
    known = kind.isidentifier() and len(kind) < 20
    account.drop_object(f"{kind}: records have no such geometry" if known else "shape_type that is no name", name)
    return None


def _around_mask(flat: list[float], mask: Any) -> Box:
    """LabelMe's corners of a mask are its first and its last pixel; the picture of the mask says whether they are."""
    x1, y1, x2, y2 = box = _around(flat)
    size = png_size(mask) if isinstance(mask, str) else None
    return (x1, y1, x2 + 1, y2 + 1) if size == (x2 - x1 + 1, y2 - y1 + 1) else box


def _around(flat: list[float]) -> Box:
    # min and max would lose a NaN.
    return bounds(flat) if all(map(math.isfinite, flat)) else (math.nan,) * 4
