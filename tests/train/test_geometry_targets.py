"""What the losses see of each kind of geometry: docs/explanation/losses.md says so."""

from __future__ import annotations

import pytest
import torch

from coordcore.coords import CoordVocab
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.records.example import Example, Geometry
from coordcore_train.objective.targets import make_targets, scope_counts
from coordcore_train.swift.template import align, sizes_of

VALUES = {
    "point": (12.4, 40.0),
    "quad": (2.5, 1.0, 6.0, 3.0, 5.0, 5.0, 1.0, 3.0),
    "bbox_2d": (10.25, 20.0, 30.0, 40.0),
    "poly": (0.0, 0.0, 9.0, 0.0, 9.0, 9.0),
}
VOCAB = CoordVocab(ids=range(100, 1100))
EXAMPLE = Example(
    messages=(),
    geometries=tuple(Geometry(kind=kind, values=values) for kind, values in VALUES.items()),
    image_size=(999, 999),
)
ANSWER = [token for values in VALUES.values() for token in (7, *(VOCAB.ids[int(value)] for value in values))]


def test_every_coordinate_has_its_own_real_valued_target_and_boxes_alone_are_boxes() -> None:
    places = align(ANSWER, EXAMPLE, VOCAB)
    labels, values = torch.tensor([[-100, *ANSWER]]), torch.tensor([[0.0, *places.values]])
    targets = make_targets(labels, VOCAB, values=values, corners=torch.tensor([[-1, *places.corners]]))

    assert targets["values"].tolist() == pytest.approx([value for values in VALUES.values() for value in values])
    assert targets["values"][targets["boxes"]][0].tolist() == pytest.approx(VALUES["bbox_2d"])
    assert scope_counts(targets) == {"coord": 20, "text": 4, "token": 24, "box": 1}


def test_an_object_is_as_large_as_the_box_around_it() -> None:
    places = align(ANSWER, EXAMPLE, VOCAB)
    sizes = sizes_of(EXAMPLE, places, DEFAULT_QUANTISATION)[:, 2:]
    first = [
        place
        for place, number in enumerate(places.geometries)
        if number not in places.geometries[:place] and number >= 0
    ]

    assert sizes[first].tolist() == [pytest.approx(size) for size in ([0, 0], [5, 4], [19.75, 20], [9, 9])]
