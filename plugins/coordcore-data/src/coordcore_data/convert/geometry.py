"""Boxes, polygons and quads fitted to their image: order, extent, the edge, rotation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from coordcore.records.geometry import bounds, bounds_inside, clockwise
from coordcore_data.convert.core import Box

Outside = Literal["clip", "drop", "error"]
Geometry = Literal["box", "poly", "quad", "point"]

NOT_FINITE = "a coordinate is NaN or infinite"
NEGATIVE = "negative width or height"
NO_EXTENT = "no extent: width or height is 0"
NO_OVERLAP = "lies outside the image"
OVER_EDGE = "reaches over the image's edge"
CLIPPED_LITTLE = "clipped at the image's edge, by less than a pixel"
CLIPPED = "clipped at the image's edge, by a pixel or more"
TOO_FEW_POINTS = "polygon of fewer than 3 points"

_ROUNDING = 1e-6
"""Pixels. x + width in floating point may pass the edge by less than this; that is no clipping."""

_CIRCLE = [(math.cos(step * math.tau / 360), math.sin(step * math.tau / 360)) for step in range(360)]


def fit_box(box: Box, width: float, height: float) -> tuple[Box | None, str]:
    """`box` cut at the edge of its image, and what happened: "" for nothing, CLIPPED_LITTLE, CLIPPED, or a reason.

    The box is None when the reason leaves nothing of it.
    """
    x1, y1, x2, y2 = box
    if 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height:
        return box, ""
    if not all(map(math.isfinite, box)):
        return None, NOT_FINITE
    if x2 < x1 or y2 < y1:
        return None, NEGATIVE
    if x1 == x2 or y1 == y2:
        return None, NO_EXTENT
    cut = max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        return None, NO_OVERLAP
    return cut, _how_far(box, width, height)


def fit_poly(poly: list[float], width: float, height: float) -> tuple[list[float] | None, str]:
    """As `fit_box`, for the flat points of a polygon."""
    if not all(map(math.isfinite, poly)):
        return None, NOT_FINITE
    if len(poly) < 6 or len(poly) % 2:
        return None, TOO_FEW_POINTS
    box = bounds(poly)
    if box[0] == box[2] or box[1] == box[3]:
        return None, NO_EXTENT
    if min(box) >= 0 and box[2] <= width and box[3] <= height:
        return poly, ""
    if box[2] <= 0 or box[3] <= 0 or box[0] >= width or box[1] >= height:
        return None, NO_OVERLAP
    if bounds_inside(poly, width, height) is None:
        return None, NO_OVERLAP
    how = _how_far(box, width, height)
    cut = clip_poly(poly, width, height) if how else poly
    edges = (width, height) * (len(cut) // 2)
    inside = [min(max(value, 0.0), edge) for value, edge in zip(cut, edges, strict=True)]  # but for rounding it is
    return (inside, how) if len(inside) >= 6 else (None, NO_OVERLAP)


def fit_outlines(
    outlines: Sequence[Sequence[float]], width: float, height: float, box: Box | None = None
) -> tuple[Box | None, str]:
    """As `fit_box`, for the box around polygons: they are cut first, and what is left of them is enclosed.

    box: what encloses them when nothing is cut, where that is known better than from their points.
    """
    flat = [value for outline in outlines for value in outline]
    if not all(map(math.isfinite, flat)):
        return None, NOT_FINITE
    if not outlines or any(len(outline) < 6 or len(outline) % 2 for outline in outlines):
        return None, TOO_FEW_POINTS
    whole = box or bounds(flat)
    fitted, how = fit_box(whole, width, height)
    if fitted is None or fitted == whole:
        return fitted, how
    parts = [part for outline in outlines if (part := bounds_inside(outline, width, height)) is not None]
    return (bounds([value for part in parts for value in part]), how) if parts else (None, NO_OVERLAP)


def fit_quad(quad: Sequence[float] | None, width: float, height: float) -> tuple[list[float] | None, str]:
    """As `fit_box`, for four corners; those beyond the edge of the image are moved to it.

    quad: None where there was nothing to make one of.
    """
    if quad is None:
        return None, NO_EXTENT
    fitted, how = fit_poly(list(quad), width, height)
    if fitted is None:
        return None, how
    edges = (width, height) * 4
    moved = [min(max(value, 0.0), edge) for value, edge in zip(quad, edges, strict=True)]
    ordered = clockwise(moved)
    return (list(ordered), how) if ordered is not None and poly_area(moved) else (None, NO_EXTENT)


def quad_of(points: Sequence[float]) -> tuple[list[float] | None, bool]:
    """Four corners around points, and whether they are others: those of the smallest rotated box around them.

    None where the points enclose nothing.
    """
    if not all(map(math.isfinite, points)):
        return list(points), False  # whose corners are refused
    if len(points) == 8 and clockwise(points) is not None:
        return list(points), False
    return _smallest_box(points), True


def _smallest_box(points: Sequence[float]) -> list[float] | None:
    """A side of the smallest rotated box lies along a side of the hull (Freeman and Shapira 1975)."""
    hull = _hull(zip(points[::2], points[1::2], strict=True))
    best, found = math.inf, None
    for (x1, y1), (x2, y2) in zip(hull, [*hull[1:], *hull[:1]], strict=True):
        length = math.hypot(x2 - x1, y2 - y1)
        if not length:
            continue
        ux, uy = (x2 - x1) / length, (y2 - y1) / length
        along, across = [x * ux + y * uy for x, y in hull], [y * ux - x * uy for x, y in hull]
        a, b, c, d = min(along), min(across), max(along), max(across)
        if 0 < (area := (c - a) * (d - b)) < best:
            best = area
            corners = ((a, b), (c, b), (c, d), (a, d))
            found = [value for p, q in corners for value in (p * ux - q * uy, p * uy + q * ux)]
    return found


def _hull(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of the convex hull (Andrew 1979)."""
    ordered = sorted(set(points))
    sides = []
    for run in (ordered, ordered[::-1]):
        kept: list[tuple[float, float]] = []
        for x, y in run:
            while len(kept) > 1 and (kept[-1][0] - kept[-2][0]) * (y - kept[-2][1]) <= (kept[-1][1] - kept[-2][1]) * (
                x - kept[-2][0]
            ):
                kept.pop()
            kept.append((x, y))
        sides += kept[:-1]
    return sides


