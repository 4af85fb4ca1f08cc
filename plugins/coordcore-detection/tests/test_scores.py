"""The scores of a box."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from coordcore_detection.predict.scores import DEFAULT_SCORE, SCORES, Evidence, scores_of


def evidence(
    *,
    description: Sequence[float] = (0.8, 0.2),
    coordinates: Sequence[float] = (0.1, 0.4, 0.1, 0.4),
    entropy: float = 0.0,
) -> Evidence:
    """Of probabilities."""
    return Evidence(
        description=[math.log(item) for item in description],
        coordinates=[math.log(coordinate) for coordinate in coordinates],
        entropy=[entropy] * 4,
        log_mass=[math.log(0.9)] * 4,
        log_near=[math.log(0.5), math.log(0.5), math.log(0.125), math.log(0.125)],
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("geometric_mean", (0.8 * 0.2 * 0.1 * 0.4 * 0.1 * 0.4) ** (1 / 6)),
        ("min", 0.1),
        ("coord_mass", 0.4 * 0.9),  # 0.4: the geometric mean of 0.8 and 0.2
        ("entropy", 0.4),
        ("near", 0.4 * 0.25),
    ],
)
def test_by_hand(name: str, value: float) -> None:
    assert scores_of(evidence())[name] == pytest.approx(value)


def test_the_flattest_distribution_has_no_entropy_score() -> None:
    assert scores_of(evidence(entropy=math.log(1000)))["entropy"] == pytest.approx(0.0)


def test_certainty_scores_one() -> None:
    sure = Evidence(description=[0.0], coordinates=[0.0] * 4, entropy=[0.0] * 4, log_mass=[0.0] * 4, log_near=[0.0] * 4)
    assert set(scores_of(sure).values()) == {1.0}


def test_what_the_model_held_impossible_scores_zero() -> None:
    none = Evidence(
        description=[-math.inf],
        coordinates=[-math.inf] * 4,
        entropy=[7.0] * 4,
        log_mass=[-80.0] * 4,
        log_near=[-9.0] * 4,
    )
    assert set(scores_of(none).values()) == {0.0}


def test_the_default_is_one_of_them() -> None:
    assert DEFAULT_SCORE in SCORES
