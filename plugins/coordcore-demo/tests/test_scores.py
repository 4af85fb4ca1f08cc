"""The figures."""

from __future__ import annotations

import pytest

from coordcore_demo.scores import score
from coordcore_demo.shapes import Shape

RING = Shape("red ring", (0.0, 0.0, 10.0, 10.0))
CROSS = Shape("blue cross", (20.0, 20.0, 30.0, 30.0))


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
