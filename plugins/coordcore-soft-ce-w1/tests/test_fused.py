"""The fused path against the readable functions it replaces: values, gradients, precision, memory and edge cases."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from coordcore.testing.closeness import assert_close_to_scale
from coordcore_soft_ce_w1 import (
    coord_soft_ce_w1,
    fused,
    gaussian_soft_targets,
    soft_cross_entropy,
    wasserstein_1,
    windows,
)
from coordcore_soft_ce_w1.fused import row_losses

K = 1000
PARTS = ("ce", "soft_ce", "w1", "lse")


def composed(logits, bins, *, sigma, truncate=None, temperature=1.0):
    """The parts from the public functions and plain torch, under autograd."""
    targets = gaussian_soft_targets(bins, num_bins=logits.shape[-1], sigma=sigma, truncate=truncate, dtype=logits.dtype)
    tempered = logits / temperature
    return {
        "ce": torch.nn.functional.cross_entropy(tempered, bins, reduction="none"),
        "soft_ce": soft_cross_entropy(logits, targets, temperature=temperature),
        "w1": wasserstein_1(tempered.softmax(-1), targets),
        "lse": tempered.logsumexp(-1),
    }


def case(n=37, num_bins=K, *, scale=4.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, num_bins, generator=generator, dtype=torch.float64) * scale
    return logits.to(dtype).requires_grad_(), torch.randint(0, num_bins, (n,), generator=generator)


def gradient(parts, logits, names=PARTS, *, upstream=None):
    total = sum((parts[name] * (1.0 if upstream is None else upstream[name])).sum() for name in names)
    return torch.autograd.grad(total, logits, retain_graph=True)[0]


def fused_parts(logits, bins, **options):
    losses = row_losses(logits, bins, **options)
    return {name: getattr(losses, name) for name in PARTS}


# --- the same as the reference ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("truncate", [None, 0, 3])
@pytest.mark.parametrize("sigma", [0.3, 2.0, 20.0, 400.0])
@pytest.mark.parametrize("num_bins", [2, 7, 100, 1003])
def test_values_and_gradients_are_those_of_the_composition(num_bins, sigma, truncate, temperature):
    logits, bins = case(num_bins=num_bins)
    options = {"sigma": sigma, "truncate": truncate, "temperature": temperature}
    expected, actual = composed(logits, bins, **options), fused_parts(logits, bins, **options)
    generator = torch.Generator().manual_seed(1)
    upstream = {name: torch.randn(len(bins), generator=generator, dtype=torch.float64) for name in PARTS}
    for name in PARTS:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-11, atol=1e-11)
    for names in (*((name,) for name in PARTS), PARTS):
        torch.testing.assert_close(
            gradient(actual, logits, names, upstream=upstream),
            gradient(expected, logits, names, upstream=upstream),
            rtol=1e-9,
            atol=1e-13,
            msg=lambda message, names=names: f"{names}: {message}",
        )


@pytest.mark.parametrize(("dtype", "last"), [(torch.int8, 127), (torch.uint8, 255)])
def test_bins_of_a_dtype_that_cannot_hold_their_number(dtype, last):
    logits, _ = case(2)
    bins = torch.tensor([3, last])
    actual, expected = (coord_soft_ce_w1(logits, item, sigma=2.0) for item in (bins.to(dtype), bins))
    assert (actual.soft_ce.tolist(), actual.w1.tolist()) == (expected.soft_ce.tolist(), expected.w1.tolist())


def test_every_bin_has_its_own_window():
    bins = torch.arange(60)
    logits = case(60, 60)[0]
    expected, actual = composed(logits, bins, sigma=2.0), fused_parts(logits, bins, sigma=2.0)
    torch.testing.assert_close(actual["w1"], expected["w1"], rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(actual, logits), gradient(expected, logits), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 20.0, 200.0])
@pytest.mark.parametrize("name", ["near the target", "flat", "ordinary", "sharp", "extreme"])
def test_float32_is_as_exact_as_the_reference(name, sigma):
    scale = {"near the target": 0.5, "flat": 0.1, "ordinary": 4.0, "sharp": 40.0, "extreme": 1e4}[name]
    noise, bins = case(128, scale=scale)
    bins[:4] = torch.tensor([0, 3, 996, 999])
    near = gaussian_soft_targets(bins, sigma=sigma, dtype=torch.float64).log().clamp_min(-80.0)
    values = (noise.detach() + (near if name == "near the target" else 0.0)).float()
    exact, plain, ours = (values.to(dtype).requires_grad_() for dtype in (torch.float64, torch.float32, torch.float32))
    by = (
        (exact, composed(exact, bins, sigma=sigma)),
        (plain, composed(plain, bins, sigma=sigma)),
        (ours, fused_parts(ours, bins, sigma=sigma)),
    )
    eps = torch.finfo(torch.float32).eps
    for part in PARTS:
        right, reference, actual = (parts[part].double() for _, parts in by)
        rounding = eps * right.abs().max().clamp_min(1.0)  # of the largest value itself
        assert (actual - right).abs().max() <= 4 * ((reference - right).abs().max() + rounding), part
        right, reference, actual = (gradient(parts, logits, (part,)).double() for logits, parts in by)
        assert (actual - right).abs().max() <= 4 * ((reference - right).abs().max() + eps), part


def test_where_both_cumulative_sums_agree_the_slope_of_w1_is_zero():
    # sign(0) = 0, as autograd has it for abs: a one-hot prediction of a one-hot target asks for nothing.
    logits = torch.zeros(1, 9).index_fill(-1, torch.tensor([4]), 1e4).requires_grad_()
    loss = coord_soft_ce_w1(logits, torch.tensor([4]), sigma=2.0, truncate=0)
    loss.w1.sum().backward()
    assert (loss.w1.tolist(), logits.grad.abs().max().item()) == ([0.0], 0.0)


def test_the_diagnostics_are_their_definitions():
    logits, bins = case()
    losses = row_losses(logits, bins, sigma=2.0, temperature=2.0, diagnostics=True)
    probs = (logits / 2.0).softmax(-1)
    torch.testing.assert_close(losses.expected, (probs * torch.arange(K)).sum(-1).detach())
    assert losses.rank.tolist() == (logits >= logits.gather(-1, bins[:, None])).sum(-1).tolist()
    assert not losses.expected.requires_grad
    assert not losses.rank.requires_grad


# --- blocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [2.0, 400.0])
@pytest.mark.parametrize("rows", [1, 5, 36, 37])
def test_blocks_change_nothing(monkeypatch, rows, sigma):
    logits, bins = case(dtype=torch.float32)
    expected = fused_parts(logits, bins, sigma=sigma)
    whole = gradient(expected, logits)
    monkeypatch.setattr(windows, "CPU_BLOCK_BYTES", rows * K * 4)
    actual = fused_parts(logits, bins, sigma=sigma)
    for name in PARTS:
        assert_close_to_scale(actual[name], expected[name], what=name)
    assert_close_to_scale(gradient(actual, logits), whole, what="the gradient")


def test_no_rows_have_an_empty_gradient():
    logits, bins = case(0)
    loss = coord_soft_ce_w1(logits, bins, sigma=2.0)
    (loss.soft_ce.sum() + loss.w1.sum()).backward()
    assert logits.grad.shape == (0, K)


# --- autograd --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_retained_graph_gives_the_same_gradient_again(dtype):
    logits, bins = case(dtype=dtype)
    parts = fused_parts(logits, bins, sigma=2.0, temperature=0.7)
    first = gradient(parts, logits).clone()
    other = gradient(parts, logits, ("w1",))
    again = gradient(parts, logits)
    assert_close_to_scale(again, first)
    fresh = fused_parts(logits, bins, sigma=2.0, temperature=0.7)
    assert_close_to_scale(other, gradient(fresh, logits, ("w1",)))


def test_repeated_backward_accumulates():
    logits, bins = case()
    loss = coord_soft_ce_w1(logits, bins, sigma=2.0)
    loss.w1.sum().backward(retain_graph=True)
    once = logits.grad.clone()
    loss.w1.sum().backward()
    torch.testing.assert_close(logits.grad, 2 * once)


def test_the_logits_are_left_alone():
    logits, bins = case()
    before = logits.detach().clone()
    gradient(fused_parts(logits, bins, sigma=2.0), logits)
    assert torch.equal(logits, before)


def test_a_loss_may_be_changed_in_place():
    logits, bins = case()
    expected = 3 * gradient(fused_parts(logits, bins, sigma=2.0), logits, ("w1",))
    loss = coord_soft_ce_w1(logits, bins, sigma=2.0)
    loss.w1.mul_(3.0).sum().backward()
    torch.testing.assert_close(logits.grad, expected)


def test_logits_changed_before_the_backward_pass_are_an_error():
    leaf, bins = case()
    logits = leaf * 1.0
    loss = coord_soft_ce_w1(logits, bins, sigma=2.0)
    logits.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.w1.sum().backward()


def test_a_second_derivative_is_an_error():
    logits, bins = case(3, 9)
    loss = coord_soft_ce_w1(logits, bins, sigma=2.0)
    with pytest.raises(RuntimeError, match="can be differentiated once, and create_graph=True asks for more; compose"):
        torch.autograd.grad(loss.w1.sum(), logits, create_graph=True)


def test_checkpointing_recomputes_the_same_gradient():
    logits, bins = case()
    expected = gradient(fused_parts(logits, bins, sigma=2.0), logits, ("w1",))
    loss = torch.utils.checkpoint.checkpoint(lambda z: row_losses(z, bins, sigma=2.0).w1, logits, use_reentrant=False)
    loss.sum().backward()
    torch.testing.assert_close(logits.grad, expected)


def test_tables_made_in_inference_mode_serve_training():
    logits, bins = case(3, 11)
    with torch.inference_mode():
        evaluated = coord_soft_ce_w1(logits, bins, sigma=0.123)
    trained = coord_soft_ce_w1(logits, bins, sigma=0.123)
    (trained.soft_ce.sum() + trained.w1.sum()).backward()
    assert torch.equal(evaluated.w1, trained.w1)


def test_autocast_changes_nothing():
    logits, bins = case(dtype=torch.float32)
    expected = fused_parts(logits, bins, sigma=2.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = fused_parts(logits, bins, sigma=2.0)
        actual_gradient = gradient(actual, logits)
    assert [name for name in PARTS if not torch.equal(actual[name], expected[name])] == []
    assert torch.equal(actual_gradient, gradient(expected, logits))


# --- memory and devices ----------------------------------------------------------------------------------------------


class Allocations(TorchDispatchMode):
    """The bytes of every storage that an operation returns. Holds them all, so that no address comes up twice."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        returned = function(*args, **(kwargs or {}))
        if isinstance(returned, torch.Tensor):
            storage = returned.untyped_storage()
            self.storages[storage.data_ptr()] = storage
        return returned

    def larger_than(self, size, *, but):
        known = but.untyped_storage().data_ptr()
        return [len(storage) for address, storage in self.storages.items() if len(storage) > size and address != known]


