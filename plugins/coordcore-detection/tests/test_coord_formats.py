"""Coordinate tokens of other counts and orders: the grammar, and what an answer's truth is."""

from __future__ import annotations

import numpy as np
import pytest

from coordcore import Example, Geometry
from coordcore.coords import PRESETS, CoordFormat
from coordcore.quantisation import quantisation
from coordcore.records.answers import Located, answer_text
from coordcore_detection.decode.automaton import COORD, X1, X2, Y1, Y2, answer_automaton
from coordcore_detection.evaluate.truth_sources import truth_from_examples

PALIGEMMA, SMALL = PRESETS["paligemma"][0], CoordFormat(tokens="<p{}>", bins=256)


@pytest.mark.parametrize(("order", "slots"), [("xy", [X1, Y1, X2, Y2]), ("yx", [Y1, X1, Y2, X2])])
def test_the_grammar_has_the_order_of_the_model(order: str, slots: list[int]) -> None:
    automaton = answer_automaton(("bbox_2d",), "desc_first", order=order)
    state = 0
    for byte in b'{"objects": [{"desc": "a", "bbox_2d": [':
        state = automaton.steps[state, byte]
    for place, slot in enumerate(slots):
        assert np.flatnonzero(automaton.steps[state, COORD:] >= 0).tolist() == [slot]
        state = automaton.steps[state, COORD + slot]
        for byte in b", " if place < 3 else b"]}]}":
            state = automaton.steps[state, byte]
    assert state in automaton.ends


@pytest.mark.parametrize(("coords", "name"), [(PALIGEMMA, "paligemma_1024"), (SMALL, "nearest_255")])
@pytest.mark.parametrize("with_geometries", [True, False])
def test_truth_is_where_the_box_is(coords: CoordFormat, name: str, with_geometries: bool) -> None:
    from PIL import Image

    box, spec = (10, 20, 30, 200), quantisation(name)
    answer = answer_text([Located(desc="a", kind="bbox_2d", bins=box)], coords=coords)
    example = Example(
        messages=[{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": answer}],
        images=[Image.new("RGB", (64, 32))],
        geometries=(Geometry(kind="bbox_2d", values=box),) if with_geometries else (),
    )
    [truth] = truth_from_examples([example], spec, coords)
    assert truth.boxes.tolist() == [spec.decode(np.array(box), np.array([64, 32, 64, 32])).tolist()]
