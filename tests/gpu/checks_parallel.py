"""DDP and FSDP2 of one rank: the loss and the gradients of the model alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from models import Live, live
from setting import Setting, check, error
from torch import nn


@contextmanager
def process_group(setting: Setting) -> Iterator[None]:
    if setting.cuda:
        torch.cuda.set_device(0)
    dist.init_process_group("nccl" if setting.cuda else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def ddp(setting: Setting) -> dict[str, Any]:
    from torch.nn.parallel import DistributedDataParallel

    checks = []
    with process_group(setting):
        for dtype in (torch.float32, torch.bfloat16):
            made = live(setting, dtype=dtype)
            checks += _as_alone(setting, made, DistributedDataParallel(made.model), dtype)
    return {"checks": checks}


def fsdp2(setting: Setting) -> dict[str, Any]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    checks = []
    with process_group(setting):
        mesh = init_device_mesh(setting.device, (1,))
        for dtype in (torch.float32, torch.bfloat16):
            made = _trained(live(setting, dtype=dtype), dtype)
            for layer in made.model.model.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(made.model, mesh=mesh)
            checks += _as_alone(setting, made, made.model, dtype)
    return {"checks": checks}


def _trained(made: Live, dtype: torch.dtype) -> Live:
    """In bfloat16 nothing but the offsets, which are in float32: FSDP2 wants one dtype of all that is trained."""
    if dtype != torch.float32:
        for name, item in made.model.named_parameters():
            item.requires_grad_(name.startswith("coord_offset_adapter"))
    return made


def _as_alone(setting: Setting, made: Live, wrapped: nn.Module, dtype: torch.dtype) -> list[dict[str, Any]]:
    alone = live(setting, dtype=dtype)
    for parameter, other in zip(alone.model.parameters(), made.model.parameters(), strict=True):
        parameter.requires_grad_(other.requires_grad)
    expected, loss = alone.step(alone.objective()), made.step(made.objective(), wrapped=wrapped)
    gradients, found = alone.gradients(), made.gradients()
    name = str(dtype).removeprefix("torch.")
    worst = max(error(found[item], gradients[item]) for item in set(found) & set(gradients))
    return [
        check(f"loss ({name})", error(loss, expected), 1e-5 if dtype == torch.float32 else 2e-3),
        check(f"parameters with a gradient on one side only ({name})", len(set(found) ^ set(gradients)), 0),
        # Gathered weights lie elsewhere in memory, where a product may take another kernel.
        check(f"largest difference of a gradient ({name})", worst, 1e-4 if dtype == torch.float32 else 2e-2),
    ]
