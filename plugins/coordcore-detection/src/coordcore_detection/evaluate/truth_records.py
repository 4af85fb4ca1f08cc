"""Record files, line by line: the boxes in pixels, labels and crowd regions of one record. Torch-free."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from coordcore.quantisation import DEFAULT_QUANTISATION, Quantisation, quantisation
from coordcore.records.annotations import Annotation, Rules, read_annotations
from coordcore.records.geometry import bounds, bounds_inside
from coordcore.records.record import Record, RecordError, check_declared, labels_under, parse_record
from coordcore.records.source import all_lines
from coordcore_detection.evaluate.average_precision import FREQUENCIES
from coordcore_detection.evaluate.truth import Boxes, Id


@attrs.frozen(kw_only=True, eq=False)
class Objects:
    """What is on one image, in pixels, as `TruthImage` has it. places: of the boxes, among all objects."""

    labels: tuple[str, ...]
    boxes: Boxes
    crowd: np.ndarray[Any, np.dtype[np.bool_]]
    outlines: dict[int, Boxes]
    points: tuple[tuple[str, float, float], ...]
    kinds: frozenset[str]
    places: tuple[int, ...]

    @classmethod
    def sorted(
        cls,
        given: Sequence[tuple[str, str, Sequence[float], bool]],
        *,
        boxes: Callable[[Sequence[int]], Boxes],
        outline: Callable[[Sequence[float]], Boxes],
    ) -> Objects:
        """Points apart from what has a box.

        given: label, kind, numbers and whether it is a crowd region. boxes: gives those of objects, by their places.
        outline: [k, 2] pixels of numbers.
        """
        places = tuple(place for place, (_, kind, _, _) in enumerate(given) if kind != "point")
        outlined = [(index, place) for index, place in enumerate(places) if given[place][1] != "bbox_2d"]
        return cls(
            labels=tuple(given[place][0] for place in places),
            boxes=boxes(places),
            crowd=np.array([given[place][3] for place in places], dtype=bool),
            outlines={index: outline(given[place][2]) for index, place in outlined},
            points=tuple(
                (label, *outline(values)[0].tolist())
                for label, kind, values, crowd in given
                if kind == "point" and not crowd
            ),
            kinds=frozenset(kind for _, kind, _, _ in given),
            places=places,
        )

    def as_arguments(self) -> dict[str, Any]:
        """Of `TruthImage`."""
        return {name: getattr(self, name) for name in ("labels", "boxes", "crowd", "outlines", "points", "kinds")}


def declared(path: Path) -> Quantisation:
    """The convention of the bins in a record file, as its first record declares it; the default where it does not."""
    for number, line in all_lines(path):
        found = (parse_record(line).metadata or {}).get("quantisation", DEFAULT_QUANTISATION.name)
        where = f"{path}:{number}: metadata.quantisation"
        return quantisation(found) if isinstance(found, str) else Quantisation.from_dict(found, source=where)
    return DEFAULT_QUANTISATION


def image_id(record: Record) -> Id | None:
    """The source's own id of the image, as `coordcore data convert` keeps it; None for anything but number and text."""
    found = (record.metadata or {}).get("image_id")
    return found if isinstance(found, int | float | str) else None


def known_frequencies(record: Record) -> dict[str, str]:
    """`metadata.category_frequencies` of an LVIS file: label -> "r", "c" or "f". Raises RecordError."""
    found = (record.metadata or {}).get("category_frequencies")
    if found is None:
        return {}
    if not isinstance(found, dict) or any(item not in FREQUENCIES for item in found.values()):
        raise RecordError(
            "metadata.category_frequencies", f"must give labels one of {', '.join(FREQUENCIES)}, got {found!r:.80}"
        )
    return found


def looked_for(record: Record) -> dict[str, Any]:
    """What an LVIS file says of the labels of an image, as arguments of `TruthImage`. Raises RecordError."""
    keys = ("absent_categories", "incomplete_categories")
    absent, incomplete = (tuple(labels_under(record, key)) for key in keys)
    return {
        "absent": absent,
        "incomplete": incomplete,
        "federated": any((record.metadata or {}).get(key) is not None for key in keys),
        "frequencies": known_frequencies(record),
    }


def read_objects(record: Record, rules: Rules, convention: Quantisation) -> Objects:
    """What a record says is there. The box of a polygon or quad is that around its part in the image.

    Raises coordcore.records.record.RecordError with the object's path in front.
    """
    if rules.space == "bin":
        check_declared(record, convention, "what reads it")
    found = read_annotations(record, rules)
    limits = (record.width, record.height) if rules.space == "pixel" else (1, 1)
    size = np.array([record.width, record.height], dtype=np.float64)

    def pixels(corners: Any, columns: int) -> Boxes:
        """As many rows of x, y, ... as there are."""
        array = np.array(corners, dtype=np.float64).reshape(-1, columns)
        edge = np.tile(size, columns // 2)
        if rules.space == "bin":
            return convention.decode(array, edge)
        return np.clip(array * edge if rules.space == "norm1" else array, 0.0, edge)

    # The same few labels come again and again.
    return Objects.sorted(
        [(sys.intern(item.desc), item.kind, item.values, item.crowd) for item in found],
        boxes=lambda regions: pixels([_corners(found[place], *limits) for place in regions], 4),
        outline=lambda values: pixels(values, 2),
    )


def _corners(item: Annotation, width: int, height: int) -> Sequence[float]:
    """The corners of a box, or those around a polygon. One that reaches over the edge is cut before it is enclosed."""
    if item.kind == "bbox_2d":
        return item.values
    inside = bounds_inside(item.values, width, height) if item.outside else None
    return inside or bounds(item.values)
