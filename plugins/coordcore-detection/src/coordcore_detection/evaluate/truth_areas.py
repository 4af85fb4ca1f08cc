"""`metadata.object_areas` of a record, of masks for instance, which decide COCO's size classes. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coordcore.coords import CoordFormat
from coordcore.records.annotations import Rules, read_annotations
from coordcore.records.geometry import bounds
from coordcore.records.record import LARGEST, Record, RecordError
from coordcore_detection.evaluate.truth import Boxes

Areas = np.ndarray[Any, np.dtype[np.float64]]


def known_areas(record: Record, boxes: Boxes, places: Sequence[int]) -> Areas | None:
    """[n] square pixels for the boxes of a record, [n, 4], crowd regions last; None where the record gives no areas.

    places: of the boxes among the objects. What is null, as a crowd region, has the area of its box. Raises RecordError
    unless each object has an area or null.
    """
    given = _given(record)
    if given is None:
        return None
    return _areas(boxes, np.array([place for place in places if place < len(given)], dtype=np.int64), given)


def areas_in_answer(
    record: Record, labels: Sequence[str], boxes: Boxes, size: tuple[int, int], coords: CoordFormat
) -> Areas | None:
    """[n] square pixels for `labels` and `boxes` ([n, 4] pixels) that a builder has made of the record's objects.

    The builder may have sorted them, and its `space` is not known here: each box is looked up among those of its label
    in the space that most of them fit. One that fits none, being clipped for instance, has the area of its box.
    """
    given = _given(record)
    if not given:
        return None
    rules = Rules(space=None, ordered=False, outside=None, coords=coords)
    objects = [item for item in read_annotations(record, rules) if not item.crowd and item.kind != "point"]
    if not objects:
        return None
    indices = np.array([item.index for item in objects], dtype=np.int64)
    written = np.array([bounds(item.values) for item in objects], dtype=np.float64)
    last, sides = coords.bins - 1, np.array(size * 2, dtype=np.float64)
    other = np.array([[label != item.desc for item in objects] for label in labels]).reshape(-1, len(objects))
    places: Any = np.zeros(0, dtype=np.int64)
    near: Any = np.zeros(len(labels), dtype=bool)
    for scale in (sides, np.ones(4), np.full(4, last)):
        distance = np.abs((boxes / sides)[:, None] - written / scale).max(2) + np.where(other, np.inf, 0.0)
        close = distance.min(1) <= 1.5 / last
        if close.sum() > near.sum():
            near, places = close, distance.argmin(1)
    areas = _areas(boxes, np.zeros(0, dtype=np.int64), given)
    areas[near] = _areas(boxes[near], indices[places[near]], given)
    return areas


def _given(record: Record) -> list[float | None] | None:
    found = (record.metadata or {}).get("object_areas")
    if found is None:
        return None
    count = len(record.objects or ())
    if not isinstance(found, list) or len(found) != count:
        told = f"{len(found)} entries" if isinstance(found, list) else f"{found!r:.80}"
        raise RecordError("metadata.object_areas", f"must hold an area or null for each of {count} objects, got {told}")
    for index, area in enumerate(found):
        if area is not None and (type(area) not in (int, float) or not 0 <= area <= LARGEST):
            raise RecordError(
                f"metadata.object_areas[{index}]", f"must be square pixels >= 0 or null, got {area!r:.80}"
            )
    return found


def _areas(boxes: Boxes, places: Any, given: list[float | None]) -> Areas:
    """The areas given for the first boxes, by their places among the given ones; of the others the boxes' own."""
    areas: Areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for index, place in enumerate(places.tolist()):
        area = given[place]
        if area is not None:
            areas[index] = area
    return areas
