"""A contact sheet of pictures with their true and their answered boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coordcore_demo.shapes import Shape

if TYPE_CHECKING:
    from PIL import Image

SIDE = 160
COLUMNS = 10
CAPTION = 16
GAP = 6
TRUTH = "white"
ANSWER = "magenta"


def write_sheet(
    path: Path,
    pictures: Sequence[Image.Image],
    truths: Sequence[Sequence[Shape]],
    answers: Sequence[Sequence[Shape] | None],
) -> None:
    """Write a PNG: truth in white, answer in magenta, the answered descriptions below (in red where they differ)."""
    from PIL import Image, ImageDraw

    rows = -(-len(pictures) // COLUMNS)
    across, down = SIDE + GAP, SIDE + CAPTION + GAP
    sheet = Image.new("RGB", (min(len(pictures), COLUMNS) * across + GAP, rows * down + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (picture, truth, answer) in enumerate(zip(pictures, truths, answers, strict=True)):
        left, top = GAP + index % COLUMNS * across, GAP + index // COLUMNS * down
        sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top))
        scale = SIDE / picture.width
        for shapes, colour, width in ((truth, TRUTH, 3), (answer or (), ANSWER, 1)):
            for shape in shapes:
                x1, y1, x2, y2 = (scale * edge for edge in shape.box)
                pen.rectangle((left + x1, top + y1, left + x2 - 1, top + y2 - 1), outline=colour, width=width)
        right = answer is not None and [shape.desc for shape in answer] == [shape.desc for shape in truth]
        caption = "no answer" if answer is None else ", ".join(shape.desc for shape in answer)
        pen.text((left, top + SIDE + 2), caption, fill="black" if right else "red")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
