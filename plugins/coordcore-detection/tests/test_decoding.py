"""From a distribution over the bins to a coordinate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coordcore_detection.decode.decoding import NEAR_BINS, Coords, read_coords

torch.set_num_threads(1)

K = 1000


def peak(at: float, sigma: float = 3.0) -> torch.Tensor:
    """[1, K]: the logits of a normal distribution around bin `at`."""
    return -((torch.arange(K, dtype=torch.float64) - at) ** 2)[None] / (2 * sigma**2)


def read(logits: torch.Tensor, bins: list[int], **settings: object) -> Coords:
    values = {"coordinates": "expectation", "window": None} | settings
    return read_coords(logits, logits.double().logsumexp(-1), torch.tensor(bins), **values)


def test_argmax_is_what_was_written() -> None:
    assert read(peak(400.3), [411], coordinates="argmax").value.tolist() == [411.0]


def test_the_expectation_is_finer_than_a_bin() -> None:
    assert read(peak(400.3), [400]).value.item() == pytest.approx(400.3, abs=1e-6)


def test_a_window_leaves_out_a_far_mode() -> None:
    both = torch.logsumexp(torch.stack([peak(100), peak(700)]), 0)
    assert read(both, [100]).value.item() == pytest.approx(400, abs=1e-6)
    assert read(both, [100], window=50).value.item() == pytest.approx(100, abs=1e-6)


def test_a_window_reaches_as_far_as_it_says() -> None:
    logits = torch.full((1, K), -1e4)
    logits[0, [500, 505, 506]] = 0.0
    assert read(logits, [500], window=5).value.item() == pytest.approx(502.5)


def test_a_window_of_no_width_is_the_written_bin() -> None:
    assert read(peak(400.3), [407], window=0).value.item() == 407.0


def test_against_a_plain_reference_in_float64() -> None:
    logits = torch.randn(5, K, generator=torch.Generator().manual_seed(0)) * 3
    full = logits.double().logsumexp(-1) + 0.25
    bins = torch.tensor([0, 3, 500, 990, 999])
    found = read_coords(logits, full, bins, coordinates="expectation", window=30)
    for row, bin_ in enumerate(bins.tolist()):
        weights = [np.exp(value) for value in logits[row].double().tolist()]
        total = sum(weights)
        p = [weight / total for weight in weights]
        mean = sum(k * item for k, item in enumerate(p))
        near = range(max(0, bin_ - 30), min(K, bin_ + 31))
        assert found.value[row] == pytest.approx(sum(k * p[k] for k in near) / sum(p[k] for k in near))
        assert found.spread[row] == pytest.approx(sum(item * (k - mean) ** 2 for k, item in enumerate(p)) ** 0.5)
        assert found.entropy[row] == pytest.approx(-sum(item * np.log(item) for item in p))
        assert found.log_mass[row] == pytest.approx(-0.25)
        close = range(max(0, bin_ - NEAR_BINS), min(K, bin_ + NEAR_BINS + 1))
        assert found.log_near[row] == pytest.approx(np.log(sum(p[k] for k in close)))


def test_extreme_logits_stay_finite() -> None:
    logits = torch.full((2, K), -1e4)
    logits[0, 3], logits[1] = 1e4, 1e4
    found = read(logits, [3, 7])
    assert found.value.tolist() == [3.0, pytest.approx(499.5)]
    assert found.entropy.tolist() == [0.0, pytest.approx(np.log(K))]
    assert found.spread[0] == 0.0


def test_bfloat16() -> None:
    logits = peak(400).bfloat16()
    assert read(logits, [400]).value.item() == pytest.approx(400, abs=0.05)


def test_no_coordinates() -> None:
    assert read(torch.empty(0, K), []).value.shape == (0,)


def test_nan_stays_nan() -> None:
    logits = peak(400)
    logits[0, 5] = torch.nan
    assert np.isnan(read(logits, [400]).value).all()
