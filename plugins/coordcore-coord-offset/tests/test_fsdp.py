"""Under FSDP2 the hooks see whole offsets inside the forward, and gradients reach the shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from coordcore.testing.closeness import assert_close_to_scale
from coordcore_coord_offset import CoordOffsetSurgery, install_coord_offset_adapter, live_coord_offset_adapter
from coordcore_train.surgery.rows import LiveRows


@pytest.fixture
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_sharded_offsets_get_the_gradient_of_whole_ones(
    load: Callable[..., Any], coord_ids: list[int], tokens: torch.Tensor
) -> None:
    gradients, rows = [], []
    for sharded in (False, True):
        base = load()
        install_coord_offset_adapter(base, coord_ids)
        torch.manual_seed(0)
        model = get_peft_model(base, LoraConfig(target_modules=["q_proj"], modules_to_save=["coord_offset_adapter"]))
        if sharded:
            mesh = init_device_mesh("cpu", (1,))
            for layer in [module for module in model.modules() if type(module).__name__.endswith("TextDecoderLayer")]:
                fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
        surgery = LiveRows(CoordOffsetSurgery())
        base.get_output_embeddings().register_forward_hook(
            lambda *_, surgery=surgery, model=model: rows.append(surgery.head_offset(model).rows)
        )
        model(input_ids=tokens, labels=tokens).loss.backward()
        gradients.append(live_coord_offset_adapter(model).embed_offset.grad)
    assert not isinstance(rows[1], DTensor)
    assert isinstance(gradients[1], DTensor)
    # Gathered weights lie elsewhere in memory, where a product may take another kernel.
    assert_close_to_scale(gradients[1].full_tensor(), gradients[0], what="the gradient of the offsets")
