"""Merging one PEFT layer into the weight it wraps, and proving it against the layer as it ran. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from coordcore.errors import RunError

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}
"""Largest difference of a layer's outputs that counts as rounding, relative to their size, by dtype of the weight.

In bfloat16 an output is rounded twice in the live layer and once in the merged one, by 2**-9 at most each; rounding the
weights moves it by about 2**-10. Layers of usual sizes show 0.002 to 0.004 (bfloat16), 0.0004 (float16) and 1e-6
(float32).
"""

_SEED = 0x5EED  # of the probes; nobody's weights start from it
_BLOCK = 1 << 19


@torch.no_grad()
def merge_layer(path: str, layer: Any, values: dict[str, Tensor]) -> tuple[dict[str, Tensor], float]:
    """Merge the active adapters of a PEFT layer into `values`, the parameters of the module it wraps: `layer.merge()`.

    Returns the merged parameters, some of them in the memory of `values`, and the relative difference of outputs on a
    random input: the layer as it ran against the merged module. Raises RunError when that is no rounding. The wrapped
    module gets its own parameters back.
    """
    base = layer.get_base_layer()
    own = dict(base._parameters)
    base._parameters.update({name: nn.Parameter(value, requires_grad=False) for name, value in values.items()})
    try:
        inputs = _probe(base)
        live = layer(inputs)
        layer.merge()
        difference = relative_difference(base(inputs), live)
        merged = {name: base._parameters[name].data for name in values}
    finally:
        base._parameters.update(own)
    require_equal(f"{path} merged", difference, base.weight.dtype)
    return merged, difference


def is_plain(layer: Any) -> bool:
    """Whether a PEFT layer is a linear's `weight + scaling * B @ A` and nothing else."""
    from peft.tuners.lora.layer import Linear

    return (
        type(layer) is Linear
        and type(layer.get_base_layer()) is nn.Linear
        and not layer.lora_variant
        and not layer.fan_in_fan_out
        and not any(layer.lora_bias.values())
        and any(name in layer.lora_A for name in layer.active_adapters)
        and all(item.weight.dtype == torch.float32 for item in layer.lora_B.values())
    )


@torch.no_grad()
def merge_plain_layer(path: str, layer: Any, weight: Tensor, write: Callable[[int, Tensor], None]) -> float:
    """As `merge_layer` for a plain layer's `weight`, in blocks of rows that stay in the processor's cache.

    The same products, sums and rounding as `layer.merge()`. weight: is only read, in another dtype than the layer's if
    it is stored so; may be a mapped file. write: takes merged rows, from a first one on, before the next are computed.
    Returns the relative difference of outputs.
    """
    base = layer.get_base_layer()
    inputs, dtype = _probe(base), base.weight.dtype
    adapters = [
        (layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name])
        for name in layer.active_adapters
        if name in layer.lora_A
    ]
    blocks = _blocks(*weight.shape)
    products, sums = torch.empty(2, max(stop - first for first, stop in blocks), weight.shape[1])
    results = torch.empty_like(sums, dtype=dtype)
    before, after = [], []
    for first, stop in blocks:
        size = stop - first
        rows, merged = weight[first:stop].to(dtype), results[:size]
        before.append(nn.functional.linear(inputs, rows))
        for down, up, scaling in adapters:
            # In float32, rounded once; torch's own sum of two dtypes does the same in three times the time.
            total = sums[:size].copy_(rows)
            if math.frexp(scaling)[0] == 0.5:  # a power of two rounds no product: one pass gives the same sums
                total.addmm_(up[first:stop], down, alpha=scaling)
            else:
                total.add_(torch.mm(up[first:stop], down, out=products[:size]).mul_(scaling))
            rows = merged.copy_(total)
        after.append(nn.functional.linear(inputs, merged))
        write(first, merged)
    base.forward = lambda _inputs: torch.cat(before, -1)  # the live layer, whose base is no longer there
    try:
        live = layer(inputs)
    finally:
        del base.forward
    difference = relative_difference(torch.cat(after, -1), live)
    require_equal(f"{path} merged", difference, dtype)
    return difference


def _blocks(rows: int, columns: int) -> list[tuple[int, int]]:
    """Rows of two megabytes of float32 and more, as (first, stop).

    The last block takes the remainder: a matrix product rounds a row alone in another way than among others.
    """
    step = min(rows, -(-_BLOCK // columns))
    starts = range(0, rows - step + 1, step)
    return list(zip(starts, [*starts[1:], rows], strict=True))


def require_equal(what: str, difference: float, dtype: torch.dtype) -> None:
    """Raise RunError unless `difference` is rounding in `dtype`. NaN is none."""
    if not difference <= TOLERANCE[dtype]:
        raise RunError(
            f"{what} gives outputs that differ from the live model's by {difference:.3g} of their size "
            f"(at most {TOLERANCE[dtype]:.2g} is rounding); no folder was written"
        )


def relative_difference(merged: Tensor, live: Tensor) -> float:
    """The norm of the difference by the norm of `live`."""
    scale, gap = live.float().norm(), (merged.float() - live.float()).norm()
    return float(gap / scale) if scale > 0 else float(gap)


def _probe(base: Any) -> Tensor:
    dtype = base.weight.dtype
    generator = torch.Generator().manual_seed(_SEED)
    if isinstance(base, nn.Embedding):
        return torch.randint(0, base.num_embeddings, (64,), generator=generator)
    if isinstance(base, nn.Linear):
        return torch.randn(1, base.in_features, generator=generator).to(dtype)
    return torch.randn(1, base.in_channels, *base.kernel_size, generator=generator).to(dtype)
