"""An overlay sheet: the boxes, outlines and points of a record file drawn on its images, for a person to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import numpy as np

from coordcore import InputError
from coordcore.quantisation import Quantisation
from coordcore.records.annotations import Space
from coordcore.records.images import image_path
from coordcore.records.sheet import CELL, Cell, save_sheet
from coordcore_data.check.sample import Array, Sample, in_order, outlines
from coordcore_data.convert.core import BoxOrder
from coordcore_data.convert.text import is_file


def write_sheet(
    path: Path,
    sample: Sample,
    folder: Path,
    *,
    space: Space,
    order: BoxOrder = "xyxy",
    count: int = 12,
) -> int:
    """Draw `count` images, spread over the file, as a PNG. Returns how many there are.

    folder: where image paths start. An image that cannot be opened becomes a grey
    field of the size in the record, and its caption says so. Boxes are drawn as the numbers say, even outside.
    Raises InputError when the file has no image with boxes, or the sheet cannot be written.
    """
    owners = np.unique(sample.owner)
    usable = [int(owner) for owner in owners if all(side > 0 for side in sample.files[owner][1:])]  # NaN is not
    if not usable:
        raise InputError(f"{sample.path}: no record with a size and a box to draw")
    step = max(len(usable) / count, 1.0)
    chosen = [usable[int(index * step)] for index in range(min(count, len(usable)))]
    scale = _Scale(space=space, order=order, spec=sample.spec)
    shapes = outlines(sample, chosen)
    cells = [_cell(sample, folder, index, scale, shapes[index]) for index in chosen]
    save_sheet(cells, path)
    return len(cells)


@attrs.frozen(kw_only=True)
class _Scale:
    space: Space
    order: BoxOrder
    spec: Quantisation

    def boxes(self, boxes: Array, size: Array) -> Array:
        """[n, 4] in pixels of an image, also for numbers that the space does not allow. size: [2]."""
        return self._pixels(in_order(boxes, self.order), np.tile(size, 2))

    def corners(self, corners: Array, size: Array) -> Array:
        """The same for an outline, [n, 2]."""
        return self._pixels(corners[:, ::-1] if self.order == "yxyx" else corners, size)

    def _pixels(self, places: Array, size: Array) -> Array:
        """size: of what each number is measured in."""
        if self.space == "norm1":
            return np.asarray(places * size)
        if self.space == "bin":
            return np.asarray((places + self.spec.decode_shift) * (size - self.spec.inset) / self.spec.decode_scale)
        return places


def _cell(sample: Sample, folder: Path, index: int, scale: _Scale, shapes: Mapping[int, Array]) -> Cell:
    from PIL import Image, ImageOps

    name, width, height = sample.files[index]
    rows = np.flatnonzero(sample.owner == index)
    size = np.array([width, height])
    caption, warning = name, False
    try:
        path = image_path(folder, name)
        if not is_file(path):  # opening a pipe would wait for ever
            raise FileNotFoundError(name)
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        shape = (min(int(width), 4 * CELL), min(int(height), 4 * CELL))
        image = Image.new("RGB", shape, "#c8c8c8")
        caption, warning = f"{name} (no image file)", True
    if not warning and image.size != (width, height):
        caption, warning = f"{name}: file {image.width} x {image.height}, record {width:g} x {height:g}", True
    ratio = np.array(image.size) / size
    return Cell(
        image=image,
        boxes=scale.boxes(sample.boxes[rows], size) * np.tile(ratio, 2),
        labels=[sample.labels[row] for row in rows],
        caption=caption,
        warning=warning,
        outlines={place: scale.corners(shape.reshape(-1, 2), size) * ratio for place, shape in shapes.items()},
    )
