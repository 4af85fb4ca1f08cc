"""Turned squares: the corners are where the paint is, and the answer is the corners."""

from __future__ import annotations

import numpy as np
import pytest

from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.records.answers import parse_answer
from coordcore_demo.config import ShapesConfig
from coordcore_demo.data import Shapes
from coordcore_demo.shapes import COLOURS
from coordcore_demo.turned import draw_turned


def train(**keys):
    return Shapes(config=ShapesConfig(geometry="quad", **keys), quantisation=DEFAULT_QUANTISATION).train()


def covered(quad):
    """[64, 64]: the share of each pixel inside a quad with clockwise corners, of 16 x 16 points of it."""
    at = (np.arange(64 * 16) + 0.5) / 16
    x, y = np.meshgrid(at, at)
    corners = np.reshape(quad, (4, 2))
    inside = np.ones_like(x, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        inside &= (bx - ax) * (y - ay) - (x - ax) * (by - ay) >= 0
    return inside.reshape(64, 16, 64, 16).mean(axis=(1, 3))


def test_the_paint_is_between_the_corners():
    for index in range(60):
        image, (square,) = draw_turned(3, index)
        array = np.asarray(image, dtype=np.float64)
        grey = array.min(axis=(0, 1))
        contrast = np.array(COLOURS[square.desc.split()[0]]) - grey.min()
        painted = (array - grey.min()) @ contrast / (contrast @ contrast)
        assert np.abs(painted - covered(square.quad)).max() < 0.08, (index, square)


def test_the_corners_are_those_of_squares_at_all_angles():
    angles = []
    for index in range(400):
        for square in draw_turned(5, index, max_objects=4)[1]:
            corners = np.reshape(square.quad, (4, 2))
            sides = np.roll(corners, -1, axis=0) - corners
            lengths = np.hypot(*sides.T)
            assert lengths == pytest.approx(lengths[0])
            assert (sides * np.roll(sides, -1, axis=0)).sum(1) == pytest.approx(0)
            assert (corners >= 0).all() and (corners <= 64).all()
            angles.append(np.degrees(np.arctan2(sides[0][1], sides[0][0])))
    assert np.percentile(angles, [1, 50, 99]) == pytest.approx([-44, 0, 44], abs=4)
    assert -45 <= min(angles) <= max(angles) <= 45  # the first corner is that where x + y is least


def test_the_same_arguments_draw_the_same_picture_and_other_splits_others():
    (first, squares), (again, same) = draw_turned(3, 5, max_objects=4), draw_turned(3, 5, max_objects=4)
    assert (first.tobytes(), squares) == (again.tobytes(), same)
    assert draw_turned(3, 5, split="train", max_objects=4)[1] != squares


def test_colours_of_one_picture_differ_and_objects_come_from_top_to_bottom():
    for index in range(40):
        squares = draw_turned(6, index, min_objects=4, max_objects=4)[1]
        tops = [min(square.quad[1::2]) for square in squares]
        assert ({square.desc for square in squares}, tops) == ({f"{name} square" for name in COLOURS}, sorted(tops))


def test_an_answer_says_the_corners_in_their_order():
    example = train(seed=3, max_objects=4)[8]
    image, squares = draw_turned(3, 8, split="train", max_objects=4)
    found = parse_answer(example.messages[1]["content"]).objects
    corners = [[value * 999 / 64 for value in square.quad] for square in squares]
    assert example.images[0].tobytes() == image.tobytes()
    assert [(item.desc, item.kind) for item in found] == [(square.desc, "quad") for square in squares]
    assert [geometry.values for geometry in example.geometries] == [pytest.approx(values) for values in corners]
    assert [list(item.bins) for item in found] == [np.rint(values).astype(int).tolist() for values in corners]


def test_a_phrase_names_a_square():
    asked = {train(seed=1, task="refer", max_objects=4)[index].messages[0]["content"] for index in range(60)}
    assert asked == {f"<image>Find the {name} square." for name in COLOURS}


@pytest.mark.parametrize(("fewest", "most"), [(0, 1), (3, 2), (1, 5)])
def test_wrong_counts_are_refused(fewest, most):
    with pytest.raises(ValueError, match=f"got {fewest} and {most}"):
        draw_turned(0, 0, min_objects=fewest, max_objects=most)


def test_more_squares_than_colours_are_refused_by_the_manifest():
    with pytest.raises(ValueError, match=r"max_objects is 5, .* each has one of 4 colours to itself; set it to 4"):
        ShapesConfig(geometry="quad", max_objects=5)
