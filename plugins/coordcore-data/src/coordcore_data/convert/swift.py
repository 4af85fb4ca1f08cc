"""ms-swift rows with an `objects` column: `ref` and `bbox` lists, pixels ("real", its default) or fractions ("norm1").

The n-th `ref` names the n-th box; a single one names all. A box of two numbers is a point and goes under
`metadata.points`. A row of several images becomes one record for each, by `image_id`.
Not carried: messages. Sizes come from the image files, since the rows have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from coordcore_data.convert.core import Account, Found, Reading, Shape, SourceImage
from coordcore_data.convert.text import UnreadableError, clean_path, json_lines, parse_json, structure


class _Objects(msgspec.Struct):
    bbox: list[Any] = []
    ref: list[str | None] = []
    bbox_type: Literal["real", "norm1"] | None = None
    image_id: list[int] | None = None


class _Row(msgspec.Struct):
    images: list[Any] | str
    objects: _Objects | None = None


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError when the file cannot be opened."""
    return Found(images=_images(source, reading.images or source.parent, account))


def _images(source: Path, folder: Path, account: Account) -> Iterator[SourceImage]:
    for number, line in json_lines(source):
        try:
            row = structure(parse_json(line), _Row)
        except UnreadableError as error:
            account.images.read += 1
            account.drop_image(error.reason, f"line {number}", error.detail)
            continue
        yield from _of_row(row, number, folder, account)


def _of_row(row: _Row, number: int, folder: Path, account: Account) -> Iterator[SourceImage]:
    given = [row.images] if isinstance(row.images, str) else row.images
    paths = [one.get("path") if isinstance(one, dict) else one for one in given]
    files = [one for one in paths if isinstance(one, str) and one]
    objects = row.objects or _Objects()
    count = len(objects.bbox)
    account.objects.read += count
    account.images.read += max(len(paths), 1)
    problem = ""
    if not files or len(files) < len(paths):
        problem = "row without the path of an image file"
    elif len(objects.ref) not in (1, count):
        problem = "row whose refs do not match its boxes"
    if problem:
        for index in range(max(len(paths), 1)):
            account.drop_image(problem, f"line {number}", objects=0 if index else count)
        return
    refs = objects.ref * count if len(objects.ref) == 1 else objects.ref
    # As ms-swift does: boxes without an image_id are on the first image.
    owners = [*(objects.image_id or []), *[0] * count][:count]
    shapes: list[list[Shape]] = [[] for _ in files]
    lost = [0] * len(files)
    for index, (bbox, ref, owner) in enumerate(zip(objects.bbox, refs, owners, strict=True)):
        name = f"box {index} on line {number}"
        if not 0 <= owner < len(files):
            account.drop_object("image_id of an image that the row does not have", name, owner)
            lost = [one + 1 for one in lost]
            continue
        try:
            values: list[float] = structure(bbox, list[float])
        except UnreadableError:
            values = []
        if len(values) == 4:
            x1, y1, x2, y2 = values
            shapes[owner].append(Shape(label=ref, box=(x1, y1, x2, y2), name=name))
        elif len(values) == 2:
            shapes[owner].append(Shape(label=ref, points=values, name=name))
        else:
            account.drop_object("bbox that is neither 4 numbers nor 2", name)
            lost[owner] += 1
    for file, its, gone in zip(files, shapes, lost, strict=True):
        yield SourceImage(
            file=clean_path(file),
            width=None,
            height=None,
            shapes=its,
            fractions=objects.bbox_type == "norm1",
            path=folder / file,
            lost=gone,
        )
