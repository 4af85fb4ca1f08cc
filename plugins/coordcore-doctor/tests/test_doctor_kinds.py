"""What the doctor's checks of boxes make of points."""

from __future__ import annotations

from coordcore.coords import CoordVocab
from coordcore.records.example import Example, Geometry
from coordcore_doctor.sample import Encoded

VOCAB = CoordVocab(ids=range(100, 1100))
VALUES = {
    "point": (12.4, 40.0),
    "quad": (20.0, 10.0, 60.0, 30.0, 50.0, 50.0, 10.0, 30.0),
    "bbox_2d": (1.0, 2.0, 3.0, 4.0),
}


def test_points_are_no_boxes_but_for_pictures() -> None:
    geometries = tuple(Geometry(kind=kind, values=values) for kind, values in VALUES.items())
    labels = tuple(VOCAB.ids[int(value)] for values in VALUES.values() for value in values)
    row = Encoded(example=Example(messages=(), geometries=geometries), sizes=(), ids=labels, labels=labels, seen=())

    source, written = row.boxes(VOCAB)
    assert source.tolist() == written.tolist() == [[10, 10, 60, 50], [1, 2, 3, 4]]
    assert row.boxes(VOCAB, points=True)[1].tolist() == [[12, 40, 12, 40], [10, 10, 60, 50], [1, 2, 3, 4]]
