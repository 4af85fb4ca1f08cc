"""Reading answers back, and the figures."""

from __future__ import annotations

import pytest

from coordcore_demo import answer_text
from coordcore_demo.scores import iou, parse, score
from coordcore_demo.shapes import Shape

RING = Shape("red ring", (0.0, 0.0, 10.0, 10.0))
CROSS = Shape("blue cross", (20.0, 20.0, 30.0, 30.0))


@pytest.mark.parametrize("coord_tokens", [True, False])
def test_an_answer_reads_back(coord_tokens):
    objects = [("red ring", (12, 40, 500, 999)), ("blue cross", (0, 1, 2, 3))]
    assert parse(answer_text(objects, coord_tokens=coord_tokens)) == objects


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a red ring",
        "[1, 2]",
        '{"objects": {}}',
        '{"objects": ["red ring"]}',
        '{"objects": [{"bbox_2d": [1, 2, 3, 4]}]}',
        '{"objects": [{"desc": "red ring"}]}',
        '{"objects": [{"desc": "red ring", "bbox_2d": [1, 2, 3]}]}',
        '{"objects": [{"desc": "red ring", "bbox_2d": [3, 2, 3, 4]}]}',
        '{"objects": [{"desc": "red ring", "bbox_2d": [1, 4, 3, 2]}]}',
        '{"objects": [{"desc": "red ring", "bbox_2d": [1, 2, 3, 1000]}]}',
        '{"objects": [{"desc": "red ring", "bbox_2d": [1, 2, 3, 4.5]}]}',
        '{"objects": [{"desc": "red ring", "bbox_2d": [1, 2, <|coord_*|>, 4]}]}',
        '{"objects": [{"desc": "red ring", "bbox_2d": [1, 2, 3, 4]}',
    ],
)
def test_anything_else_does_not_parse(text):
    assert parse(text) is None


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 10, 10), 1.0),
        ((5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 5), 0.5),
        ((10, 0, 20, 10), 0.0),
        ((20, 20, 30, 30), 0.0),
    ],
)
def test_iou(box, expected):
    assert iou((0, 0, 10, 10), box) == pytest.approx(expected)


def test_perfect_answers_score_one():
    scores = score([[RING], [RING, CROSS]], [[RING], [CROSS, RING]])
    assert (scores.parsed, scores.class_agnostic_iou, scores.mean_iou, scores.f1_50, scores.f1_75) == (1, 1, 1, 1, 1)


def test_a_wrong_description_counts_for_the_box_only():
    scores = score([[RING]], [[Shape("red square", RING.box)]])
    assert (scores.class_agnostic_iou, scores.mean_iou, scores.f1_50) == (1, 0, 0)


def test_an_answer_that_does_not_parse_counts_as_nothing_found():
    scores = score([[RING], [RING]], [None, [RING]])
    assert (scores.parsed, scores.class_agnostic_iou, scores.f1_50) == (0.5, 0.5, pytest.approx(2 / 3))


def test_a_surplus_box_costs_parse_rate_and_f1_only():
    scores = score([[RING]], [[RING, CROSS]])
    assert (scores.parsed, scores.mean_iou, scores.f1_50) == (0, 1, pytest.approx(2 / 3))


def test_a_box_is_given_to_one_shape_only():
    near = Shape("red ring", (1.0, 0.0, 11.0, 10.0))
    scores = score([[RING, near]], [[RING]])
    assert scores.class_agnostic_iou == 0.5


def test_the_bounds_of_f1():
    scores = score([[RING]], [[Shape("red ring", (0.0, 0.0, 10.0, 6.0))]])
    assert (scores.f1_50, scores.f1_75) == (1, 0)


def test_no_pictures_cannot_be_scored():
    with pytest.raises(ValueError, match="no pictures to score"):
        score([], [])
