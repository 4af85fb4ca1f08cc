"""The Triton kernels, in Triton's interpreter on the CPU, against the readable functions in float64."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from test_fused import PARTS, K, case, composed, fused_parts, gradient

from coordcore_soft_ce_w1 import coord_soft_ce_w1, fused, gaussian_soft_targets
from coordcore_soft_ce_w1.fused import row_losses

pytest.importorskip("triton", reason="triton comes with torch's wheels for Linux only")
EPS = torch.finfo(torch.float32).eps


@pytest.fixture(autouse=True)
def every_call_goes_through_the_kernels(monkeypatch):
    monkeypatch.setattr(fused, "_fits_kernels", lambda logits: logits.dtype != torch.float64)


def assert_as_exact(values, bins, *, names=PARTS, **options):
    """Values and gradients of `values`, within four times the error of the composition in float32."""
    exact, plain, ours = (values.to(dtype).requires_grad_() for dtype in (torch.float64, torch.float32, torch.float32))
    by = (
        (exact, composed(exact, bins, **options)),
        (plain, composed(plain, bins, **options)),
        (ours, fused_parts(ours, bins, **options)),
    )
    for part in names:
        right, reference, actual = (parts[part].double() for _, parts in by)
        rounding = EPS * right.abs().max().clamp_min(1.0)
        assert (actual - right).abs().max() <= 4 * ((reference - right).abs().max() + rounding), part
        right, reference, actual = (gradient(parts, logits, (part,)).double() for logits, parts in by)
        assert (actual - right).abs().max() <= 4 * ((reference - right).abs().max() + EPS), part


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("truncate", [None, 0, 3])
@pytest.mark.parametrize("sigma", [0.3, 2.0, 400.0])
@pytest.mark.parametrize("num_bins", [2, 7, 100, 1003])
def test_as_exact_as_the_composition(num_bins, sigma, truncate, temperature):
    logits, bins = case(7, num_bins)
    assert_as_exact(logits.detach().float(), bins, sigma=sigma, truncate=truncate, temperature=temperature)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 200.0])
@pytest.mark.parametrize("scale", [0.1, 40.0, 1e4])
def test_flat_sharp_and_extreme_rows(scale, sigma):
    logits, bins = case(12, scale=scale)
    bins[:4] = torch.tensor([0, 3, 996, 999])
    assert_as_exact(logits.detach().float(), bins, sigma=sigma)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 200.0])
def test_rows_that_have_learnt_their_target(sigma):
    noise, bins = case(12, scale=0.5)
    near = gaussian_soft_targets(bins, sigma=sigma, dtype=torch.float64).log().clamp_min(-80.0)
    assert_as_exact((noise.detach() + near).float(), bins, sigma=sigma)


def test_every_bin_has_its_own_window():
    assert_as_exact(case(60, 60)[0].detach().float(), torch.arange(60), sigma=2.0)


def test_any_mix_of_upstream_gradients_is_that_of_the_torch_operations(monkeypatch):
    logits, bins = case(5, dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    upstream = {name: torch.randn(len(bins), generator=generator) for name in PARTS}
    mixes = [PARTS, ("ce", "w1"), ("soft_ce", "lse"), ("w1",)]
    by_kernels = [gradient(fused_parts(logits, bins, sigma=2.0), logits, mix, upstream=upstream) for mix in mixes]
    monkeypatch.setattr(fused, "_fits_kernels", lambda logits: False)
    for mix, actual in zip(mixes, by_kernels, strict=True):
        expected = gradient(fused_parts(logits, bins, sigma=2.0), logits, mix, upstream=upstream)
        torch.testing.assert_close(
            actual, expected, rtol=1e-4, atol=4 * EPS, msg=lambda text, mix=mix: f"{mix}: {text}"
        )


def test_where_both_cumulative_sums_agree_the_slope_of_w1_is_zero():
    logits = torch.zeros(1, 9).index_fill(-1, torch.tensor([4]), 1e4).requires_grad_()
    loss = coord_soft_ce_w1(logits, torch.tensor([4]), sigma=2.0, truncate=0)
    loss.w1.sum().backward()
    assert (loss.w1.tolist(), logits.grad.abs().max().item()) == ([0.0], 0.0)


def test_the_diagnostics_are_their_definitions():
    logits, bins = case(dtype=torch.float32)
    losses = row_losses(logits, bins, sigma=2.0, temperature=2.0, diagnostics=True)
    torch.testing.assert_close(losses.expected, ((logits / 2.0).softmax(-1) * torch.arange(K)).sum(-1).detach())
    assert losses.rank.tolist() == (logits >= logits.gather(-1, bins[:, None])).sum(-1).tolist()
    assert not losses.expected.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_gradient_of_half_precision_logits_is_rounded_once(dtype):
    half, bins = case(5, dtype=dtype)
    full = half.detach().float().requires_grad_()
    expected = gradient(fused_parts(full, bins, sigma=2.0), full).to(dtype)
    actual = gradient(fused_parts(half, bins, sigma=2.0), half)
    assert actual.dtype == dtype
    # The interpreter may round a tie the other way.
    torch.testing.assert_close(actual, expected, rtol=torch.finfo(dtype).eps, atol=0)


def test_the_layout_of_logits_and_bins_does_not_matter():
    straight, bins = case(6, 50, dtype=torch.float32)
    expected = gradient(fused_parts(straight, bins, sigma=2.0), straight)
    turned = straight.detach().T.contiguous().T.requires_grad_()
    assert torch.equal(gradient(fused_parts(turned, bins, sigma=2.0), turned), expected)
    wide = torch.cat([straight.detach(), torch.ones(6, 3)], 1).requires_grad_()
    apart = torch.stack([bins, bins], 1)[:, 0]
    assert torch.equal(gradient(fused_parts(wide[:, :50], apart, sigma=2.0), wide)[:, :50], expected)


@pytest.mark.parametrize(("dtype", "last"), [(torch.int8, 127), (torch.uint8, 255), (torch.int32, 999)])
def test_bins_of_any_integer_dtype(dtype, last):
    logits, _ = case(2, dtype=torch.float32)
    bins = torch.tensor([3, last])
    actual, expected = (coord_soft_ce_w1(logits, item, sigma=2.0) for item in (bins.to(dtype), bins))
    assert torch.equal(actual.w1, expected.w1)


@pytest.mark.parametrize("part", PARTS)
def test_nan_reaches_its_own_row_and_no_other(part):
    logits, bins = case(5, dtype=torch.float32)
    with torch.no_grad():
        logits[2, 700] = float("nan")
    parts = fused_parts(logits, bins, sigma=2.0)
    by_logits = gradient(parts, logits, (part,))
    assert parts[part].isnan().tolist() == [False, False, True, False, False]
    assert by_logits.isnan().all(-1).tolist() == [False, False, True, False, False]
    assert by_logits.isnan().any(-1).tolist() == [False, False, True, False, False]


def test_a_bad_bin_is_nan_in_its_row_only(monkeypatch):
    monkeypatch.setattr(fused, "check_bins", lambda bins, num_bins: None)
    logits = case(4, dtype=torch.float32)[0]
    parts = fused_parts(logits, torch.tensor([-1, 5, 1000, 999]), sigma=2.0)
    for name in ("ce", "soft_ce", "w1"):
        assert parts[name].isnan().tolist() == [True, False, True, False], name
        by_logits = gradient(parts, logits, (name,))
        assert by_logits.isnan().all(-1).tolist() == [True, False, True, False], name


def test_masked_columns_far_from_the_target_leave_a_finite_loss():
    logits = torch.zeros(1, K).index_fill(-1, torch.arange(600, K), -float("inf")).requires_grad_()
    loss = coord_soft_ce_w1(logits, torch.tensor([300]), sigma=2.0)
    (loss.soft_ce.sum() + loss.w1.sum()).backward()
    expected = composed(logits[:, :600], torch.tensor([300]), sigma=2.0)
    torch.testing.assert_close(loss.soft_ce, expected["soft_ce"])
    torch.testing.assert_close(loss.w1 * 999, expected["w1"] * 599)
    assert logits.grad.isfinite().all()


def test_no_rows_and_one_row():
    for count in (0, 1):
        logits, bins = case(count, dtype=torch.float32)
        loss = coord_soft_ce_w1(logits, bins, sigma=2.0)
        (loss.soft_ce.sum() + loss.w1.sum()).backward()
        assert (loss.w1.shape, logits.grad.shape) == ((count,), (count, K))


def test_the_autograd_that_is_promised():
    leaf, bins = case(3, 60, dtype=torch.float32)
    parts = fused_parts(leaf, bins, sigma=2.0)
    first = gradient(parts, leaf)
    assert torch.equal(gradient(parts, leaf), first)  # the graph is retained, and nothing was written over

    with pytest.raises(RuntimeError, match="can be differentiated once, and create_graph=True asks for more; compose"):
        torch.autograd.grad(coord_soft_ce_w1(leaf, bins, sigma=2.0).w1.sum(), leaf, create_graph=True)

    loss = coord_soft_ce_w1(leaf, bins, sigma=2.0)
    loss.w1.mul_(3.0).sum().backward()
    torch.testing.assert_close(leaf.grad, 3 * gradient(parts, leaf, ("w1",)))

    logits = leaf * 1.0
    loss = coord_soft_ce_w1(logits, bins, sigma=2.0)
    logits.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.w1.sum().backward()


COMPILE = """
import pathlib, re, subprocess, sys
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from coordcore_soft_ce_w1 import kernel

