"""Places that move with pixels: mirrored, clipped, kept whole, scaled; by their own rules and beside torchvision's."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from coordcore.records.geometry import bounds
from coordcore_coord_tokens.augment.changes import Draws, Move, drawn, moved_picture
from coordcore_coord_tokens.augment.config import AugmentConfig
from coordcore_coord_tokens.augment.shapes import Shape, Window, grown, mirrored, scaled, within

SIZE = 80, 60
BOX = Shape("box", "bbox_2d", (10.25, 5.5, 40.0, 30.125))
UPRIGHT = (10.0, 5.0, 40.0, 5.0, 40.0, 30.0, 10.0, 30.0)


def test_a_mirrored_box_keeps_its_corners_in_order() -> None:
    assert mirrored(BOX, 80).values == (40.0, 5.5, 69.75, 30.125)


@pytest.mark.parametrize("kind", ["quad", "poly"])
def test_a_mirrored_outline_keeps_its_turn_and_its_first_corner(kind: str) -> None:
    assert mirrored(Shape("", kind, UPRIGHT), 80).values == (40.0, 5.0, 70.0, 5.0, 70.0, 30.0, 40.0, 30.0)


def test_a_mirrored_triangle_keeps_its_turn() -> None:
    assert mirrored(Shape("", "poly", (0, 0, 9, 0, 5, 7)), 10).values == (1, 0, 10, 0, 5, 7)


def test_a_mirrored_point_is_one() -> None:
    assert mirrored(Shape("", "point", (12.5, 3.0)), 80).values == (67.5, 3.0)


@pytest.mark.parametrize("kind", ["bbox_2d", "poly", "quad", "point"])
def test_mirrored_twice_is_as_it_was(kind: str) -> None:
    values = {"bbox_2d": BOX.values, "point": (12.5, 3.0)}.get(kind, UPRIGHT)
    shape = Shape("", kind, values)
    assert mirrored(mirrored(shape, 80), 80) == shape


@pytest.mark.parametrize(
    ("kind", "values", "window", "visible", "expected"),
    [
        ("bbox_2d", (10, 10, 30, 30), (5, 5, 50, 50), 0.0, (5, 5, 25, 25)),
        ("bbox_2d", (10, 10, 30, 30), (20, 0, 80, 60), 0.5, (0, 10, 10, 30)),
        ("bbox_2d", (10, 10, 30, 30), (20, 0, 80, 60), 0.51, None),
        ("bbox_2d", (10, 10, 30, 30), (30, 0, 80, 60), 0.0, None),  # side by side
        ("bbox_2d", (10, 10, 10, 30), (10, 0, 80, 60), 0.0, (0, 10, 0, 30)),  # a line on the edge
        ("point", (10, 10), (10, 10, 20, 20), 1.0, (0, 0)),
        ("point", (10, 10), (11, 10, 20, 20), 0.0, None),
        ("poly", (0, 0, 20, 0, 0, 20), (0, 0, 10, 10), 0.5, (0, 0, 10, 0, 10, 10, 0, 10)),
        ("poly", UPRIGHT, (0, 0, 80, 20), 0.0, (10, 5, 40, 5, 40, 20, 10, 20)),  # begins where it did
        ("poly", UPRIGHT, (20, 0, 80, 60), 0.0, (0, 5, 20, 5, 20, 30, 0, 30)),  # or with the next point
        ("poly", (0, 20, 9, 0, 20, 30), (0, 0, 80, 20), 0.0, (0, 20, 9, 0, 16.333333333333332, 20)),
        ("poly", (0, 0, 20, 0, 0, 20), (0, 0, 10, 10), 0.51, None),
        ("poly", (0, 0, 20, 0, 0, 20), (12, 12, 20, 20), 0.0, None),  # its bounds overlap, it does not
        ("quad", UPRIGHT, (20, 0, 80, 60), 0.0, None),  # nobody asks: `grown` came before
        # over the image's edge: clipped where it is encoded
        ("quad", (-9, 5, 40, 5, 40, 30, -9, 30), (0, 5, 50, 50), 1.0, (-9, 0, 40, 0, 40, 25, -9, 25)),
        ("bbox_2d", (-500, 10, 20, 30), (0, 5, 50, 50), 1.0, (-500, 5, 20, 25)),
        ("bbox_2d", (-500, 10, 20, 30), (10, 0, 80, 60), 0.5, (0, 10, 10, 30)),  # half of what the picture has
        ("bbox_2d", (-500, 10, 20, 30), (10, 0, 80, 60), 0.51, None),
        ("poly", (-500, 10, 20, 10, 20, 30, -500, 30), (10, 0, 80, 60), 0.5, (0, 10, 10, 10, 10, 30, 0, 30)),
        ("poly", (-500, 10, 20, 10, 20, 30, -500, 30), (10, 0, 80, 60), 0.51, None),
    ],
)
def test_what_a_window_leaves(
    kind: str, values: tuple[float, ...], window: Window, visible: float, expected: object
) -> None:
    left = within(Shape("", kind, tuple(map(float, values))), window, SIZE, visible=visible)
    assert (left and left.values) == expected


@given(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 60)), min_size=3, max_size=9), st.integers(1, 79))
def test_the_parts_of_a_cut_polygon_add_up(points: list[tuple[int, int]], cut: int) -> None:
    values = tuple(float(value) for point in points for value in point)
    shape = Shape("", "poly", values)
    parts = [within(shape, window, SIZE, visible=0.0) for window in ((0, 0, cut, 60), (cut, 0, 80, 60))]
    total = sum(signed(part.values) for part in parts if part is not None)
    assert total == pytest.approx(signed(values))
    for part in parts:
        assert part is None or bounds(part.values)[2] <= max(cut, 80 - cut)


def signed(values: tuple[float, ...]) -> float:
    points = list(zip(values[::2], values[1::2], strict=True))
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True)) / 2


@pytest.mark.parametrize(
    ("kind", "whole", "expected"),
    [
        ("bbox_2d", False, (30, 20, 50, 40)),
        ("bbox_2d", True, (10, 5, 50, 40)),
        ("quad", False, (10, 5, 50, 40)),  # a cut one would be none
        ("poly", False, (30, 20, 50, 40)),
        ("point", True, (30, 20, 50, 40)),
    ],
)
def test_a_window_grows_around_what_must_stay_whole(kind: str, whole: bool, expected: Window) -> None:
    values = {"bbox_2d": BOX.values, "point": (29.5, 25.0)}.get(kind, UPRIGHT)
    beside = Shape("", "bbox_2d", (60.0, 0.0, 80.0, 60.0))
    assert grown((30, 20, 50, 40), [Shape("", kind, values), beside], SIZE, whole=whole) == expected


def test_a_window_that_grows_over_another_object_takes_it_in_too() -> None:
    chain = [Shape("", "bbox_2d", (float(x), 10.0, x + 12.0, 20.0)) for x in (50, 40, 30)]
    assert grown((55, 0, 80, 60), chain, SIZE, whole=True) == (30, 0, 80, 60)


def test_a_shape_over_the_image_s_edge_does_not_draw_the_window_there() -> None:
    over = Shape("", "bbox_2d", (-20.0, -5.0, 30.0, 70.0))
    assert grown((10, 10, 40, 40), [over], SIZE, whole=True) == (0, 0, 40, 60)


# --- beside torchvision ---


@pytest.mark.parametrize("seed", range(20))
def test_places_move_as_torchvision_moves_boxes(seed: int) -> None:
    """To the float32 factor by which its kernels multiply."""
    config = AugmentConfig(flip=0.5, crop=(0.5, 1.0), resize=(0.5, 2.0), crop_visible=0.0)
    move = drawn(config, Draws(str(seed)), [BOX], SIZE, max_aspect=200)
    boxes = tv_tensors.BoundingBoxes(torch.tensor([BOX.values]), format="XYXY", canvas_size=(60, 80))
    left, top, right, bottom = move.window
    boxes = functional.horizontal_flip(boxes) if move.mirrors else boxes
    boxes = functional.crop(boxes, top, left, bottom - top, right - left)
    boxes = functional.resize(boxes, [move.size[1], move.size[0]])
    [shape] = move.shapes
    assert shape.values == pytest.approx(boxes[0].tolist(), abs=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_the_moved_box_is_where_the_rectangle_is(seed: int) -> None:
    rectangle = Shape("", "bbox_2d", (20.0, 12.0, 53.0, 41.0))
    image = Image.new("RGB", SIZE)
    ImageDraw.Draw(image).rectangle((20, 12, 52, 40), fill="white")
    move = drawn(
        AugmentConfig(flip=0.5, crop=(0.4, 1.0), crop_visible=0.1), Draws(str(seed)), [rectangle], SIZE, max_aspect=9
    )
    [shape] = move.shapes
    assert moved_picture(image, move).getbbox() == shape.values


@pytest.mark.parametrize("factor", [0.5, 2.0, 3.0])
def test_a_scaled_box_is_where_the_rectangle_is(factor: float) -> None:
    image = Image.new("L", SIZE)
    ImageDraw.Draw(image).rectangle((20, 12, 51, 39), fill="white")
    size = round(SIZE[0] * factor), round(SIZE[1] * factor)
    move = Move(mirrors=False, window=(0, 0, *SIZE), size=size, shapes=())
    found = moved_picture(image, move).point(lambda value: 255 * (value >= 128)).getbbox()
    assert scaled(Shape("", "bbox_2d", (20, 12, 52, 40)), SIZE, size).values == found


def test_an_edge_stays_an_edge() -> None:
    line = Shape("", "bbox_2d", (49.0, 0.0, 49.0, 49.0))
    for after in range(1, 200):
        assert scaled(line, (49, 49), (after, after)).values[2:] == pytest.approx((after, after))
        assert max(scaled(line, (49, 49), (after, after)).values) <= after


def test_what_lies_over_the_edge_stays_over_it() -> None:
    assert scaled(Shape("", "point", (90.0, -6.0)), SIZE, (40, 120)).values == (45.0, -12.0)


def test_a_purpose_has_random_numbers_of_its_own() -> None:
    draws = Draws("0 train.jsonl 1 7")
    assert draws("crop").random() == draws("crop").random() != draws("flip").random()
    assert draws("flip").random() == Random("0 train.jsonl 1 7 flip").random()


def test_no_object_means_any_window() -> None:
    move = drawn(AugmentConfig(crop=(0.5, 0.5)), Draws(""), [], SIZE, max_aspect=200)
    assert (move.window[2] - move.window[0], move.window[3] - move.window[1]) == (40, 30)


@pytest.mark.parametrize("seed", range(10))
def test_a_crop_leaves_an_object_or_the_image_whole(seed: int) -> None:
    corner = Shape("", "bbox_2d", (0.0, 0.0, 3.0, 3.0))
    move = drawn(AugmentConfig(crop=(0.1, 0.2)), Draws(str(seed)), [corner], SIZE, max_aspect=200)
    assert move.shapes
    assert move.window[:2] == (0, 0) or min(move.window[:2]) < 3


@pytest.mark.parametrize("seed", range(10))
def test_a_window_is_the_first_that_leaves_enough(seed: int) -> None:
    shapes = [Shape("", "bbox_2d", (30.0, 20.0, 40.0, 30.0)), Shape("", "bbox_2d", (45.0, 20.0, 55.0, 30.0))]
    config = AugmentConfig(crop=(0.5, 0.8), crop_visible=1.0)
    asked_about: list[int] = []

    def enough(left: Sequence[Shape]) -> bool:
        asked_about.append(len(left))
        return len(left) == 2

    move = drawn(config, Draws(str(seed)), shapes, SIZE, enough=enough, max_aspect=9)
    assert (len(move.shapes), asked_about[-1], 2 in asked_about[:-1]) == (2, 2, False)
    first = drawn(config, Draws(str(seed)), shapes, SIZE, max_aspect=9)
    assert (first.window == move.window) == (next(count for count in asked_about if count) == 2)


def test_a_window_is_never_too_long_one_way() -> None:
    for seed in range(20):
        move = drawn(AugmentConfig(crop=(0.1, 1.0)), Draws(str(seed)), [], (300, 100), max_aspect=4)
        width, height = move.size
        assert max(width, height) <= 4 * min(width, height)
