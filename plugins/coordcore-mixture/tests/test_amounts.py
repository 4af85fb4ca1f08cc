"""How many records of each source an epoch holds."""

from __future__ import annotations

import pytest
from sources import boxes, config

from coordcore import InputError
from coordcore_mixture.amounts import amounts


def of(lengths: dict[str, int], **keys: dict[str, float]) -> dict[str, int]:
    return amounts(config(**{name: boxes(**keys.get(name, {})) for name in lengths}).sources, lengths)


def test_without_a_word_each_record_comes_once() -> None:
    assert of({"a": 5, "b": 3}) == {"a": 5, "b": 3}


def test_weights_share_what_the_sources_hold_together() -> None:
    assert of({"a": 3000, "b": 9000}, a={"weight": 3.0}, b={"weight": 1.0}) == {"a": 9000, "b": 3000}


def test_no_record_is_lost_in_a_division() -> None:
    # 13 records in thirds: 4 and a third each, the one that is left to the first.
    lengths = {"a": 5, "b": 4, "c": 4}
    assert of(lengths, **{name: {"weight": 0.1} for name in lengths}) == {"a": 5, "b": 4, "c": 4}


def test_the_three_ways_stand_beside_each_other() -> None:
    found = of(
        {"a": 10, "b": 30, "c": 7, "d": 2}, a={"weight": 1.0}, b={"weight": 1.0}, c={"records": 20}, d={"records": 1}
    )
    assert found == {"a": 20, "b": 20, "c": 20, "d": 1}
    assert [*found] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("lengths", "keys", "message"),
    [
        ({"a": 4, "b": 0}, {}, "data.mixture.sources.b: holds no training record; look at its settings, or leave it"),
        (
            {"a": 4, "b": 4},
            {"a": {"weight": 1e-8}, "b": {"weight": 1.0}},
            "data.mixture.sources.a.weight: 1e-08 is too little for a single record in an epoch; give it more",
        ),
        (
            {"a": 4, "b": 2},
            {"b": {"records": 2_000_001}},
            "data.mixture.sources.b.records: 2000001 records in an epoch from a source that holds 2, each more than",
        ),
        (
            {"a": 1, "b": 10**7},
            {"a": {"weight": 1.0}, "b": {"weight": 1.0}},
            "data.mixture.sources.a.weight: 5000001 records in an epoch from a source that holds 1, each more than",
        ),
    ],
)
def test_what_a_source_cannot_give_is_refused(lengths: dict[str, int], keys: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as caught:
        of(lengths, **keys)
    assert str(caught.value).startswith(message)
