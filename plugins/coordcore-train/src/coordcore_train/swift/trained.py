"""The weights that train, looked at when a checkpoint is saved: whether they are finite, and whether they moved."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

_NUMBERS = 4096  # of a tensor, by which it is told whether it moved
_ROUNDING = 1e-6  # of a tensor's size: a smaller change is lost in float32, or when the adapter is merged

Sum = Callable[[Tensor], Tensor]
"""The sum of a tensor over all ranks."""


def trained(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that train, by name. Of one that is spread over ranks the part that lies here, which may be empty."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return {name: _here(item).detach() for name, item in model.named_parameters() if item.requires_grad}


def _here(parameter: Any) -> Any:
    if hasattr(parameter, "ds_tensor"):  # ZeRO-3
        return parameter.ds_tensor
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter  # FSDP2


def not_finite(tensors: Mapping[str, Tensor], add: Sum) -> list[str]:
    """The names of those that hold NaN or infinity. Waits for the device once, and makes no copy of a tensor."""
    if not tensors:
        return []
    largest = [tensor.new_zeros(()) if not tensor.numel() else _largest(tensor) for tensor in tensors.values()]
    bad = add((~torch.stack([item.float() for item in largest]).isfinite()).float())
    return [name for name, count in zip(tensors, bad.tolist(), strict=True) if count]


def _largest(tensor: Tensor) -> Tensor:
    """The largest absolute value; NaN where there is one."""
    largest: Tensor = torch.linalg.vector_norm(tensor, math.inf)
    return largest


class Start:
    """Some numbers of each tensor as they were when the training, or its continuation, started."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._numbers = {name: _some(tensor) for name, tensor in tensors.items()}

    def moved(self, tensors: Mapping[str, Tensor], add: Sum) -> bool:
        """Whether training has moved any of them. Weight decay, which shrinks a whole tensor alike, does not count."""
        pairs = [(before, _some(tensors[name])) for name, before in self._numbers.items() if before.numel()]
        if not pairs:
            return bool(add(torch.zeros(())).item())
        sizes = torch.stack([_size(before) for before, _ in pairs])
        changes = torch.stack([_size(_change(before, after)) for before, after in pairs])
        # What starts at zero, as LoRA's B, is measured by the others.
        sizes = torch.where(sizes > 0, sizes, sizes.max())
        return bool(add((changes > _ROUNDING * sizes).any().float()).item())


def _some(tensor: Tensor) -> Tensor:
    """Every n-th number of a tensor, in float64."""
    flat = tensor.reshape(-1)
    return flat[:: max(1, flat.numel() // _NUMBERS)].to(torch.float64, copy=True)


def _size(numbers: Tensor) -> Tensor:
    """Root mean square."""
    return numbers.square().mean().sqrt()


def _change(before: Tensor, after: Tensor) -> Tensor:
    """What is left of `after` when its best multiple of `before` is taken away."""
    own = (before * before).sum()
    return after - before * torch.where(own > 0, (before * after).sum() / own.clamp_min(1e-300), 0)
