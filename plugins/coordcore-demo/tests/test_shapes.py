"""The pictures: the same every time, and the boxes are where the paint is."""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np
import pytest

from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_demo.shapes import COLOURS, SHAPES, Shape, draw, layout


def pixels(image):
    return np.asarray(image, dtype=np.float64)


def painted(image, colour):
    """[H, W]: the share of each pixel that the only shape of a picture covers."""
    array = pixels(image)
    background = array[[0, 0, -1, -1], [0, -1, 0, -1]].min(axis=0)
    contrast = np.array(COLOURS[colour]) - background
    return ((array - background) @ contrast) / (contrast @ contrast)


def extent(line):
    """Where the paint along a line begins and ends, from the covered share of its pixels."""
    first, last = np.flatnonzero(line > 0.004)[[0, -1]]
    return first + 1 - line[first], last + line[last]


def singles(count):
    return [draw(11, index) for index in range(count)]


def test_the_same_arguments_draw_the_same_picture():
    (first, shapes), (other, same_shapes) = draw(3, 5, max_objects=4), draw(3, 5, max_objects=4)
    assert (first.tobytes(), shapes) == (other.tobytes(), same_shapes)


def test_pictures_stay_what_they_were():
    # Figures in README.md and the base checkpoint belong to these pictures.
    image, shapes = draw(0, 0)
    assert shapes == [Shape("yellow cross", (13.75, 19.25, 29.875, 35.375))]
    assert hashlib.sha256(image.tobytes()).hexdigest()[:16] == "48e74d0664c2457b"


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"index": 1}, {"split": "train"}, {"split": "validation"}],
    ids=["seed", "index", "train", "validation"],
)
def test_another_seed_index_or_split_is_another_picture(other):
    assert draw(**{"seed": 0, "index": 0, **other})[1] != draw(0, 0)[1]


def test_a_picture_is_square_rgb_of_the_size_asked_for():
    image, _ = draw(0, 0, image_size=96)
    assert (image.size, image.mode) == ((96, 96), "RGB")


def test_boxes_match_the_pixels_to_an_eighth():
    errors = []
    for image, (shape,) in singles(200):
        x1, y1, x2, y2 = shape.box
        cover = painted(image, shape.desc.split()[0])
        row, column = cover[int((y1 + y2) / 2)], cover[:, int((x1 + x2) / 2)]
        found = [*extent(row), *extent(column)]
        errors.append(np.abs(np.array(found) - [x1, x2, y1, y2]).max())
    assert max(errors) < 1 / 8


def test_nothing_is_painted_outside_the_boxes():
    for image, shapes in (draw(2, index, min_objects=3, max_objects=3) for index in range(50)):
        outside = np.ones((64, 64), dtype=bool)
        for shape in shapes:
            x1, y1, x2, y2 = shape.box
            outside[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = False
        assert len(np.unique(pixels(image)[outside])) == 1


def test_the_shapes_cover_the_area_they_should():
    share = {}
    for image, (shape,) in singles(100):
        colour, name = shape.desc.split()
        x1, y1, x2, y2 = shape.box
        share.setdefault(name, []).append(painted(image, colour).sum() / ((x2 - x1) * (y2 - y1)))
    # A cross of bars 0.36 wide; a ring between the radii 0.55 and 1.
    expected = {"square": 1.0, "cross": 1 - 0.64**2, "ring": np.pi / 4 * (1 - 0.55**2)}
    assert {name: np.mean(values) for name, values in share.items()} == pytest.approx(expected, abs=0.01)


def test_all_bins_are_used():
    boxes = [layout(0, i, split="train", image_size=64, min_objects=1, max_objects=1)[1][0].box for i in range(12000)]
    assert len(np.unique(DEFAULT_QUANTISATION.encode(boxes, 64))) == 1000


def test_every_description_occurs():
    descs = {layout(0, i, split="train", image_size=64, min_objects=1, max_objects=1)[1][0].desc for i in range(300)}
    assert descs == {f"{colour} {shape}" for colour in COLOURS for shape in SHAPES}


@pytest.mark.parametrize("count", [1, 3, 9])
def test_the_count_is_kept_even_where_it_is_crowded(count):
    counts = {len(draw(4, index, image_size=32, min_objects=count, max_objects=count)[1]) for index in range(30)}
    assert counts == {count}


def test_counts_spread_over_their_range():
    counts = {len(draw(4, index, min_objects=2, max_objects=4)[1]) for index in range(40)}
    assert counts == {2, 3, 4}


def test_boxes_lie_inside_and_do_not_touch():
    for index in range(100):
        shapes = draw(5, index, min_objects=4, max_objects=4)[1]
        assert all(0 <= edge <= 64 for shape in shapes for edge in shape.box)
        for (a, b, c, d), (e, f, g, h) in combinations([shape.box for shape in shapes], 2):
            assert max(e - c, a - g, f - d, b - h) >= 1


def test_descriptions_of_one_picture_differ():
    for index in range(50):
        descs = [shape.desc for shape in draw(6, index, min_objects=5, max_objects=5)[1]]
        assert len(set(descs)) == 5


def test_objects_come_from_top_to_bottom():
    for index in range(50):
        tops = [shape.box[1] for shape in draw(7, index, min_objects=3, max_objects=3)[1]]
        assert tops == sorted(tops)


@pytest.mark.parametrize(("fewest", "most"), [(0, 1), (3, 2), (1, 10)])
def test_wrong_counts_are_refused(fewest, most):
    with pytest.raises(ValueError, match=f"got {fewest} and {most}"):
        draw(0, 0, min_objects=fewest, max_objects=most)
