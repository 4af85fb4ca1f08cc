"""Outlines: the areas that polygons share, AP of rotated boxes and of polygons by them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from evaluation_support import header, row, truth
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask

from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_detection.evaluate import results
from coordcore_detection.evaluate.compare import compare
from coordcore_detection.evaluate.evaluation import Evaluated, evaluate
from coordcore_detection.evaluate.matching import Floats
from coordcore_detection.evaluate.polygons import areas, has_area, holds
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.evaluate.truth_sources import truth_from_records
from coordcore_detection.predict.boxes import mark_duplicates
from coordcore_detection.predict.predictions import Box, Row


def polygon(*corners: tuple[float, float]) -> Floats:
    return np.array(corners, dtype=np.float64)


def turned(x: float, y: float, width: float, height: float, degrees: float) -> Floats:
    """A box around a centre, clockwise."""
    turn = math.radians(degrees)
    along, across = np.array([math.cos(turn), math.sin(turn)]) * width / 2, np.array([-math.sin(turn), math.cos(turn)])
    across = across * height / 2
    around = [-along - across, along - across, along + across, across - along]
    return np.array(around) + np.array([x, y])


SQUARE = polygon((0, 0), (10, 0), (10, 10), (0, 10))
L = polygon((0, 0), (10, 0), (10, 4), (4, 4), (4, 10), (0, 10))
CROSSED = polygon((0, 0), (10, 10), (10, 0), (0, 10))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (SQUARE, SQUARE, (100, 100, 100)),
        (SQUARE, SQUARE[::-1], (100, 100, 100)),
        (SQUARE, SQUARE + 5, (100, 100, 25)),
        (SQUARE, SQUARE + np.array([10, 0]), (100, 100, 0)),
        (SQUARE, turned(5, 5, 10, 10, 45), (100, 100, 200 * (math.sqrt(2) - 1))),  # a regular octagon
        (SQUARE, turned(5, 5, 4, 2, 30), (100, 8, 8)),
        (turned(0, 0, 10, 2, 0), turned(0, 0, 10, 2, 90), (20, 20, 4)),
        (SQUARE, L, (100, 64, 64)),
        (L, polygon((4, 4), (10, 4), (10, 10), (4, 10)), (64, 36, 0)),  # what the L leaves out
        (L, L[::-1] + 4, (64, 64, 0)),
        (SQUARE, CROSSED, (100, 50, 50)),  # both halves
        (SQUARE, polygon((0, 0), (10, 0), (5, 0)), (100, 0, 0)),
        (SQUARE, polygon((5, 5), (5, 5), (5, 5), (5, 5)), (100, 0, 0)),
    ],
)
def test_areas_of_known_shapes(a: Floats, b: Floats, expected: tuple[float, float, float]) -> None:
    assert areas(a, b) == pytest.approx(expected)
    assert areas(b, a) == pytest.approx((expected[1], expected[0], expected[2]))
    assert areas(a + 1000, b + 1000) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("outline", "expected"),
    [
        (SQUARE, True),
        (CROSSED, True),  # though its halves turn opposite ways
        (turned(500.3, 700.1, 900, 0.001, 37), True),
        (polygon((5, 5), (5, 5), (5, 5)), False),
        (polygon((10, 10), (20, 20), (30, 30)), False),
        (turned(500.3, 700.1, 900, 0, 37), False),  # a line but for rounding
        (polygon((0, 0), (9, 0), (9, 0), (3, 0)), False),
        (polygon(*((math.cos(k), math.sin(k)) for k in np.linspace(0, 6, 20_000))), True),  # at once
    ],
)
def test_a_line_has_no_area(outline: Floats, expected: bool) -> None:
    assert has_area(outline) is expected


def painted(outline: Floats, scale: int, side: int) -> Any:
    """The pixels of a polygon, `scale` along each unit, by Pillow."""
    canvas = Image.new("1", (side * scale, side * scale))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in (outline * scale).tolist()], fill=1)
    return np.asarray(canvas)


CORNERS = st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20)), min_size=3, max_size=7)


def star(corners: Sequence[tuple[float, float]]) -> Floats:
    """A polygon whose sides do not cross, concave as often as not: its corners by their direction from their middle."""
    points = np.array(corners)
    middle = points.mean(0)
    return points[np.argsort(np.arctan2(*(points - middle).T))]


@given(CORNERS, CORNERS)
def test_areas_are_those_of_painted_polygons(first: Any, second: Any) -> None:
    a, b = star(first), star(second)
    pixels = [painted(item, 32, 20) for item in (a, b)]
    counted = [int(item.sum()) / 32**2 for item in (*pixels, pixels[0] & pixels[1])]

    # Pillow paints the pixels that an outline touches, too: half a pixel along it.
    edge = sum(np.hypot(*(np.roll(item, -1, axis=0) - item).T).sum() for item in (a, b)) / 32 + 0.1
    assert areas(a, b) == pytest.approx(counted, abs=edge)


def test_areas_are_pycocotools_but_for_its_pixels() -> None:
    random = np.random.default_rng(0)
    for _ in range(40):
        a, b = (star(random.uniform(0, 400, (9, 2)).tolist()) for _ in range(2))
        masks = mask.frPyObjects([item.ravel().tolist() for item in (a, b)], 400, 400)
        own, other, both = areas(a, b)
        expected = mask.iou([masks[1]], [masks[0]], [False])[0, 0]
        assert both / (own + other - both) == pytest.approx(expected, abs=0.01)


def test_many_corners_fit_into_memory() -> None:
    turn = np.linspace(0, 2 * math.pi, 3000, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)

    assert areas(circle, SQUARE / 10) == pytest.approx((math.pi, 1, math.pi / 4), abs=1e-5)


def test_a_point_on_the_outline_is_inside() -> None:
    assert [holds(SQUARE, x, 5) for x in (-0.1, 0, 5, 10, 10.1)] == [False, True, True, True, False]
    assert [holds(L, 5, y) for y in (3.9, 4, 4.1)] == [True, True, False]
    assert holds(L[::-1], 1, 9)


def quads(key: str, *shapes: tuple[str, Floats], crowd: Sequence[bool] | None = None) -> TruthImage:
    boxes = [(label, (*shape.min(0), *shape.max(0))) for label, shape in shapes]
    image = truth(key, boxes, crowd=crowd)
    return attrs.evolve(image, outlines={index: shape for index, (_, shape) in enumerate(shapes)})


def answer(key: str, *shapes: tuple[str, Floats], scores: Sequence[float] | None = None) -> Row:
    made = row(key, [(label, (*shape.min(0), *shape.max(0))) for label, shape in shapes], scores)
    for box, (_, shape) in zip(made.boxes, shapes, strict=True):
        box.kind, box.points = "quad", shape.ravel().tolist()
    return made


def test_a_true_outline_without_area_is_counted() -> None:
    line = polygon((10, 10), (20, 20), (30, 30))
    images = [quads("a", ("ship", line), ("ship", SQUARE + 50)), quads("b", ("ship", line), crowd=[True])]
    result = measured(images, []).result
    assert result.counts["flat_true_outlines"] == 1
    told = "1 true polygons and quads have no area: no prediction can match them by outline (shape_...)"
    assert told in result.notes


def measured(images: list[TruthImage], rows: list[Row]) -> Evaluated:
    return evaluate(images, header(), rows)


ALONG, ACROSS = turned(50, 50, 60, 10, 45), turned(50, 50, 60, 10, -45)
"""The bars of an X: one box, and little in common."""


def test_two_bars_of_one_box_are_two_things() -> None:
    right = measured([quads("a", ("bar", ALONG))], [answer("a", ("bar", ALONG))]).result.metrics
    wrong = measured([quads("a", ("bar", ALONG))], [answer("a", ("bar", ACROSS))]).result.metrics

    assert (right["AP"], right["shape_AP"], right["shape_mean_iou"]) == pytest.approx((1, 1, 1))
    assert (wrong["AP"], wrong["shape_AP"]) == pytest.approx((1, 0))
    assert wrong["shape_mean_iou"] == pytest.approx(100 / 1100)
    assert (right["shape_accuracy_50"], wrong["shape_accuracy_50"]) == (1, 0)


def test_rotated_ap_by_hand() -> None:
    """Two bars. The best answer is right up to an IoU of .8, the next is wrong, the last is exact."""
    narrow = turned(50, 50, 60, 8, 45)  # IoU .8 with ALONG
    images = [quads("a", ("bar", ALONG)), quads("b", ("bar", ALONG))]
    rows = [
        answer("a", ("bar", narrow), ("bar", turned(20, 80, 10, 10, 0)), scores=[0.9, 0.8]),
        answer("b", ("bar", ALONG), scores=[0.7]),
    ]
    found = measured(images, rows).result.metrics

    # 51 of the 101 recalls are reached at a precision of 1, the other 50 at 2 of 3.
    first = (51 + 50 * 2 / 3) / 101
    assert found["shape_AP50"] == found["shape_AP75"] == pytest.approx(first)
    # From .85 on only the last one is right, the third of three: half of the truth at a third.
    assert found["shape_AP95"] == pytest.approx(51 / 3 / 101)
    assert found["agnostic_shape_AP50"] == found["shape_AP50"]


def test_an_upright_box_counts_as_its_corners() -> None:
    square = turned(50, 50, 40, 40, 0)
    found = measured([quads("a", ("bar", square))], [row("a", [("bar", (30, 30, 70, 70))])]).result.metrics

    assert found["shape_AP"] == pytest.approx(1)


def test_a_crowd_region_takes_what_lies_in_its_outline() -> None:
    small = turned(50, 50, 8, 8, 45)
    images = [quads("a", ("bar", ALONG), ("bar", turned(20, 20, 10, 10, 0)), crowd=[True, False])]
    hit = answer("a", ("bar", small), ("bar", turned(20, 20, 10, 10, 0)), scores=[0.9, 0.8])
    outside = answer("a", ("bar", turned(68, 32, 8, 8, 45)), ("bar", turned(20, 20, 10, 10, 0)), scores=[0.9, 0.8])

    assert measured(images, [hit]).result.metrics["shape_AP"] == pytest.approx(1)
    # In the box of the region, and not in the region itself: a mistake that ranks first.
    assert measured(images, [outside]).result.metrics["shape_AP"] == pytest.approx(0.5)


def test_the_ceiling_is_that_of_quantised_corners() -> None:
    tiny = turned(50.04, 50.04, 0.3, 0.3, 30)
    found = measured([quads("a", ("bar", tiny), ("bar", ALONG))], [answer("a", ("bar", ALONG))]).result.metrics

    assert found["oracle_shape_AP95"] == pytest.approx(51 / 2 / 101)  # the bar alone, and behind the other
    assert found["oracle_shape_AP50"] == pytest.approx(1)


def test_results_without_outlines_stay_as_they_were(tmp_path: Path) -> None:
    result = measured([truth("a", [("bar", (0, 0, 9, 9))])], [row("a", [("bar", (0, 0, 9, 9))])]).result

    assert not any("shape" in name or "point" in name for name in result.metrics)
    path = tmp_path / "evaluation.json"
    results.write(result, path)
    assert not {"by_outline", "agnostic_by_outline", "points"} & json.loads(path.read_text())["detail"].keys()


def test_compare_resamples_them(tmp_path: Path) -> None:
    images = [quads(str(index), ("bar", ALONG)) for index in range(6)]
    better = measured(images, [answer(image.key, ("bar", ALONG)) for image in images]).result
    worse = measured(images, [answer(image.key, ("bar", ACROSS)) for image in images]).result
    results.write(worse, tmp_path / "a.json")
    results.write(better, tmp_path / "b.json")
    lines = {
        line.metric: line for line in compare(*map(results.read, (tmp_path / "a.json", tmp_path / "b.json"))).lines
    }

    assert (lines["shape_AP"].a, lines["shape_AP"].b, lines["shape_AP"].difference_interval) == (0, 1, (1, 1))
    assert lines["agnostic_shape_mean_iou"].is_clear
    assert not lines["AP"].is_clear


def test_records_say_outlines_in_any_space(tmp_path: Path) -> None:
    quad = [40, 10, 60, 30, 40, 50, 20, 30]
    objects = [
        {"desc": "a", "bbox_2d": [0, 0, 10, 10]},
        {"desc": "b", "point": [5, 6]},
        {"desc": "c", "quad": quad[2:] + quad[:2]},
        {"desc": "d", "poly": [0, 0, 8, 0, 0, 8]},
    ]
    record = {
        "images": ["a.png"],
        "width": 100,
        "height": 80,
        "objects": objects,
        "metadata": {"object_areas": [9, None, 7, 3]},
    }
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(record) + "\n")
    [found] = truth_from_records(path, space="pixel", quantisation=DEFAULT_QUANTISATION, question="")

    assert found.labels == ("a", "c", "d")
    assert found.points == (("b", 5.0, 6.0),)
    assert found.kinds == {"bbox_2d", "point", "quad", "poly"}
    assert {index: outline.ravel().tolist() for index, outline in found.outlines.items()} == {
        1: quad,
        2: [0, 0, 8, 0, 0, 8],
    }
    assert found.areas is not None
    assert found.areas.tolist() == [9, 7, 3]


def test_duplicates_are_told_by_outlines() -> None:
    boxes = answer("a", ("bar", ALONG), ("bar", ACROSS), ("bar", ALONG)).boxes
    points = [
        Box(label="p", box=(5, 5, 5, 5), bins=(0, 0, 0, 0), score=1, kind="point", points=[5, 5]) for _ in range(2)
    ]
    mark_duplicates(boxes)
    mark_duplicates(points)

    assert [box.duplicate for box in boxes] == [False, False, True]
    assert [box.duplicate for box in points] == [False, True]
