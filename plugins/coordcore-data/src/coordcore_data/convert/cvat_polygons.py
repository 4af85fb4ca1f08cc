"""The polygon between two of a track, as CVAT has it (`TrackManager` of its `dataset_manager/annotation.py`).

Points are matched by how far along the outline they lie, as a share of its length from the first point; each goes
straight to its match. A point with several matches becomes several points and several with one match remain several,
but for those that come to lie close together.
"""

from __future__ import annotations

from itertools import accumulate, pairwise

Points = list[complex]


def between(before: list[float], after: list[float], share: float) -> list[float] | None:
    """The polygon at `share` of the way, as x1, y1, x2, y2, ...; None where one of the two has no length."""
    left, right = _closed(before), _closed(after)
    left_at, right_at = _shares(left), _shares(right)
    if left_at is None or right_at is None:
        return None
    matches = [[_nearest(at, right_at)] for at in left_at]
    taken = {match[0] for match in matches}
    for index, at in enumerate(right_at):
        if index not in taken:
            matches[_nearest(at, left_at)].append(index)
    points: Points = []
    start = 0
    while start < len(left):
        found = sorted(matches[start])
        stop = start + 1
        if len(found) > 1:
            length = _length(right[found[0] : found[-1] + 1]) / (found[-1] - found[0] + 1)
        else:
            while stop < len(left) and matches[stop] == found:
                stop += 1
            length = _length(left[start:stop]) / (stop - start)
        moved = [item + (right[match] - item) * share for item in left[start:stop] for match in found]
        points += _thinned(moved, length / 2)
        start = stop
    return [part for point in points[:-1] for part in (point.real, point.imag)]


def _closed(flat: list[float]) -> Points:
    points = [complex(x, y) for x, y in zip(flat[::2], flat[1::2], strict=True)]
    return [*points, points[0]]


def _steps(points: Points) -> list[float]:
    return [abs(after - before) for before, after in pairwise(points)]


def _length(points: Points) -> float:
    return sum(_steps(points))


def _shares(points: Points) -> list[float] | None:
    length = _length(points)
    # Also of points that are not finite, which no comparison holds for.
    return [at / length for at in accumulate(_steps(points), initial=0.0)] if 0 < length < float("inf") else None


def _nearest(value: float, among: list[float]) -> int:
    """The first, of several that are as near."""
    return min(range(len(among)), key=lambda index: abs(value - among[index]))


def _thinned(points: Points, least: float) -> Points:
    """The first, the last, and of those between each that is `least` from the one before it; the middle of a lone pair
    that is closer."""
    if len(points) == 1:
        return points
    kept = points[:1]
    for point in points[1:-1]:
        if abs(point - kept[-1]) >= least:
            kept.append(point)
    kept.append(points[-1])
    close = len(kept) == 2 and abs(kept[1] - kept[0]) < least
    return [(kept[0] + kept[1]) / 2] if close else kept