def test_training_allocates_one_tensor_of_the_size_of_the_logits(monkeypatch):
    logits, bins = case(200, dtype=torch.float32)
    monkeypatch.setattr(windows, "CPU_BLOCK_BYTES", 20 * K * 4)

    def train():
        loss = coord_soft_ce_w1(logits, bins, sigma=2.0)
        (loss.soft_ce + loss.w1).sum().backward()

    train()  # the tables
    logits.grad = None
    with Allocations() as allocations:
        train()
    assert allocations.larger_than(20 * K * 4, but=logits) == [200 * K * 4]


def test_evaluation_allocates_blocks_only(monkeypatch):
    logits, bins = case(200, dtype=torch.float32)
    monkeypatch.setattr(windows, "CPU_BLOCK_BYTES", 20 * K * 4)
    with torch.no_grad():
        coord_soft_ce_w1(logits, bins, sigma=2.0)
        with Allocations() as allocations:
            coord_soft_ce_w1(logits, bins, sigma=2.0)
    assert allocations.larger_than(20 * K * 4, but=logits) == []


def test_evaluation_has_no_graph():
    logits, bins = case()
    with torch.no_grad():
        loss = coord_soft_ce_w1(logits, bins, sigma=2.0)
    assert not loss.soft_ce.requires_grad
    assert not loss.w1.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_off_the_cpu_no_value_is_looked_at(dtype):
    # A meta tensor has none: whatever would make the host wait for an accelerator is an error here.
    logits = torch.empty(4, 5, 100, dtype=dtype, device="meta", requires_grad=True)
    bins = torch.zeros(4, 5, dtype=torch.int64, device="meta")
    loss = coord_soft_ce_w1(logits, bins, sigma=2.0)
    (loss.soft_ce.sum() + loss.w1.sum()).backward()
    losses = row_losses(logits[0], bins[0], sigma=2.0, temperature=2.0, diagnostics=True)
    assert (loss.w1.shape, losses.rank.shape, logits.grad.shape) == ((4, 5), (5,), (4, 5, 100))
    assert logits.grad.device.type == "meta"


