"""Record files, line by line: the boxes in pixels, labels and crowd regions of one record. Torch-free."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coordcore.quantisation import DEFAULT_QUANTISATION, Quantisation, quantisation
from coordcore.records.annotations import Annotation, Rules, read_annotations
from coordcore.records.geometry import bounds, bounds_inside
from coordcore.records.record import Record, RecordError, check_declared, parse_record
from coordcore.records.source import all_lines
from coordcore_detection.evaluate.average_precision import FREQUENCIES
from coordcore_detection.evaluate.truth import Boxes, Id


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


def known_labels(record: Record, key: str) -> tuple[str, ...]:
    """The labels under a key of the metadata: `absent_categories` and `incomplete_categories` of an LVIS file.

    Raises coordcore.records.record.RecordError unless they are a list of texts.
    """
    found = (record.metadata or {}).get(key)
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise RecordError(f"metadata.{key}", f"must be a list of labels, got {found!r:.80}")
    return tuple(found)


def known_frequencies(record: Record) -> dict[str, str]:
    """`metadata.category_frequencies` of an LVIS file: label -> "r", "c" or "f". Raises RecordError."""
    found = (record.metadata or {}).get("category_frequencies")
    if found is None:
        return {}
    if not isinstance(found, dict) or any(one not in FREQUENCIES for one in found.values()):
        raise RecordError(
            "metadata.category_frequencies", f"must give labels one of {', '.join(FREQUENCIES)}, got {found!r:.80}"
        )
    return found


def looked_for(record: Record) -> dict[str, Any]:
    """What an LVIS file says of the labels of an image, as arguments of `TruthImage`. Raises RecordError."""
    keys = ("absent_categories", "incomplete_categories")
    absent, incomplete = (known_labels(record, key) for key in keys)
    return {
        "absent": absent,
        "incomplete": incomplete,
        "federated": any((record.metadata or {}).get(key) is not None for key in keys),
        "frequencies": known_frequencies(record),
    }


def read_objects(
    record: Record, rules: Rules, convention: Quantisation
) -> tuple[Boxes, tuple[str, ...], np.ndarray[Any, Any]]:
    """[n, 4] boxes in pixels, n labels and [n] crowd marks of a record; a poly is the box around its part in the image.

    Raises coordcore.records.record.RecordError with the object's path in front.
    """
    if rules.space == "bin":
        check_declared(record, convention, "what reads it")
    found = read_annotations(record, rules)
    limits = (record.width, record.height) if rules.space == "pixel" else (1, 1)
    corners = [_corners(item, *limits) for item in found]
    boxes = np.array(corners, dtype=np.float64).reshape(-1, 4)
    size = np.array([record.width, record.height] * 2, dtype=np.float64)
    if rules.space == "bin":
        boxes = convention.decode(boxes, size)
    else:
        boxes = np.clip(boxes * size if rules.space == "norm1" else boxes, 0.0, size)
    # The same few labels come again and again.
    labels = tuple(sys.intern(item.desc) for item in found)
    return boxes, labels, np.array([item.crowd for item in found], dtype=bool)


def _corners(item: Annotation, width: int, height: int) -> Sequence[float]:
    """The corners of a box, or those around a polygon. One that reaches over the edge is cut before it is enclosed."""
    if item.kind == "bbox_2d":
        return item.values
    inside = bounds_inside(item.values, width, height) if item.outside else None
    return inside or bounds(item.values)
