"""What the keypoints of a file give away: counts that differ within a category, and places far from their object."""

from __future__ import annotations

from collections import Counter

import numpy as np

from coordcore.errors import shortened
from coordcore_data.check.sample import Sample, ordered
from coordcore_data.check.suspicion import Suspicion, percent
from coordcore_data.convert.core import BoxOrder

_FAR = 0.5
"""Of the longer side of an object's box: keypoints are set a little outside of it, and hardly ever so far."""


def of_keypoints(sample: Sample, order: BoxOrder) -> list[Suspicion]:
    """order: of the boxes, and whether y comes first in keypoints too."""
    return [*_counts(sample), *_far(sample, order)] if len(sample.keypoints) else []


def _counts(sample: Sample) -> list[Suspicion]:
    """A category has the same keypoints everywhere: a file that says otherwise has lost some, or mixes two sets."""
    rows, counts = np.unique(sample.of_box, return_counts=True)
    known: dict[str, Counter[int]] = {}
    first: dict[tuple[str, int], int] = {}
    for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
        label = sample.labels[row]
        known.setdefault(label, Counter())[count] += 1
        first.setdefault((label, count), row)
    found = []
    for label, seen in known.items():
        (usual, _), *others = seen.most_common()
        if others:
            listed = ", ".join(f"{count} ({times} objects)" for count, times in seen.most_common()[:5])
            text = (
                f"objects of {shortened(label, 80)!r} have different numbers of keypoints: {listed}; first with "
                f"another than {usual}: {sample.where(first[label, others[0][0]])}.keypoints; write all of them, "
                "0, 0, 0 for one that is not labelled, or name the categories apart"
            )
            share = sum(times for _, times in others) / len(rows)
            found.append(Suspicion(kind="keypoints", share=share, text=text))
    return found


def _far(sample: Sample, order: BoxOrder) -> list[Suspicion]:
    labelled = (sample.keypoints[:, 2] > 0) & ~sample.is_point[sample.of_box]
    rows, places = sample.of_box[labelled], sample.keypoints[labelled, :2]
    boxes = ordered(sample, order)[rows]
    if order == "yxyx":
        places = places[:, ::-1]
    beyond = np.maximum(boxes[:, :2] - places, places - boxes[:, 2:]).max(1)
    far = np.flatnonzero(beyond > _FAR * (boxes[:, 2:] - boxes[:, :2]).max(1))
    if not len(far):
        return []
    share = len(far) / len(rows)
    x, y = places[far[0]]
    text = (
        f"{len(far)} labelled keypoints ({percent(share)}) lie farther from their object's box than half its longer "
        f"side (first: {sample.where(rows[far[0]])}.keypoints: {x:g}, {y:g}): in another space than the boxes, y "
        "first, counted from the box's corner, or another object's"
    )
    return [Suspicion(kind="keypoints", share=share, text=text)]