# --- input that is unlike the usual ----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
def test_nan_reaches_the_gradient_of_its_own_row_and_no_other(part):
    logits, bins = case(5)
    with torch.no_grad():
        logits[2, 700] = float("nan")
    by_logits = gradient(fused_parts(logits, bins, sigma=2.0), logits, (part,))
    assert by_logits.isnan().all(-1).tolist() == [False, False, True, False, False]
    assert by_logits.isnan().any(-1).tolist() == [False, False, True, False, False]


def test_where_values_cannot_be_looked_at_a_bad_bin_is_nan_in_its_row_only(monkeypatch):
    # As on an accelerator, where check_bins reads no values.
    monkeypatch.setattr(fused, "check_bins", lambda bins, num_bins: None)
    logits = case(4)[0]
    parts = fused_parts(logits, torch.tensor([-1, 5, 1000, 999]), sigma=2.0)
    for name in ("ce", "soft_ce", "w1"):
        assert parts[name].isnan().tolist() == [True, False, True, False], name
        by_logits = gradient(parts, logits, (name,))
        assert by_logits.isnan().all(-1).tolist() == [True, False, True, False], name
        assert by_logits.isnan().any(-1).tolist() == [True, False, True, False], name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_gradient_of_half_precision_logits_is_rounded_once(dtype):
    half, bins = case(dtype=dtype)
    full = half.detach().float().requires_grad_()
    expected = gradient(fused_parts(full, bins, sigma=2.0), full).to(dtype)
    actual = gradient(fused_parts(half, bins, sigma=2.0), half)
    assert actual.dtype == dtype
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_does_not_depend_on_the_layout(dtype):
    straight, bins = case(6, 50, dtype=dtype)
    turned = straight.detach().T.contiguous().T.requires_grad_()
    expected = gradient(fused_parts(straight, bins, sigma=2.0), straight)
    assert torch.equal(gradient(fused_parts(turned, bins, sigma=2.0), turned), expected)


