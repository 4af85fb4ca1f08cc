"""Federated truth, as LVIS's: which labels were looked for in which image, and how frequent they are. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from coordcore import InputError
from coordcore_detection.evaluate.matching import Bools, Flat, Ints


def unjudged(
    boxes: Flat,
    truth: Flat,
    labels: Mapping[str, int],
    *,
    absent: Iterable[Sequence[str]],
    incomplete: Iterable[Sequence[str]],
) -> Bools:
    """[n]: whether nobody looked for the label of a box in its image, or not for all of its objects.

    labels: text -> id, of both sides. absent, incomplete: by image, labels that are known not to be there, and those of
    which not every object is marked.
    """
    count = len(labels)

    def pairs(lists: Iterable[Sequence[str]]) -> Ints:
        """Image and label in one number; labels that no box has are left out."""
        listed = ((index, labels.get(name)) for index, given in enumerate(lists) for name in given)
        return np.array([index * count + label for index, label in listed if label is not None], dtype=np.int64)

    mine = boxes.image * count + boxes.label
    looked_for = np.concatenate([truth.image * count + truth.label, pairs(absent)])
    return ~np.isin(mine, looked_for) | np.isin(mine, pairs(incomplete))


def frequencies(images: Iterable[tuple[str, Collection[str], Iterable[tuple[str, str]]]]) -> dict[str, str]:
    """Label -> its frequency, from the key, the labels and the frequencies by label of each image.

    Labels that are not in an image do not count there. Raises InputError for a label of two frequencies.
    """
    found: dict[str, tuple[str, str]] = {}
    for key, present, given in images:
        for label, frequency in given:
            if label not in present:
                continue
            before, where = found.setdefault(label, (frequency, key))
            if before != frequency:
                raise InputError(
                    f"{key}: metadata.category_frequencies: {label!r} is {frequency!r}, and {before!r} in {where}; "
                    "a label has one frequency"
                )
    return {label: frequency for label, (frequency, _) in found.items()}