def signature(pointers, *others):
    logits = {"logits": "*bf16", "bins": "*i64", "starts": "*i64", "targets": "*fp32", "scale": "fp32"}
    return {**logits, "stride": "i32", "count": "i32", **dict.fromkeys(pointers, "*fp32"), **dict(others)}

upstream = ["by_ce", "by_soft_ce", "by_w1", "by_lse"]
sizes = {"BINS": 1000, "WIDTH": 27, "WINDOW": 32, "BLOCK": 1024, "ALIGNED": 8}
cases = [
    (kernel._values, signature(["ce", "soft_ce", "w1", "lse", "expected", "rank", "kept"]),
     {**sizes, "KEEP": True, "DIAGNOSTICS": True}),
    (kernel._gradient,
     signature([*upstream, "kept"], *((f"{one[3:]}_stride", "i32") for one in upstream), ("grad", "*bf16")),
     {**sizes, "GRAD_ALIGNED": 8, "CE": True, "SOFT_CE": True, "W1": True, "LSE": True}),
]
for capability in (80, 90):
    for function, types, constants in cases:
        names = function.arg_names
        source = ASTSource(
            fn=function,
            signature={name: types.get(name, "constexpr") for name in names},
            constexprs={(names.index(name),): value for name, value in constants.items()},
            attrs={(place,): [["tt.divisibility", 16]] for place, name in enumerate(names)
                   if types.get(name, "").startswith("*")},
        )
        compiled = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 1})
        code = pathlib.Path(sys.argv[1]) / f"{function.__name__}-{capability}.cubin"
        code.write_bytes(compiled.asm["cubin"])
        resources = subprocess.run([knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(code)],
                                   capture_output=True, text=True, check=True).stdout
        print(re.findall(r"(?:STACK|LOCAL):(\\d+)", resources),
              len(re.findall(r"ld\\.global\\.v4\\.b32", compiled.asm["ptx"])) > 0)
"""


def test_the_kernels_compile_for_gpus_that_are_not_here(tmp_path):
    """To machine code, without a register spilt, and with loads of 16 bytes."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, "-c", COMPILE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['0', '0'] True"] * 4
