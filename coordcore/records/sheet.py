"""Contact sheets: images with boxes and outlines drawn on them. Needs Pillow, imported when a sheet is drawn."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from coordcore.errors import InputError

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

Array = np.ndarray[Any, np.dtype[Any]]

CELL = 480
CAPTION = 26
LABEL = 17
GAP = 10
COLUMNS = 3
MAX_LABELS = 40
"""Boxes of one image whose labels are written; more would cover the picture."""

_PAPER, _INK, _WARNING = "#ffffff", "#202020", "#b00020"


@attrs.frozen(kw_only=True, eq=False)
class Cell:
    """One image of the sheet. boxes: [n, 4] x1, y1, x2, y2 in pixels of `image`. caption: below it.

    outlines: index of a box -> [k, 2], the corners to draw in its place; a single one is a point.
    """

    image: Image.Image
    boxes: Array
    labels: Sequence[str]
    caption: str
    warning: bool = False
    outlines: Mapping[int, Array] = attrs.field(factory=dict)


def save_sheet(cells: Sequence[Cell], path: Path) -> None:
    """`draw_sheet` as a PNG, whole or not at all. Raises InputError when it cannot be written."""
    sheet = draw_sheet(cells)
    beside = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(beside, format="PNG")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def draw_sheet(cells: Sequence[Cell]) -> Image.Image:
    """Up to three columns, each image as large as its column, captions below."""
    from PIL import Image, ImageDraw

    columns = min(COLUMNS, len(cells))
    colours = _colours(sorted({label for cell in cells for label in cell.labels}))
    drawn = [_draw(cell, colours) for cell in cells]
    heights = [max(item.height for item in drawn[start : start + columns]) for start in range(0, len(cells), columns)]
    size = columns * (CELL + GAP) + GAP, sum(height + CAPTION + GAP for height in heights) + GAP
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    font = _font(15)
    for index, (cell, image) in enumerate(zip(cells, drawn, strict=True)):
        row, left = index // columns, GAP + index % columns * (CELL + GAP)
        bottom = GAP + sum(height + CAPTION + GAP for height in heights[:row]) + heights[row]
        sheet.paste(image, (left, bottom - image.height))
        noun = ("box", "boxes", "object", "objects")[(len(cell.labels) > 1) + 2 * bool(cell.outlines)]
        count = f" · {len(cell.labels)} {noun}"
        text = _fitted(pen, cell.caption, CELL - pen.textlength(count, font=font), font) + count
        pen.text((left, bottom + 4), text, fill=_WARNING if cell.warning else _INK, font=font)
    return sheet


def _draw(cell: Cell, colours: dict[str, tuple[int, int, int]]) -> Image.Image:
    """The image at the size of a cell with its boxes, larger ones first, labels on top of all boxes."""
    from PIL import Image, ImageDraw

    scale = CELL / max(cell.image.size)
    size = max(1, round(cell.image.width * scale)), max(1, round(cell.image.height * scale))
    image = cell.image.resize(size, Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(image)
    ratio = np.array(size * 2) / (cell.image.size * 2)
    boxes = np.clip(cell.boxes * ratio, -1e6, 1e6)
    area = np.abs((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    order = np.argsort(-area, kind="stable")
    for row in order:
        x1, y1, x2, y2 = _upright(boxes[row])
        corners = np.clip(cell.outlines.get(row, boxes[:0, :2]) * ratio[:2], -1e6, 1e6)
        corners = np.add(corners, [(0, -7), (7, 0), (0, 7), (-7, 0)]) if len(corners) == 1 else corners  # a dot
        for fill, width, more in (("black", 4, 1), (colours[cell.labels[row]], 2, 0)):
            if len(corners):
                pen.line([(x, y) for x, y in (*corners, corners[0])], fill=fill, width=width)
            else:
                pen.rectangle((x1 - more, y1 - more, x2 + more - 1, y2 + more - 1), outline=fill, width=width)
    upright = [_upright(box) for box in boxes]
    # No label covers a box that is hardly larger than a label.
    taken = [box for box in upright if min(box[2] - box[0], box[3] - box[1]) < 1.5 * LABEL]
    for row in order[:MAX_LABELS]:
        _label(pen, cell.labels[row], upright[row], colours[cell.labels[row]], size, taken)
    return image


def _upright(box: Array) -> tuple[float, float, float, float]:
    """The box with its corners in order: Pillow draws no other, and the eye sees no difference."""
    x1, x2 = sorted((float(box[0]), float(box[2])))
    y1, y2 = sorted((float(box[1]), float(box[3])))
    return x1, y1, max(x2, x1 + 2), max(y2, y1 + 2)


def _label(
    pen: ImageDraw.ImageDraw,
    label: str,
    box: tuple[float, float, float, float],
    colour: tuple[int, int, int],
    size: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> None:
    """Write the label at the first place of its box where no other stands, within the image."""
    font = _font(13)
    text = _fitted(pen, label, 160, font)
    width, height = pen.textlength(text, font=font) + 6, LABEL
    x1, y1, x2, y2 = box
    starts = [(x1, y1 - height), (x1, y1), (x2 - width, y2 - height), (x1, y2)]
    starts += [(x2 - width, y1 - height), (x2, y1), (x1 - width, y1)]
    for x, y in starts:
        left = min(max(x, 0), max(size[0] - width, 0))
        top = min(max(y, 0), max(size[1] - height, 0))
        place = (left, top, left + width, top + height)
        if not any(_overlap(place, other) for other in taken):
            break
    else:
        return  # three labels in one place are less legible than none
    taken.append(place)
    pen.rectangle(place, fill=colour)
    pen.text((left + 3, top + 1), text, fill=_contrast(colour), font=font)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _fitted(pen: ImageDraw.ImageDraw, text: str, width: float, font: Any) -> str:
    """`text` on one line, cut in its middle if it is too long; control characters as blanks."""
    text = " ".join(text.split())
    if pen.textlength(text, font=font) <= width:
        return text
    keep = min(len(text) - 1, int(width))  # no letter is narrower than a pixel
    while keep > 2 and pen.textlength(_shortened(text, keep), font=font) > width:
        keep -= 1
    return _shortened(text, keep)


def _shortened(text: str, keep: int) -> str:
    return f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}"


def _colours(labels: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """One bright colour per label, hues apart by the golden ratio."""
    found = {}
    for index, label in enumerate(labels):
        hue, value = index * 0.618034 % 1, 1.0 if index % 2 == 0 else 0.82
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
        found[label] = (round(red * 255), round(green * 255), round(blue * 255))
    return found


def _contrast(colour: tuple[int, int, int]) -> str:
    red, green, blue = colour
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
