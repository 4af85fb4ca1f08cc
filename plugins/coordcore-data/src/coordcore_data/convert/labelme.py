"""LabelMe: one JSON file per image, shapes in pixels.

Rectangles become boxes whichever corners they were drawn from, polygons and rotated rectangles ("rotation", four
corners) polygons, circles their enclosing boxes, points go under `metadata.points`.
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
from coordcore_data.convert.core import Account, Found, Reading, Shape, SourceImage
from coordcore_data.convert.text import UnreadableError, clean_path, find_files, parse_json, read_bytes, structure


class _File(msgspec.Struct):
    shapes: list[Any]
    imagePath: str  # noqa: N815 - the format's own names
    imageWidth: int | float | None = None  # noqa: N815
    imageHeight: int | float | None = None  # noqa: N815


class _Shape(msgspec.Struct):
    points: list[tuple[float, float]]
    label: str | int | None = None
    shape_type: str | None = "polygon"


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError when there are no JSON files."""
    files = find_files(source, ".json")
    root = source if source.is_dir() else source.parent
    return Found(images=_images(files, root, account), total=len(files))


def _images(files: list[Path], root: Path, account: Account) -> Iterator[SourceImage]:
    for path in files:
        account.images.read += 1
        try:
            content = structure(parse_json(read_bytes(path)), _File)
        except UnreadableError as error:
            account.drop_image(error.reason, path, error.detail)
            continue
        account.objects.read += len(content.shapes)
        shapes = [
            shape
            for index, one in enumerate(content.shapes)
            if (shape := _shape(one, path, index, account)) is not None
        ]
        yield SourceImage(
            file=_image_path(path, root, content.imagePath),
            width=content.imageWidth,
            height=content.imageHeight,
            shapes=shapes,
            lost=len(content.shapes) - len(shapes),
        )


def _image_path(path: Path, root: Path, image: str) -> str:
    """The image's path from the folder that is converted; LabelMe writes it from the JSON file's own."""
    parts: list[str] = []
    for part in [*path.parent.relative_to(root).parts, *clean_path(image).split("/")]:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _shape(given: Any, path: Path, index: int, account: Account) -> Shape | None:
    name = f"shape {index} of {path.name}"
    try:
        one = structure(given, _Shape)
    except UnreadableError as error:
        account.drop_object(f"shape not readable: {error.reason}", name)
        return None
    label = None if one.label is None else str(one.label)
    flat = [value for point in one.points for value in point]
    kind = one.shape_type or "polygon"
    wanted = {"rectangle": (2, 4), "mask": (2,), "circle": (2,)}.get(kind)
    if wanted is not None and len(one.points) not in wanted:
        account.drop_object(f"{kind} of {len(one.points)} points", name)
        return None
    if kind in ("rectangle", "mask"):
        was = "mask" if kind == "mask" else ""
        return Shape(label=label, box=_around(flat), was=was, name=name)
    if kind == "circle":
        (cx, cy), (x, y) = one.points
        radius = math.hypot(x - cx, y - cy)
        return Shape(label=label, box=(cx - radius, cy - radius, cx + radius, cy + radius), was=kind, name=name)
    if kind in ("polygon", "rotation"):
        was = "polygon" if kind == "polygon" else "rotated box"
        return Shape(label=label, poly=flat, was=was, name=name)
    if kind in ("point", "points"):
        return Shape(label=label, points=flat, name=name)
    account.drop_object(f"{kind}: records have no such geometry", name)
    return None


def _around(flat: list[float]) -> tuple[float, float, float, float]:
    # min and max would lose a NaN.
    return bounds(flat) if all(map(math.isfinite, flat)) else (math.nan,) * 4
