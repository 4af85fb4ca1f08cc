"""Points: how near predicted ones are to true ones, and whether they lie in the true box. Torch-free.

Points of one label in one image are paired by rising distance, each in one pair at most, as boxes are by falling IoU:
scores play no part. Of an image with one true region the predicted point of highest score is the answer, which is right
when it lies inside, edges included: so ScreenSpot judges a click (Cheng et al., SeeClick, 2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import attrs
import numpy as np

from coordcore_detection.evaluate.matching import Floats
from coordcore_detection.evaluate.metrics import AGNOSTIC, Sums
from coordcore_detection.evaluate.polygons import holds
from coordcore_detection.evaluate.radius import Radius

Point = tuple[str, float, float]
"""A label, and x and y in pixels."""


_SHARED = ("true", "predicted", "of_regions", "alone")
COUNTED = (*_SHARED, *(p + name for p in ("", AGNOSTIC) for name in ("right", "paired", "distance", "inside", "hit")))
"""What `per_image` counts."""


@attrs.frozen(kw_only=True, eq=False)
class PointsOfImage:
    """What is to be compared on one image.

    true: the points. regions: label and outline ([k, 2] pixels) of what has an area. predicted: the points, in the
    order of the answer, with their scores, NaN where there is none. is_pointed: whether it can have been asked to
    point: its task is to, and the truth or the answer has points, or the answer nothing at all.
    """

    size: tuple[int, int]
    true: Sequence[Point]
    regions: Sequence[tuple[str, Floats]]
    predicted: Sequence[tuple[Point, float]]
    is_pointed: bool = True


def per_image(images: Iterable[PointsOfImage], radius: Radius) -> Sums:
    """Name -> [I]: what `ratios` divides, to be summed over images with any weights."""
    rows: list[dict[str, float]] = []
    for image in images:
        alone = len(image.regions) == 1 and image.is_pointed
        row: dict[str, float] = {
            "true": len(image.true),
            "predicted": len(image.predicted),
            "of_regions": len(image.predicted) if image.regions else 0,
            "alone": alone,
        }
        best = max(image.predicted, key=lambda item: -math.inf if math.isnan(item[1]) else item[1], default=None)
        for prefix, by_label in (("", True), (AGNOSTIC, False)):
            distances = _pairs(image, by_label)
            inside = sum(_is_inside(image, point, by_label) for point, _ in image.predicted)
            row |= {
                f"{prefix}right": sum(distance <= radius.of(image.size) for distance in distances),
                f"{prefix}paired": len(distances),
                f"{prefix}distance": sum(distances),
                f"{prefix}inside": inside,
                f"{prefix}hit": alone and best is not None and _is_inside(image, best[0], by_label),
            }
        rows.append(row)
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in COUNTED}


def ratios(sums: Mapping[str, Floats]) -> dict[str, Floats]:
    """Metric -> [B], NaN where there is nothing to divide by. `sums` holds [B] of `per_image`.

    point_F1, point_precision, point_recall: within the radius. point_distance: mean over pairs, in pixels.
    point_inside: the share of predicted points that lie in a true region of their label, on images that have any.
    point_accuracy: over images with one true region, ScreenSpot's. Each also with `agnostic_` in front.
    """
    found: dict[str, Floats] = {}
    for prefix in ("", AGNOSTIC):
        has_points = np.where(sums["true"] > 0, 1.0, np.nan)  # without true points every predicted one is no mistake
        right = sums[f"{prefix}right"]
        with np.errstate(divide="ignore", invalid="ignore"):
            found |= {
                f"{prefix}point_F1": 2 * right / (sums["true"] + sums["predicted"]) * has_points,
                f"{prefix}point_precision": right / sums["predicted"] * has_points,
                f"{prefix}point_recall": right / sums["true"],
                f"{prefix}point_distance": sums[f"{prefix}distance"] / sums[f"{prefix}paired"],
                f"{prefix}point_inside": sums[f"{prefix}inside"] / sums["of_regions"],
                f"{prefix}point_accuracy": sums[f"{prefix}hit"] / sums["alone"],
            }
    return found


def _pairs(image: PointsOfImage, by_label: bool) -> list[float]:
    """The distances of the pairs, in pixels."""
    true, predicted = image.true, [point for point, _ in image.predicted]
    if not true or not predicted:
        return []
    at, to = (np.array([item[1:] for item in side], dtype=np.float64) for side in (true, predicted))
    distance = np.hypot(*np.moveaxis(at[:, None] - to[None], 2, 0))
    if by_label:
        labels = np.array([[item[0] for item in true]]).T
        distance[labels != np.array([item[0] for item in predicted])] = np.inf
    free_true, free_predicted = [True] * len(true), [True] * len(predicted)
    found: list[float] = []
    for place in np.argsort(distance, axis=None, kind="stable").tolist():
        t, p = divmod(place, len(predicted))
        if not np.isfinite(distance[t, p]) or len(found) == min(distance.shape):
            break  # what is left has another label, or is no point
        if free_true[t] and free_predicted[p]:
            free_true[t] = free_predicted[p] = False
            found.append(float(distance[t, p]))
    return found


def _is_inside(image: PointsOfImage, point: Point, by_label: bool) -> bool:
    label, x, y = point
    return any((not by_label or name == label) and holds(outline, x, y) for name, outline in image.regions)
