"""A sample of the run's examples, encoded by its template, and what can be read back from the labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from coordcore.coords import CoordVocab
from coordcore.errors import InputError, RunError
from coordcore.records.example import Example
from coordcore.records.images import open_example_image
from coordcore_train.engine import EncodedRow

if TYPE_CHECKING:
    from coordcore_train.engine import Encoder, Rehearsal

Floats = np.ndarray[Any, np.dtype[np.float64]]


@attrs.frozen(kw_only=True, eq=False)
class Encoded(EncodedRow):
    """An example and its row. sizes: (width, height) of each image in pixels, as it is."""

    example: Example
    sizes: tuple[tuple[int, int], ...]

    def boxes(self, vocab: CoordVocab, *, points: bool = False) -> tuple[Floats, Floats]:
        """[n, 4] twice, in bin units: each geometry's bounds as the builder gave it, and as the labels have it.

        points: with points, whose bounds have no extent.
        """
        both = [
            (_bounds(geometry.values), _bounds(said))
            for geometry, said in zip(self.example.geometries, self.written(vocab), strict=True)
            if points or geometry.kind != "point"
        ]
        return _array([wanted for wanted, _ in both]), _array([said for _, said in both])

    def written(self, vocab: CoordVocab) -> list[tuple[int, ...]]:
        """The bins of each geometry, x first, as the labels have them."""
        bins = vocab.bins(self.labels)
        read = iter(bins[bins >= 0].tolist())
        return [vocab.format.arranged([next(read) for _ in geometry.values]) for geometry in self.example.geometries]


@attrs.frozen(kw_only=True, eq=False)
class Sample:
    """rows: what could be encoded. unread, unencoded: what the builder, and what the template said of the others.

    total: examples there are to train on.
    """

    rows: tuple[Encoded, ...]
    unread: tuple[str, ...]
    unencoded: tuple[str, ...]
    total: int

    @property
    def asked(self) -> int:
        """Examples that were looked at."""
        return len(self.rows) + len(self.unread) + len(self.unencoded)

    def shortest(self) -> Example:
        """The example with the fewest tokens, with a box if there is one. Raises RunError when there is none."""
        if not self.rows:
            raise RunError("no example could be encoded, so that there is nothing to train a step on")
        return min(self.rows, key=lambda row: (not row.example.geometries, len(row.ids))).example


def draw_sample(rehearsal: Rehearsal, count: int) -> Sample:
    """Encode `count` training examples, and a quarter as many held-out ones, spread evenly over each."""
    data = rehearsal.plan.data
    train, validation = data.train(), data.validation()
    rows: list[Encoded] = []
    unread: list[str] = []
    unencoded: list[str] = []
    for source, wanted in ((train, count), (validation or [], max(1, count // 4))):
        for index in _spread(len(source), wanted):
            try:
                example = source[index]
            except InputError as error:
                unread.append(str(error))
                continue
            try:
                rows.append(_encode(example, rehearsal.encoder))
            except InputError as error:
                unencoded.append(str(error))
    return Sample(rows=tuple(rows), unread=tuple(unread), unencoded=tuple(unencoded), total=len(train))


def _encode(example: Example, encoder: Encoder) -> Encoded:
    row = encoder.encode(example)
    sizes = tuple(open_example_image(image).size for image in example.images)
    return Encoded(**attrs.asdict(row, recurse=False), example=example, sizes=sizes)


def _spread(length: int, count: int) -> Iterator[int]:
    count = min(length, count)
    return (index * length // count for index in range(count))


def _bounds(values: Any) -> tuple[float, float, float, float]:
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])


def _array(boxes: list[tuple[float, float, float, float]]) -> Floats:
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)
