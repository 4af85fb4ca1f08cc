"""Comparing tensors that were rounded differently: within their own scale and their reference's own error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordcore.testing.missing import needs_train

if TYPE_CHECKING:
    from torch import Tensor


@needs_train()
def assert_close_to_scale(
    actual: Tensor,
    expected: Tensor,
    exact: Tensor | None = None,
    *,
    multiple: float = 8.0,
    ulps: float = 8.0,
    scale: float | None = None,
    what: str = "the tensor",
) -> None:
    """Assert that `actual` is `expected` but for rounding, which differs from machine to machine.

    A matrix product of another shape, a sum in another order and another kernel of the same operation each round
    differently, by a share of the largest term, not of each element. So an element may be off by

        multiple * max|expected - exact| + ulps * eps * scale

    actual, expected: of one shape and dtype. exact: the same in float64, of any dtype: how far `expected` is from it
    says how much rounding there is; None where nothing but the last few operations differ. eps: of their dtype. scale:
    the largest term that went into a value, max|expected| when None; give it where large terms cancel.

    Raises AssertionError naming `what`, the difference, what is allowed and the place. NaN and infinity are not close.
    """
    import torch

    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), (
        f"{what} is {tuple(actual.shape)} {actual.dtype}, expected {tuple(expected.shape)} {expected.dtype}"
    )
    if not expected.numel():
        return
    found, wanted = actual.detach().double(), expected.detach().double()
    largest = float(wanted.abs().max()) if scale is None else scale
    allowed = ulps * torch.finfo(expected.dtype).eps * largest
    if exact is not None:
        allowed += multiple * float((wanted - exact.detach().double()).abs().max())
    difference = (found - wanted).abs()
    worst = int(difference.argmax())
    # An infinite reference would allow anything, and NaN compares false.
    assert allowed < float("inf") and float(difference.max()) <= allowed, (  # noqa: PT018 - one condition, one message
        f"{what} differs by {float(difference.max()):.3g} (at most {allowed:.3g} is rounding), the most at element "
        f"{worst}: {float(found.flatten()[worst]):.9g}, expected {float(wanted.flatten()[worst]):.9g}"
    )
