"""The kit's comparison of rounded tensors: what is rounding, and what is not."""

from __future__ import annotations

import pytest
import torch

from coordcore.testing.closeness import assert_close_to_scale

EPS = torch.finfo(torch.float32).eps


def test_a_small_element_may_be_off_by_the_rounding_of_the_largest() -> None:
    expected = torch.tensor([1000.0, 0.0])
    assert_close_to_scale(expected + torch.tensor([0.0, 4 * EPS * 1000]), expected)


def test_what_is_more_than_rounding_is_named() -> None:
    expected = torch.tensor([[1.0, -4.0], [0.5, 2.0]])
    with pytest.raises(AssertionError) as caught:
        assert_close_to_scale(expected + torch.tensor([[0.0, 0.0], [0.25, 0.0]]), expected, what="the gradient")
    assert str(caught.value) == (
        "the gradient differs by 0.25 (at most 3.81e-06 is rounding), the most at element 2: 0.75, expected 0.5"
    )


def test_small_numbers_are_compared_as_strictly_as_large_ones() -> None:
    expected = torch.full((3,), 1e-6)
    with pytest.raises(AssertionError, match="differs by 1e-08"):
        assert_close_to_scale(expected * 1.01, expected)


def test_a_reference_that_is_off_by_itself_allows_as_much_again() -> None:
    expected, exact = torch.tensor([1.0]), torch.tensor([1.0 + 1e-4], dtype=torch.float64)
    assert_close_to_scale(expected - 7e-4, expected, exact)
    with pytest.raises(AssertionError, match=r"differs by 0\.0009"):
        assert_close_to_scale(expected - 9e-4, expected, exact)


def test_terms_that_cancelled_give_the_scale() -> None:
    expected = torch.tensor([1e-3])
    assert_close_to_scale(expected + 4 * EPS * 100, expected, scale=100.0)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_what_is_not_finite_is_never_close(broken: float) -> None:
    whole, hurt = torch.tensor([1.0, 2.0]), torch.tensor([1.0, broken])
    for actual, expected in ((hurt, whole), (whole, hurt), (hurt, hurt)):
        with pytest.raises(AssertionError, match="differs by"):
            assert_close_to_scale(actual, expected)


def test_another_shape_or_dtype_is_not_the_same() -> None:
    first = torch.ones(2)
    for other in (first[:1], first.double()):
        with pytest.raises(AssertionError, match="expected"):
            assert_close_to_scale(other, first)


def test_two_empty_tensors_are_the_same() -> None:
    assert_close_to_scale(torch.empty(0, 3), torch.empty(0, 3))
