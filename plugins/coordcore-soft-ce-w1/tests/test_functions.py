"""The four public functions against float64 references in NumPy, and what they do with odd input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coordcore.testing.closeness import assert_close_to_scale
from coordcore_soft_ce_w1 import (
    SoftCEW1,
    coord_soft_ce_w1,
    functions,
    gaussian_soft_targets,
    soft_cross_entropy,
    wasserstein_1,
)

K = 1000
LEADING_SHAPES = [(), (0,), (1,), (7,), (3, 4), (2, 0, 4), (2, 1, 3, 2)]


def reference_targets(bins, sigma, truncate=None, num_bins=K):
    distance = np.arange(num_bins, dtype=np.float64) - np.asarray(bins, dtype=np.float64)[..., None]
    weight = np.exp(-(distance**2) / (2 * sigma**2))
    if truncate is not None:
        weight = np.where(np.abs(distance) <= truncate, weight, 0.0)
    return weight / weight.sum(-1, keepdims=True)


def reference_log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def reference_w1(probs, targets):
    return np.abs(np.cumsum(probs, -1) - np.cumsum(targets, -1)).sum(-1) / (probs.shape[-1] - 1)


def random_case(n=64, seed=0, scale=5.0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, K)) * scale, generator.integers(0, K, n)


# --- gaussian_soft_targets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truncate", [None, 0, 1, 6, 2000])
@pytest.mark.parametrize("sigma", [0.5, 2.0, 10.0, 400.0])
def test_targets_are_the_normalised_gaussian(sigma, truncate):
    bins = torch.tensor([0, 1, 3, 500, 996, 999])
    expected = reference_targets(bins.numpy(), sigma, truncate)
    actual = gaussian_soft_targets(bins, sigma=sigma, truncate=truncate, dtype=torch.float64).numpy()
    # Below the smallest normal number there are fewer digits.
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=np.finfo(np.float64).tiny)


def test_float32_targets_are_the_float64_ones_rounded():
    bins = torch.arange(K)
    expected = reference_targets(bins.numpy(), 2.0)
    np.testing.assert_allclose(gaussian_soft_targets(bins, sigma=2.0).numpy(), expected, rtol=1e-5, atol=1e-30)


def test_targets_are_float32_by_default():
    assert gaussian_soft_targets(torch.tensor(3), sigma=2.0).dtype == torch.float32


def test_beyond_the_truncation_radius_targets_are_exactly_zero():
    targets = gaussian_soft_targets(torch.tensor(500), sigma=50.0, truncate=3)
    assert torch.nonzero(targets).flatten().tolist() == [497, 498, 499, 500, 501, 502, 503]


def test_truncation_at_radius_zero_is_one_hot():
    bins = torch.tensor([0, 17, 999])
    expected = torch.nn.functional.one_hot(bins, K).float()
    assert torch.equal(gaussian_soft_targets(bins, sigma=2.0, truncate=0), expected)


def test_a_tiny_sigma_is_one_hot():
    expected = torch.nn.functional.one_hot(torch.tensor(17), K).float()
    assert torch.equal(gaussian_soft_targets(torch.tensor(17), sigma=1e-30), expected)


@pytest.mark.parametrize(("sigma", "peak", "floor"), [(2.0, 0.1995, 2.112), (1.0, 0.399, 1.419)])
def test_sigma_caps_confidence_and_sets_the_floor(sigma, peak, floor):
    targets = gaussian_soft_targets(torch.tensor(500), sigma=sigma, dtype=torch.float64)
    perfect = soft_cross_entropy(targets.clamp_min(1e-300).log(), targets)
    assert (targets[500].item(), perfect.item()) == (pytest.approx(peak, abs=5e-4), pytest.approx(floor, abs=5e-4))


@pytest.mark.parametrize(("target", "bias"), [(0, 1.30), (3, 0.18), (500, 0.0), (996, -0.18), (999, -1.30)])
def test_an_edge_moves_the_mean_inwards(target, bias):
    targets = gaussian_soft_targets(torch.tensor(target), sigma=2.0, dtype=torch.float64)
    mean = (targets * torch.arange(K)).sum().item()
    assert mean - target == pytest.approx(bias, abs=5e-3)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_any_integer_dtype_will_do(dtype):
    bins = torch.tensor([3, min(999, torch.iinfo(dtype).max)], dtype=dtype)
    assert gaussian_soft_targets(bins, sigma=2.0).argmax(-1).tolist() == bins.tolist()


@pytest.mark.parametrize("num_bins", [1, 2, 3, 64])
def test_other_numbers_of_bins(num_bins):
    bins = torch.arange(num_bins)
    expected = reference_targets(bins.numpy(), 2.0, num_bins=num_bins)
    actual = gaussian_soft_targets(bins, num_bins=num_bins, sigma=2.0, dtype=torch.float64)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("bins", "options", "error", "message"),
    [
        ([1000], {}, ValueError, "bins must lie in 0..999, got 1000; select the positions"),
        ([5, -100], {}, ValueError, "bins must lie in 0..999, got -100; select the positions"),
        ([1.5], {}, TypeError, "bins must be an integer tensor, got torch.float32; quantise the coordinates first"),
        ([True], {}, TypeError, "bins must be an integer tensor, got torch.bool"),
        ([1], {"sigma": 0.0}, ValueError, "sigma must be finite and > 0, got 0.0"),
        ([1], {"sigma": float("nan")}, ValueError, "sigma must be finite and > 0, got nan"),
        ([1], {"sigma": float("inf")}, ValueError, "sigma must be finite and > 0, got inf"),
        ([1], {"truncate": -1}, ValueError, "truncate must be >= 0 bins, or None for no truncation, got -1"),
        ([1], {"num_bins": 0}, ValueError, "num_bins must be >= 1, got 0"),
        ([1], {"dtype": torch.bfloat16}, ValueError, "dtype must be float32 or float64, got torch.bfloat16"),
    ],
)
def test_bad_arguments_are_named(bins, options, error, message):
    with pytest.raises(error) as caught:
        gaussian_soft_targets(torch.tensor(bins), **{"sigma": 2.0, **options})
    assert str(caught.value).startswith(message)


def test_where_values_cannot_be_looked_at_a_bad_bin_gives_nan_in_its_row_only(monkeypatch):
    # As on an accelerator, where check_bins reads no values.
    monkeypatch.setattr(functions, "check_bins", lambda bins, num_bins: None)
    targets = gaussian_soft_targets(torch.tensor([-1, 4, 1000, 1003]), sigma=2.0, truncate=6)
    assert targets.isnan().all(-1).tolist() == [True, False, True, True]
    assert targets.isnan().any(-1).tolist() == [True, False, True, True]


# --- soft_cross_entropy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_soft_cross_entropy_is_its_formula(temperature):
    logits, bins = random_case()
    targets = reference_targets(bins, 2.0)
    expected = -(targets * reference_log_softmax(logits / temperature)).sum(-1)
    actual = soft_cross_entropy(torch.tensor(logits), torch.tensor(targets), temperature=temperature)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12)


def test_a_one_hot_target_gives_the_hard_cross_entropy():
    logits, bins = (torch.tensor(array) for array in random_case())
    targets = torch.nn.functional.one_hot(bins, K).double()
    expected = torch.nn.functional.cross_entropy(logits, bins, reduction="none")
    assert torch.allclose(soft_cross_entropy(logits, targets), expected, rtol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bad_temperature_is_named(temperature):
    with pytest.raises(ValueError, match=f"temperature must be finite and > 0, got {temperature}"):
        soft_cross_entropy(torch.zeros(3), torch.ones(3) / 3, temperature=temperature)


def test_unequal_shapes_are_named():
    with pytest.raises(ValueError, match=r"targets must have the shape of logits, \(2, 3\), got \(3,\)"):
        soft_cross_entropy(torch.zeros(2, 3), torch.zeros(3))


def test_integer_logits_are_refused():
    with pytest.raises(TypeError, match=r"logits must be a floating tensor, got torch\.int64"):
        soft_cross_entropy(torch.zeros(3, dtype=torch.int64), torch.zeros(3))


def test_scalar_logits_are_refused():
    with pytest.raises(ValueError, match="logits must have the bins as its last dimension, got a scalar"):
        soft_cross_entropy(torch.tensor(0.0), torch.tensor(0.0))


# --- wasserstein_1 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [1, 2, 500, 999])
def test_shifting_a_delta_costs_the_distance(shift):
    delta = torch.eye(K)
    assert wasserstein_1(delta[0], delta[shift]).item() == pytest.approx(shift / 999, rel=1e-6)
    assert wasserstein_1(delta[0], delta[shift], normalize=False).item() == shift


def test_wasserstein_1_is_its_formula():
    logits, bins = random_case()
    probs, targets = np.exp(reference_log_softmax(logits)), reference_targets(bins, 2.0)
    actual = wasserstein_1(torch.tensor(probs), torch.tensor(targets))
    np.testing.assert_allclose(actual.numpy(), reference_w1(probs, targets), rtol=1e-10)


def test_equal_distributions_are_at_distance_zero_exactly():
    probs = torch.tensor(random_case()[0]).float().softmax(-1)
    assert wasserstein_1(probs, probs.clone()).tolist() == [0.0] * 64


@pytest.mark.parametrize("noise", [1e-4, 1e-2, 1.0, 30.0])
def test_float32_distance_keeps_its_digits_close_to_the_target(noise):
    generator = torch.Generator().manual_seed(0)
    targets = gaussian_soft_targets(torch.arange(0, K, 7), sigma=20.0)
    logits = targets.log().clamp_min(-60.0) + noise * torch.randn(targets.shape, generator=generator)
    probs = logits.softmax(-1)
    exact = reference_w1(probs.double().numpy(), targets.double().numpy())
    error = np.abs(wasserstein_1(probs, targets).double().numpy() - exact)
    two_sums = (probs.cumsum(-1) - targets.cumsum(-1)).abs().sum(-1) / (K - 1)
    plain_error = np.abs(two_sums.double().numpy() - exact)
    assert (error / exact).max() <= 1e-5
    assert (error / exact).max() <= (plain_error / exact).max()


def test_one_bin_cannot_be_normalised():
    with pytest.raises(ValueError, match="needs at least 2 bins, got 1; pass normalize=False"):
        wasserstein_1(torch.ones(4, 1), torch.ones(4, 1))


def test_one_bin_has_distance_zero():
    assert wasserstein_1(torch.ones(4, 1), torch.ones(4, 1), normalize=False).tolist() == [0.0] * 4


# --- coord_soft_ce_w1 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truncate", [None, 4])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_both_parts_are_their_formulas(temperature, truncate):
    logits, bins = random_case()
    targets = reference_targets(bins, 3.0, truncate)
    log_probs = reference_log_softmax(logits / temperature)
    actual = coord_soft_ce_w1(
        torch.tensor(logits), torch.tensor(bins), sigma=3.0, truncate=truncate, temperature=temperature
    )
    assert isinstance(actual, SoftCEW1)
    np.testing.assert_allclose(actual.soft_ce.numpy(), -(targets * log_probs).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(actual.w1.numpy(), reference_w1(np.exp(log_probs), targets), rtol=1e-10)


@pytest.mark.parametrize("shape", LEADING_SHAPES)
def test_any_leading_shape(shape):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(*shape, 50, generator=generator)
    bins = torch.randint(0, 50, shape, generator=generator)
    flat = coord_soft_ce_w1(logits.reshape(-1, 50), bins.reshape(-1), sigma=2.0)
    actual = coord_soft_ce_w1(logits, bins, sigma=2.0)
    assert torch.equal(actual.soft_ce, flat.soft_ce.reshape(shape))
    assert torch.equal(actual.w1, flat.w1.reshape(shape))


@pytest.mark.parametrize("shape", LEADING_SHAPES)
def test_every_leading_shape_has_a_gradient(shape):
    logits = torch.zeros(*shape, 50, requires_grad=True)
    loss = coord_soft_ce_w1(logits, torch.zeros(shape, dtype=torch.int64), sigma=2.0)
    (loss.soft_ce.sum() + loss.w1.sum()).backward()
    assert logits.grad is not None
    assert logits.grad.shape == (*shape, 50)
    assert logits.grad.isfinite().all()


def test_memory_layout_does_not_matter():
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).T
    bins = torch.arange(12)[::2]
    expected = coord_soft_ce_w1(logits.contiguous(), bins.contiguous(), sigma=2.0)
    actual = coord_soft_ce_w1(logits, bins, sigma=2.0)
    assert_close_to_scale(actual.soft_ce, expected.soft_ce, what="soft_ce")
    assert_close_to_scale(actual.w1, expected.w1, what="w1")


def test_gradients_are_right():
    logits = torch.randn(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    bins = torch.tensor([0, 7, 19])

    def both(z):
        loss = coord_soft_ce_w1(z, bins, sigma=1.5, truncate=6, temperature=0.7)
        return loss.soft_ce, loss.w1

    assert torch.autograd.gradcheck(both, (logits,), nondet_tol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(dtype):
    logits = torch.tensor(random_case()[0]).to(dtype)
    bins = torch.tensor(random_case()[1])
    expected = coord_soft_ce_w1(logits.float(), bins, sigma=2.0)
    actual = coord_soft_ce_w1(logits, bins, sigma=2.0)
    assert actual.soft_ce.dtype == actual.w1.dtype == torch.float32
    assert torch.equal(actual.soft_ce, expected.soft_ce)
    assert torch.equal(actual.w1, expected.w1)


def test_float64_stays_float64():
    loss = coord_soft_ce_w1(torch.zeros(2, 9, dtype=torch.float64), torch.tensor([0, 8]), sigma=2.0)
    assert loss.soft_ce.dtype == loss.w1.dtype == torch.float64


def test_nan_reaches_its_own_position_and_no_other():
    logits = torch.zeros(3, K)
    logits[1, 700] = float("nan")
    loss = coord_soft_ce_w1(logits, torch.tensor([5, 5, 5]), sigma=2.0, truncate=4)
    assert loss.soft_ce.isnan().tolist() == [False, True, False]
    assert loss.w1.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_stay_finite(dtype):
    logits = torch.full((2, K), -1e4, dtype=dtype)
    logits[:, 0] = 1e4
    logits.requires_grad_()
    loss = coord_soft_ce_w1(logits, torch.tensor([0, 999]), sigma=2.0)
    (loss.soft_ce.sum() + loss.w1.sum()).backward()
    assert loss.soft_ce[1].item() == pytest.approx(2e4, rel=5e-3)
    assert loss.w1[1].item() == pytest.approx((999 - 1.3) / 999, abs=1e-3)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_shape_mismatch_is_named():
    with pytest.raises(ValueError, match=r"one entry per row of logits, shape \(2, 3\), got \(2, 4\)"):
        coord_soft_ce_w1(torch.zeros(2, 3, 10), torch.zeros(2, 4, dtype=torch.int64), sigma=2.0)


def test_the_result_is_frozen():
    loss = coord_soft_ce_w1(torch.zeros(1, 9), torch.tensor([0]), sigma=2.0)
    with pytest.raises(AttributeError):
        loss.w1 = torch.zeros(1)
