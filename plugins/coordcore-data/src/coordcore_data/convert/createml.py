"""Create ML's JSON for object detectors, and Turi Create's: an array of images with labelled boxes.

`coordinates` are the centre and the size of a box, in pixels from the top left corner, as Create ML reads them unless
it is told otherwise; `--from-space norm1` for fractions. Apple names the keys `imagefilename` and `annotation`, other
tools `image` and `annotations`. An image with an empty list of annotations says that nothing is there.
Sizes come from the image files, which lie beside the JSON file or in `--image-root`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from coordcore import InputError
from coordcore_data.convert.core import Account, Found, Reading, Shape, SourceImage, corners
from coordcore_data.convert.text import (
    UnreadableError,
    clean_path,
    count_in,
    json_rows,
    loose_structure,
    structure,
)


class _Coordinates(msgspec.Struct):
    x: float
    y: float
    width: float
    height: float


class _Annotation(msgspec.Struct):
    coordinates: _Coordinates
    label: str | int | None = None


class _Row(msgspec.Struct):
    image: str | None = None
    imagefilename: str | None = None
    annotations: list[Any] | None = None
    annotation: list[Any] | None = None


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError when the file cannot be opened."""
    if reading.space == "bin":
        raise InputError(f"{source}: --from-space bin: Create ML's numbers are pixels, or norm1")
    rows = list(json_rows(source))
    folder = source.parent if reading.images is None else None
    return Found(images=_images(rows, reading.space == "norm1", folder, account), total=len(rows))


def _images(
    rows: Iterable[tuple[str, Callable[[], Any]]], fractions: bool, folder: Path | None, account: Account
) -> Iterator[SourceImage]:
    """folder: where the image files lie; None for --image-root."""
    for where, parse in rows:
        account.images.read += 1
        count = 0
        try:
            given = parse()
            count = count_in(given, "annotations") or count_in(given, "annotation")
            row: _Row = structure(given, _Row)
        except UnreadableError as error:
            account.objects.read += count
            account.drop_image(error.reason, where, error.detail, objects=count)
            continue
        listed = row.annotations if row.annotations is not None else row.annotation
        account.objects.read += len(listed or [])
        shapes = [
            shape
            for index, item in enumerate(listed or [])
            if (shape := _shape(item, f"annotation {index} of {where}", account)) is not None
        ]
        file = clean_path(row.image or row.imagefilename or "")
        yield SourceImage(
            file=file,
            width=None,
            height=None,
            shapes=shapes,
            fractions=fractions,
            path=folder / file if folder is not None else None,
            lost=len(listed or []) - len(shapes),
            undeclared="row without a list of annotations" if listed is None else "",
        )


def _shape(given: Any, name: str, account: Account) -> Shape | None:
    try:
        item: _Annotation = loose_structure(given, _Annotation)
    except UnreadableError as error:
        account.drop_object(f"annotation not readable: {error.reason}", name)
        return None
    at = item.coordinates
    label = None if item.label is None else str(item.label)
    return Shape(label=label, box=corners((at.x, at.y, at.width, at.height), "cxcywh"), name=name)
