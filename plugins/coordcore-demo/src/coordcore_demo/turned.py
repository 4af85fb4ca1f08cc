"""Pictures of squares that are turned, with their exact corners: what `[data.shapes] geometry = "quad"` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np

from coordcore.records.geometry import bounds, clockwise
from coordcore_demo.shapes import COLOURS, SUBPIXELS, Cover, Split, boxes_apart, paint, shares

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

Quad = tuple[float, ...]


class Turned(NamedTuple):
    """One drawn square. quad: its corners in pixels, x first, in `coordcore.records.geometry.clockwise` order."""

    desc: str
    quad: Quad


def draw_turned(
    seed: int,
    index: int,
    *,
    split: Split = "held_out",
    image_size: int = 64,
    min_objects: int = 1,
    max_objects: int = 1,
) -> tuple[Image.Image, list[Turned]]:
    """Draw picture `index` of a split: squares turned by any angle, each of a colour of its own, from top to bottom.

    As `coordcore_demo.draw`, but none of its pictures. A square touches all four sides of the box around it, and its
    corners lie on sixteenths of a pixel. Raises ValueError for object counts outside 1..4 or in the wrong order.
    """
    from PIL import Image

    rng, squares = layout_turned(
        seed, index, split=split, image_size=image_size, min_objects=min_objects, max_objects=max_objects
    )
    covers = []
    for desc, quad in squares:
        x1, y1, x2, y2 = box = bounds(quad)
        _, upper = min(zip(quad[1::2], quad[::2], strict=True))
        covers.append((desc.split()[0], Cover(box, _covered(x1, y1, x2, y2, upper - x1))))
    return Image.fromarray(paint(rng, covers, image_size)), squares


def layout_turned(
    seed: int, index: int, *, split: Split, image_size: int, min_objects: int, max_objects: int
) -> tuple[np.random.Generator, list[Turned]]:
    """What `draw_turned` puts on picture `index`, and the generator with which it goes on to paint."""
    if not 1 <= min_objects <= max_objects <= len(COLOURS):
        raise ValueError(
            f"counts of turned squares must satisfy 1 <= min_objects <= max_objects <= {len(COLOURS)}, a colour each; "
            f"got {min_objects} and {max_objects}"
        )
    rng = np.random.default_rng([seed, get_args(Split).index(split), index, 2])
    count = int(rng.integers(min_objects, max_objects + 1))
    colours = [[*COLOURS][int(k)] for k in rng.choice(len(COLOURS), size=count, replace=False)]
    squares = []
    for colour, (x1, y1, x2, y2) in zip(colours, boxes_apart(rng, count, image_size), strict=True):
        slide = int(rng.integers(round((x2 - x1) * SUBPIXELS))) / SUBPIXELS
        quad = (x1 + slide, y1, x2, y1 + slide, x2 - slide, y2, x1, y2 - slide)
        squares.append(Turned(f"{colour} square", clockwise(quad) or quad))
    return rng, sorted(squares, key=lambda square: (bounds(square.quad)[1], bounds(square.quad)[0]))


def _covered(x1: float, y1: float, x2: float, y2: float, slide: float) -> NDArray[np.float64]:
    """The share of each pixel of the box that the square covers: exact along x, SUBPIXELS rows per pixel along y.

    slide: how far its upper corner lies from the box's left edge, and every other corner from the one before it.
    """
    first, last, side = int(y1), int(np.ceil(y2)), x2 - x1
    down = first + (np.arange((last - first) * SUBPIXELS) + 0.5) / SUBPIXELS - y1
    # The left end of a row lies on the side that falls from the upper corner or on the one below it; so does the right.
    rest = side - slide
    left = np.where(down < rest, slide - down * slide / rest, (down - rest) * rest / (slide or 1))
    right = np.where(down < slide, slide + down * rest / (slide or 1), side - (down - slide) * slide / rest)
    inside = (down >= 0) & (down <= side)
    fine = shares(np.where(inside, x1 + left, 0.0), np.where(inside, x1 + right, 0.0), int(x1), int(np.ceil(x2)))
    return np.asarray(fine.reshape(last - first, SUBPIXELS, -1).mean(axis=1), dtype=np.float64)
