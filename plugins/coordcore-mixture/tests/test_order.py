"""The arithmetic of an epoch beside the lists that it stands for."""

from __future__ import annotations

from fractions import Fraction

import pytest

from coordcore_mixture.order import place, shuffled

COUNTS = [[1], [7], [1, 1], [3, 1], [1, 3], [5, 2, 9], [1, 1, 1, 40], [2, 2, 2, 2, 2, 2], [100, 1, 37]]


@pytest.mark.parametrize("counts", COUNTS)
def test_the_order_is_that_of_the_shares(counts: list[int]) -> None:
    every = [(Fraction(2 * k + 1, 2 * count), source, k) for source, count in enumerate(counts) for k in range(count)]
    assert [place(index, counts) for index in range(sum(counts))] == [(source, k) for _, source, k in sorted(every)]


@pytest.mark.parametrize("counts", COUNTS)
def test_any_beginning_keeps_the_proportions(counts: list[int]) -> None:
    total, seen = sum(counts), [0] * len(counts)
    for index in range(total):
        seen[place(index, counts)[0]] += 1
        shares = [(index + 1) * count / total for count in counts]
        assert max(abs(had - share) for had, share in zip(seen, shares, strict=True)) <= (len(counts) + 1) / 2


def test_ten_thousand_million_records_cost_nothing() -> None:
    counts = [10**10, 3 * 10**9]
    assert place(0, counts) == (0, 0)
    assert place(sum(counts) - 1, counts) == (0, 10**10 - 1)
    source, k = place(6_500_000_000, counts)
    assert abs(k - counts[source] / 2) <= 2


def test_no_record_lies_behind_the_last() -> None:
    with pytest.raises(IndexError, match="record 4 of an epoch of 4"):
        place(4, [3, 1])


@pytest.mark.parametrize("length", [1, 2, 3, 6, 89, 100, 4001])
def test_each_pass_takes_every_record_once(length: int) -> None:
    for turn in (0, 1, 5):
        drawn = [shuffled(turn * length + step, length, "0 coco") for step in range(length)]
        assert sorted(drawn) == list(range(length))


def test_a_part_of_a_sorted_source_is_spread_over_it() -> None:
    # Of 10,000 records sorted into ten classes a thousand are taken, from anywhere in a pass: nearly a hundred of each.
    for begin in (0, 4500, 9000):
        classes = [shuffled(number, 10_000, "0 coco") // 1000 for number in range(begin, begin + 1000)]
        assert max(abs(classes.count(number) - 100) for number in range(10)) <= 5


def test_seed_and_name_decide_where_a_pass_begins() -> None:
    assert len({shuffled(0, 10**6, key) for key in ("0 coco", "1 coco", "0 refcoco")}) == 3
