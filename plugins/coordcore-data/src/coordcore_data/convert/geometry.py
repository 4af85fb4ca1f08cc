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

_SAME = 1e-9
"""Areas that differ by less than this share are equal but for rounding."""

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
    poly = opened(poly)
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
    inside = _moved(cut, width, height)  # but for rounding it is
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


def fit_quad(quad: Sequence[float], width: float, height: float) -> tuple[list[float] | None, str]:
    """As `fit_box`, for four corners; those beyond the edge of the image are moved to it."""
    fitted, how = fit_poly(list(quad), width, height)
    if fitted is None:
        return None, how
    moved = _moved(quad, width, height)
    ordered = clockwise(moved)
    return (list(ordered), how) if ordered is not None and poly_area(moved) else (None, NO_EXTENT)


def fit_around(
    outlines: Sequence[Sequence[float]],
    width: float,
    height: float,
    box: Box | None = None,
    turned: Sequence[float] | None = None,
) -> tuple[list[float] | None, str]:
    """As `fit_box`, for four corners around polygons: the smallest rotated box that encloses them inside the image.

    box, turned: the upright box around them and the rotated one, where these are known better than from their points.
    """
    fitted, how = fit_outlines(outlines, width, height, box)
    if fitted is None:
        return None, how
    x1, y1, x2, y2 = fitted
    upright = [x1, y1, x2, y1, x2, y2, x1, y2]
    if how:  # what is cut has a side along the edge: no turned box holds it and stays inside
        return upright, how
    points = _moved([value for outline in outlines for value in outline], width, height)  # but for rounding they are
    hull = _hull(zip(points[::2], points[1::2], strict=True))
    if len(hull) < 3:
        return None, NO_EXTENT
    for quad in _boxes(hull, (x2 - x1) * (y2 - y1)) if turned is None else [turned]:
        ordered = clockwise(_moved(quad, width, height))
        if ordered is not None and _holds(ordered, hull):
            return list(ordered), ""
    return upright, ""


def quad_of(points: Sequence[float]) -> list[float] | None:
    """The corners of a polygon of four points, as they are; None of any other, and where its sides cross."""
    corners = opened(points)
    return corners if len(corners) == 8 and clockwise(corners) is not None else None


def opened(poly: Sequence[float]) -> list[float]:
    """A polygon without a last point that is its first again, as some tools close it."""
    end = len(poly)
    while end > 2 and tuple(poly[end - 2 : end]) == tuple(poly[:2]):
        end -= 2
    return list(poly[:end])


def _moved(points: Sequence[float], width: float, height: float) -> list[float]:
    """Points, those beyond the edge of the image at the edge."""
    edges = (width, height) * (len(points) // 2)
    return [min(max(value, 0.0), float(edge)) for value, edge in zip(points, edges, strict=True)]


def _boxes(hull: Sequence[tuple[float, float]], below: float) -> list[list[float]]:
    """The rotated boxes around a hull along its sides, of which one is the smallest (Freeman and Shapira 1975): those
    of an area under `below`, the smallest first. Rounding does not decide between equal ones."""
    found: list[tuple[float, list[float]]] = []
    for (x1, y1), (x2, y2) in zip(hull, [*hull[1:], *hull[:1]], strict=True):
        length = math.hypot(x2 - x1, y2 - y1)
        if not length:
            continue
        ux, uy = (x2 - x1) / length, (y2 - y1) / length
        along, across = [x * ux + y * uy for x, y in hull], [y * ux - x * uy for x, y in hull]
        a, b, c, d = min(along), min(across), max(along), max(across)
        if 0 < (area := (c - a) * (d - b)) < below * (1 - _SAME):
            corners = ((a, b), (c, b), (c, d), (a, d))
            found.append((area, [value for p, q in corners for value in (p * ux - q * uy, p * uy + q * ux)]))
    least = min((area for area, _ in found), default=0.0)
    return [quad for _, quad in sorted(found, key=lambda item: max(item[0], least * (1 + _SAME)))]


def _holds(quad: Sequence[float], points: Iterable[tuple[float, float]]) -> bool:
    """Whether no point lies outside of any side of a clockwise quad."""
    corners = list(zip(quad[::2], quad[1::2], strict=True))
    sides = list(zip(corners, corners[1:] + corners[:1], strict=True))
    return all(
        (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) >= -_ROUNDING * math.hypot(x2 - x1, y2 - y1)
        for x, y in points
        for (x1, y1), (x2, y2) in sides
    )


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

    It begins where the polygon does, or with the first point behind that: one shape has one sequence of points. The
    parts of a concave polygon that falls into several stay joined along the edge.
    """
    points = list(zip(poly[::2], poly[1::2], strict=True))
    for axis, limit, sign in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
        kept: list[tuple[float, float]] = []
        for point, after in zip(points, [*points[1:], *points[:1]], strict=True):
            inside, stays_inside = sign * (point[axis] - limit) >= 0, sign * (after[axis] - limit) >= 0
            if inside:
                kept.append(point)
            if inside != stays_inside:
                share = (limit - point[axis]) / (after[axis] - point[axis])
                other = point[1 - axis] + share * (after[1 - axis] - point[1 - axis])
                kept.append((limit, other) if axis == 0 else (other, limit))
        # A point on the edge is met twice.
        points = [point for point, after in zip(kept, [*kept[1:], *kept[:1]], strict=True) if point != after]
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


def ellipse(box: Box, degrees: float) -> tuple[Box, list[float], list[float]]:
    """The ellipse inscribed in `box` and turned as `rotated` turns: the box around it, points along it, and the corners
    of `box` turned with it, of a circle unturned.

    Sides between the points lie inside the curve by at most 4e-5 of its radius.
    """
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    rx, ry = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    across, down = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    points: list[float] = []
    for x, y in _CIRCLE:
        points += (cx + rx * x * cos - ry * y * sin, cy + rx * x * sin + ry * y * cos)
    around = (cx - across, cy - down, cx + across, cy + down)
    if degrees % 180 == 0 or math.isclose(rx, ry):
        x1, y1, x2, y2 = around
        return around, points, [x1, y1, x2, y1, x2, y2, x1, y2]
    return around, points, rotated(box, degrees)


def poly_area(poly: list[float]) -> float:
    """The area by the shoelace formula, in square pixels."""
    xs, ys = poly[::2], poly[1::2]
    turned = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return abs(sum(x * below - right * y for x, y, right, below in turned)) / 2