@pytest.mark.parametrize("truncate", [None, 2])
def test_masked_columns_far_from_the_target_leave_a_finite_loss(truncate):
    # Minus infinity there; in the composition 0 * -inf made the whole row NaN.
    logits = torch.zeros(1, K).index_fill(-1, torch.arange(600, K), -float("inf")).requires_grad_()
    loss = coord_soft_ce_w1(logits, torch.tensor([300]), sigma=2.0, truncate=truncate)
    (loss.soft_ce.sum() + loss.w1.sum()).backward()
    expected = composed(logits[:, :600], torch.tensor([300]), sigma=2.0, truncate=truncate)
    torch.testing.assert_close(loss.soft_ce, expected["soft_ce"])
    torch.testing.assert_close(loss.w1 * 999, expected["w1"] * 599)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("logits", "bins", "options", "message"),
    [
        (torch.zeros(2, 1), [0, 0], {"sigma": 2.0}, "a normalised distance needs at least 2 bins, got 1"),
        (torch.zeros(2, 9), [0, 0], {"sigma": 0.0}, "sigma must be finite and > 0, got 0"),
        (torch.zeros(2, 9), [0, 0], {"sigma": float("nan")}, "sigma must be finite and > 0, got nan"),
        (torch.zeros(2, 9), [0, 0], {"sigma": 2.0, "truncate": -1}, "truncate must be >= 0 bins"),
        (torch.zeros(2, 9), [0, 0], {"sigma": 2.0, "temperature": 0.0}, "temperature must be finite and > 0, got 0"),
        (torch.zeros(2, 9), [0, 9], {"sigma": 2.0}, r"bins must lie in 0\.\.8, got 9"),
    ],
)
def test_bad_arguments_are_named(logits, bins, options, message):
    with pytest.raises(ValueError, match=message):
        coord_soft_ce_w1(logits, torch.tensor(bins), **options)


@pytest.mark.parametrize("function", [coord_soft_ce_w1, row_losses])
def test_a_compiled_function_may_call_it(function):
    # Without generated code, which takes a C++ compiler: it is the tracing that failed.
    logits, bins = case(3, 20)

    def loss(values):
        parts = function(values * 2.0, bins, sigma=2.0)
        return (parts.soft_ce + parts.w1).sum() * 3.0

    expected = torch.autograd.grad(loss(logits), logits)[0]
    actual = torch.autograd.grad(torch.compile(loss, backend="aot_eager")(logits), logits)[0]
    torch.testing.assert_close(actual, expected)
