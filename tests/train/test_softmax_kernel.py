"""The running softmax's Triton kernel, in Triton's interpreter on the CPU, against float64; and bfloat16 in parts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from coordcore_train.objective import streaming
from coordcore_train.objective.streaming import Excluded, VocabularyStream, in_parts

EPS = torch.finfo(torch.float32).eps


@pytest.fixture
def through_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="triton comes with torch's wheels for Linux only")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton was imported without its interpreter")
    monkeypatch.setattr(streaming, "_fits_kernel", lambda logits: logits.dtype == torch.float32)


def case(scale: float = 1.5, *, positions: int = 7, rows: int = 1000) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(positions, 48, generator=random), torch.randn(rows, 48, generator=random) * scale


def both(
    hidden: Tensor, weight: Tensor, *, mean: bool = True, size: int = 128, excluded: range = range(300, 420)
) -> tuple[Tensor, Tensor | None]:
    return VocabularyStream(weight=weight, excluded=Excluded(excluded), size=size).logsumexp(hidden, mean=mean)


@pytest.mark.parametrize("size", [1, 100, 128, 1000, 4096])
@pytest.mark.parametrize("scale", [0.01, 1.5, 60.0])
@pytest.mark.usefixtures("through_the_kernel")
def test_as_exact_as_the_torch_operations(scale: float, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight = case(scale)
    weight[700:] *= 3.0  # a largest logit that comes late
    ours = both(hidden, weight, size=size)
    exact = both(hidden.double(), weight.double(), size=size)
    monkeypatch.setattr(streaming, "_fits_kernel", lambda logits: False)
    plain = both(hidden, weight, size=size)
    for found, reference, right in zip(ours, plain, exact, strict=True):
        assert found is not None
        assert reference is not None
        assert right is not None
        rounding = EPS * right.abs().max()
        assert (found - right).abs().max() <= 4 * ((reference - right).abs().max() + rounding)


@pytest.mark.usefixtures("through_the_kernel")
def test_without_a_gradient_nothing_is_written_but_the_sums() -> None:
    hidden, weight = case()
    lse, mean = both(hidden, weight, mean=False)
    assert mean is None
    torch.testing.assert_close(lse, both(hidden, weight)[0], rtol=0, atol=0)


@pytest.mark.usefixtures("through_the_kernel")
def test_positions_without_any_row_and_without_a_number() -> None:
    hidden, weight = case()
    lse, mean = both(hidden, weight, excluded=range(1000))
    assert mean is not None
    assert torch.equal(lse, torch.full_like(lse, -torch.inf))
    assert not mean.any()
    hidden[2, 3], hidden[4, 0] = torch.nan, torch.inf
    lse, _ = both(hidden, weight)
    assert lse.isnan().tolist() == [False, False, True, False, True, False, False]
    assert both(hidden[:0], weight)[0].shape == (0,)


COMPILE = """
import pathlib, re, subprocess, sys
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from coordcore_train.objective.softmax_kernel import _accumulate as function

names = function.arg_names
pointers = {"logits": "*fp32", "anchor": "*fp32", "total": "*fp32", "mean": "*fp32"}
numbers = {"weights_stride": "i32", "columns": "i32", "width": "i32"}
for block, warps, dtype in ((4096, 8, "*bf16"), (8192, 16, "*fp16"), (32768, 32, "*fp32")):
    constants = {"BLOCK": block, "WIDTH": 4096, "MEAN": True}
    types = {**pointers, **numbers, "weights": dtype}
    source = ASTSource(
        fn=function,
        signature={name: types.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name in types},
    )
    compiled = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    code = pathlib.Path(sys.argv[1]) / f"{block}.cubin"
    code.write_bytes(compiled.asm["cubin"])
    resources = subprocess.run([knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(code)],
                               capture_output=True, text=True, check=True).stdout
    print(re.findall(r"(?:STACK|LOCAL):(\\d+)", resources),
          len(re.findall(r"ld\\.global\\.v4\\.b32", compiled.asm["ptx"])) > 0)
"""


def test_the_kernel_compiles_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    """To machine code, without a register spilt, and with loads of 16 bytes."""
    pytest.importorskip("triton", reason="triton comes with torch's wheels for Linux only")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(tmp_path)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['0', '0'] True"] * 3


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_three_bfloat16_parts_are_a_float32_matrix(scale: float) -> None:
    matrix = torch.randn(50, 64, generator=torch.Generator().manual_seed(1)) * scale
    parts = in_parts(matrix)
    assert (parts.dtype, parts.shape) == (torch.bfloat16, (150, 64))
    total = parts.double().view(3, 50, 64).sum(0)
    assert ((total - matrix.double()).abs() <= matrix.abs() * EPS).all()
