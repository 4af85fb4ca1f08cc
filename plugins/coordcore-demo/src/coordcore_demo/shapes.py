"""Pictures of squares, rings and crosses with exact boxes, drawn from nothing but a seed and an index. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

Split = Literal["train", "validation", "held_out"]

SUBPIXELS = 16
"""Box edges lie on sixteenths of a pixel, so that a 64-pixel image can say all 1000 bins."""

MAX_OBJECTS = 9

COLOURS = {"red": (225, 55, 55), "green": (55, 185, 80), "blue": (75, 115, 240), "yellow": (240, 205, 60)}
SHAPES = ("square", "ring", "cross")
DESCS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)

_BACKGROUND = (10, 60)  # grey levels: darker than any colour above
_SIDES = (0.22, 0.62)  # of the image's side, for a single object
_STROKE = 0.36  # of the side: the width of a cross's bars
_HOLE = 0.55  # of the radius: the hole of a ring
_GAP = 1  # pixels kept free between two boxes
_TRIES = 20


class Shape(NamedTuple):
    """One drawn object. `box` is x1, y1, x2, y2 in pixels, edges exactly where the paint ends."""

    desc: str
    box: tuple[float, float, float, float]


class Cover(NamedTuple):
    """What is painted of an object: the box around it, and the share of each of the box's pixels that is covered."""

    box: tuple[float, float, float, float]
    shares: NDArray[np.float64]


def draw(
    seed: int,
    index: int,
    *,
    split: Split = "held_out",
    image_size: int = 64,
    min_objects: int = 1,
    max_objects: int = 1,
) -> tuple[Image.Image, list[Shape]]:
    """Draw picture `index` of a split: the picture, and what is on it from top to bottom (then left to right).

    The same arguments give the same picture on every machine. The three splits share no random numbers; nothing is
    trained on "held_out". No object touches another, and no two of a picture have the same description.
    Raises ValueError for object counts outside 1..9 or in the wrong order, and for a negative seed or index.
    """
    from PIL import Image

    rng, shapes = layout(
        seed, index, split=split, image_size=image_size, min_objects=min_objects, max_objects=max_objects
    )
    covers = []
    for shape in shapes:
        colour, name = shape.desc.split(" ")
        covers.append((colour, Cover(shape.box, _COVER[name](*shape.box))))
    return Image.fromarray(paint(rng, covers, image_size)), shapes


def layout(
    seed: int, index: int, *, split: Split, image_size: int, min_objects: int, max_objects: int
) -> tuple[np.random.Generator, list[Shape]]:
    """What `draw` puts on picture `index`, and the generator with which it goes on to paint."""
    if not 1 <= min_objects <= max_objects <= MAX_OBJECTS:
        raise ValueError(
            f"object counts must satisfy 1 <= min_objects <= max_objects <= {MAX_OBJECTS}, "
            f"got {min_objects} and {max_objects}"
        )
    rng = np.random.default_rng([seed, get_args(Split).index(split), index])
    count = int(rng.integers(min_objects, max_objects + 1))
    chosen = [DESCS[int(k)] for k in rng.choice(len(DESCS), size=count, replace=False)]
    shapes = [Shape(desc, box) for desc, box in zip(chosen, boxes_apart(rng, count, image_size), strict=True)]
    return rng, sorted(shapes, key=lambda shape: (shape.box[1], shape.box[0]))


def boxes_apart(rng: np.random.Generator, count: int, image_size: int) -> list[tuple[float, float, float, float]]:
    """`count` boxes of equal width and height that keep their distance, in pixels."""
    full, gap = image_size * SUBPIXELS, _GAP * SUBPIXELS
    smallest, largest = (share * full / count**0.5 for share in _SIDES)
    while True:
        boxes: list[tuple[int, int, int, int]] = []
        for _ in range(_TRIES * count):
            side = int(rng.integers(round(smallest), round(largest) + 1))
            x, y = (int(k) for k in rng.integers(0, full - side + 1, size=2))
            box = (x, y, x + side, y + side)
            if all(_apart(box, other, gap) for other in boxes):
                boxes.append(box)
            if len(boxes) == count:
                return [(a / SUBPIXELS, b / SUBPIXELS, c / SUBPIXELS, d / SUBPIXELS) for a, b, c, d in boxes]
        # Crowded: a smaller largest object always fits in the end.
        largest = max(smallest, 0.9 * largest)


def _apart(a: Sequence[int], b: Sequence[int], gap: int) -> bool:
    return a[2] + gap <= b[0] or b[2] + gap <= a[0] or a[3] + gap <= b[1] or b[3] + gap <= a[1]


def paint(rng: np.random.Generator, covers: Iterable[tuple[str, Cover]], image_size: int) -> NDArray[np.uint8]:
    """[image_size, image_size, 3] of colours and what they cover, on a grey; a pixel mixes them by their areas."""
    canvas = np.full((image_size, image_size, 3), float(rng.integers(*_BACKGROUND, endpoint=True)))
    for colour, ((x1, y1, x2, y2), covered) in covers:
        rows, columns = slice(int(y1), int(np.ceil(y2))), slice(int(x1), int(np.ceil(x2)))
        patch = canvas[rows, columns]
        canvas[rows, columns] = patch + covered[:, :, None] * (np.array(COLOURS[colour]) - patch)
    return np.floor(canvas + 0.5).astype(np.uint8)


def shares(low: Any, high: Any, first: int, last: int) -> NDArray[np.float64]:
    """The share of each pixel first..last-1 that the interval [low, high] covers: [..., last - first]."""
    edges = np.arange(first, last)
    low, high = np.asarray(low)[..., None], np.asarray(high)[..., None]
    return np.asarray(np.clip(np.minimum(high, edges + 1) - np.maximum(low, edges), 0.0, 1.0), dtype=np.float64)


def _spans(low: float, high: float, inset: float = 0.0) -> NDArray[np.float64]:
    return shares(low + inset, high - inset, int(low), int(np.ceil(high)))


def _square(x1: float, y1: float, x2: float, y2: float) -> NDArray[np.float64]:
    return np.outer(_spans(y1, y2), _spans(x1, x2))


def _cross(x1: float, y1: float, x2: float, y2: float) -> NDArray[np.float64]:
    inset = (x2 - x1) * (1 - _STROKE) / 2
    across, down = _spans(x1, x2), _spans(y1, y2)
    bar_across, bar_down = _spans(x1, x2, inset), _spans(y1, y2, inset)
    return np.outer(down, bar_across) + np.outer(bar_down, across) - np.outer(bar_down, bar_across)


def _ring(x1: float, y1: float, x2: float, y2: float) -> NDArray[np.float64]:
    radius = (x2 - x1) / 2
    return _disc(x1, y1, x2, y2, radius) - _disc(x1, y1, x2, y2, _HOLE * radius)


def _disc(x1: float, y1: float, x2: float, y2: float, radius: float) -> NDArray[np.float64]:
    """Exact along x, SUBPIXELS rows per pixel along y."""
    first, last = int(y1), int(np.ceil(y2))
    heights = first + (np.arange((last - first) * SUBPIXELS) + 0.5) / SUBPIXELS - (y1 + y2) / 2
    half = np.sqrt(np.maximum(radius**2 - heights**2, 0.0))
    middle = (x1 + x2) / 2
    fine = shares(middle - half, middle + half, int(x1), int(np.ceil(x2)))
    return np.asarray(fine.reshape(last - first, SUBPIXELS, -1).mean(axis=1), dtype=np.float64)


_COVER = {"square": _square, "ring": _ring, "cross": _cross}