def uncrossed(quad: Sequence[int]) -> list[int]:
    """The corners of a thin quad that rounding has let cross, in order."""
    a, b, c, d = zip(quad[::2], quad[1::2], strict=True)
    orders = ((a, b, c, d), (a, c, b, d), (a, b, d, c))
    flats = [[value for corner in order for value in corner] for order in orders]
    return next((flat for flat in flats if clockwise(flat) is not None), list(quad))


def _how_far(box: Box, width: float, height: float) -> str:
    over = max(-box[0], -box[1], box[2] - width, box[3] - height)
    if over <= _ROUNDING:
        return ""
    return CLIPPED_LITTLE if over < 1 else CLIPPED


def clip_poly(poly: list[float], width: float, height: float) -> list[float]:
    """The part of a polygon inside 0..width, 0..height (Sutherland and Hodgman 1974); may be empty.

    The parts of a concave polygon that falls into several stay joined along the edge.
    """
    points = list(zip(poly[::2], poly[1::2], strict=True))
    for axis, limit, sign in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
        kept: list[tuple[float, float]] = []
        for index, point in enumerate(points):
            before = points[index - 1]
            inside, was_inside = sign * (point[axis] - limit) >= 0, sign * (before[axis] - limit) >= 0
            if inside != was_inside:
                share = (limit - before[axis]) / (point[axis] - before[axis])
                other = before[1 - axis] + share * (point[1 - axis] - before[1 - axis])
                kept.append((limit, other) if axis == 0 else (other, limit))
            if inside:
                kept.append(point)
        points = kept
    return [value for point in points for value in point]


def rotated(box: Box, degrees: float) -> list[float]:
    """The corners of `box` after a turn about its centre, clockwise as one sees it (y points down), from top left."""
    x1, y1, x2, y2 = box
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    corners: list[float] = []
    for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2)):
        dx, dy = x - cx, y - cy
        corners += [cx + dx * cos - dy * sin, cy + dx * sin + dy * cos]
    return corners


def ellipse(box: Box, degrees: float) -> tuple[Box, list[float]]:
    """The ellipse inscribed in `box` and turned as `rotated` turns: the box around it, and points along it.

    Sides between the points lie inside the curve by at most 4e-5 of its radius.
    """
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    rx, ry = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    across, down = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    points: list[float] = []
    for x, y in _CIRCLE:
        points += (cx + rx * x * cos - ry * y * sin, cy + rx * x * sin + ry * y * cos)
    return (cx - across, cy - down, cx + across, cy + down), points


def poly_area(poly: list[float]) -> float:
    """The area by the shoelace formula, in square pixels."""
    xs, ys = poly[::2], poly[1::2]
    turned = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return abs(sum(x * below - right * y for x, y, right, below in turned)) / 2
