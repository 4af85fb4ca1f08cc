"""Places of objects in pixels: mirrored, moved with a window that is cut out, clipped to it, and scaled.

Computed here and not by torchvision's kernels, so that targets stay exact: those multiply by a factor in float32, and
mirror key points about the centres of pixels, where boxes are mirrored about edges. What it does to pixels, this does
to places; the tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor

import attrs

from coordcore.records.geometry import bounds

Window = tuple[int, int, int, int]
"""left, top, right, bottom in whole pixels."""


@attrs.frozen
class Shape:
    """One object. values: x, y, x, y, ... in pixels, whatever the kind; of a "bbox_2d" its two corners."""

    desc: str
    kind: str
    values: tuple[float, ...]


def mirrored(shape: Shape, width: float) -> Shape:
    """In an image of `width` that is mirrored left to right.

    A mirrored outline turns the other way round. Its points are put in the order that keeps its turn, and makes the
    upper left corner of an upright one its upper left corner again: from the second point backwards.
    """
    xs, ys = [width - x for x in shape.values[::2]], shape.values[1::2]
    if shape.kind == "bbox_2d":
        return attrs.evolve(shape, values=(xs[1], ys[0], xs[0], ys[1]))
    points = list(zip(xs, ys, strict=True))
    if len(points) > 2:
        points = [*points[1::-1], *points[:1:-1]]
    return attrs.evolve(shape, values=tuple(value for point in points for value in point))


def scaled(shape: Shape, before: tuple[int, int], after: tuple[int, int]) -> Shape:
    """In an image that is resized. before, after: width and height."""
    (width, height), (x_by, y_by) = after, (after[0] / before[0], after[1] / before[1])
    # What lies on the edge is on the edge again, and not over it by a rounding. What lies over it stays there: moved to
    # the edge, a quad's sides could cross.
    return _mapped(
        shape,
        lambda x: x * x_by if x > before[0] else min(x * x_by, float(width)),
        lambda y: y * y_by if y > before[1] else min(y * y_by, float(height)),
    )


def within(shape: Shape, window: Window, image: tuple[int, int], *, visible: float) -> Shape | None:
    """In the image that is cut out by `window`; None for one that lies outside it, or cannot be seen well enough.

    image: width and height of the whole one. A shape that the window does not cut may reach over the image's edge, as
    it may without a window: what encodes it clips it there.
    visible: the least share of a clipped shape's area in the image that must be left. A kind that cannot be clipped
    must lie whole in the window or beside it (`grown`).
    """
    left, top, right, bottom = window
    moved = _mapped(shape, lambda x: x - left, lambda y: y - top)
    if _inside(shape, window, image):
        return moved
    size = right - left, bottom - top
    clipped = _CLIPPED[shape.kind](moved.values, size) if shape.kind in _CLIPPED and not beside(shape, window) else ()
    if not clipped:
        return None
    # What lies outside the picture is seen in no window.
    whole, left_over = _area(shape.kind, _CLIPPED[shape.kind](shape.values, image)), _area(shape.kind, clipped)
    if whole > 0 and (left_over == 0 or left_over < visible * whole):
        return None
    return attrs.evolve(moved, values=clipped)


def grown(window: Window, shapes: Sequence[Shape], size: tuple[int, int], *, whole: bool) -> Window:
    """The smallest window around `window` that cuts none of the shapes; unless `whole`, none that cannot be clipped.

    size: of the image, beyond which it does not grow.
    """
    kept = [shape for shape in shapes if whole or shape.kind not in _CLIPPED]
    while cut := [shape for shape in kept if not beside(shape, window) and not _inside(shape, window, size)]:
        for shape in cut:
            x1, y1, x2, y2 = _bounds(shape, size)
            left, top, right, bottom = window
            window = min(left, floor(x1)), min(top, floor(y1)), max(right, ceil(x2)), max(bottom, ceil(y2))
    return window


def _mapped(shape: Shape, x: Callable[[float], float], y: Callable[[float], float]) -> Shape:
    pairs = zip(shape.values[::2], shape.values[1::2], strict=True)
    return attrs.evolve(shape, values=tuple(value for px, py in pairs for value in (x(px), y(py))))


def _bounds(shape: Shape, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Of the part of a shape that lies within the image."""
    (width, height), (x1, y1, x2, y2) = size, bounds(shape.values)
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


def beside(shape: Shape, window: Window) -> bool:
    """Whether nothing of a shape lies in a window."""
    x1, y1, x2, y2 = bounds(shape.values)
    left, top, right, bottom = window
    # A shape without an extent that lies on the edge is inside.
    return (
        x2 < left
        or y2 < top
        or x1 > right
        or y1 > bottom
        or (x1 < x2 and (x2 == left or x1 == right))
        or (y1 < y2 and (y2 == top or y1 == bottom))
    )


def _inside(shape: Shape, window: Window, size: tuple[int, int]) -> bool:
    x1, y1, x2, y2 = _bounds(shape, size)
    left, top, right, bottom = window
    return left <= x1 and top <= y1 and x2 <= right and y2 <= bottom


# --- clipping, by kind ---

Values = tuple[float, ...]


def _box(values: Values, size: tuple[int, int]) -> Values:
    (width, height), (x1, y1, x2, y2) = size, values
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


def _poly(values: Values, size: tuple[int, int]) -> Values:
    """The part of a polygon inside 0..width, 0..height, edge by edge (Sutherland and Hodgman 1974).

    It begins where the polygon does, or with the first point behind that, so that windows change no order.
    """
    points = list(zip(values[::2], values[1::2], strict=True))
    for axis, limit, sign in ((0, 0.0, 1), (0, float(size[0]), -1), (1, 0.0, 1), (1, float(size[1]), -1)):
        kept = []
        for start, end in zip(points, [*points[1:], *points[:1]], strict=True):
            inside, stays_inside = sign * (start[axis] - limit) >= 0, sign * (end[axis] - limit) >= 0
            if inside:
                kept.append(start)
            if inside != stays_inside:
                share = (limit - start[axis]) / (end[axis] - start[axis])
                other = start[1 - axis] + share * (end[1 - axis] - start[1 - axis])
                kept.append((limit, other) if axis == 0 else (other, limit))
        # A point on the edge is met twice.
        points = [point for point, after in zip(kept, [*kept[1:], *kept[:1]], strict=True) if point != after]
    return tuple(value for point in points for value in point) if len(points) > 2 else ()


def _point(_values: Values, _size: tuple[int, int]) -> Values:
    """Nothing: a point that is not inside is outside."""
    return ()


_CLIPPED: Mapping[str, Callable[[Values, tuple[int, int]], Values]] = {"bbox_2d": _box, "poly": _poly, "point": _point}
"""Kind -> what is left of it within an image of some width and height. A kind that is not here cannot be clipped."""


def _area(kind: str, values: Values) -> float:
    if kind == "bbox_2d":
        return (values[2] - values[0]) * (values[3] - values[1])
    points = list(zip(values[::2], values[1::2], strict=True))
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True))) / 2
