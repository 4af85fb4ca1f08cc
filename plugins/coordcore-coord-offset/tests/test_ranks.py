"""Two ranks, one of which has no coord token in its batch, train the offsets that one rank trains on both batches."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForImageTextToText, AutoTokenizer

from coordcore.coords import CoordVocab
from coordcore.testing.closeness import assert_close_to_scale
from coordcore_coord_offset import install_coord_offset_adapter
from coordcore_train.run.launch import end_process
from coordcore_train.testing.tiny import tiny_qwen3vl


def _gradients(
    folder: Path, wrap: str = "", rank: int | None = None, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """The gradients of the embedding's and the head's offsets after a step: one batch per rank, or both when None."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).requires_grad_(False)
    vocab = CoordVocab.from_tokenizer(AutoTokenizer.from_pretrained(folder))
    # Two tables: those of the embedding take part through the batch's coord tokens alone.
    adapter = install_coord_offset_adapter(model, vocab.ids, tie_head=False, dtype=dtype)
    tokens = torch.tensor([[5, vocab.ids[0], vocab.ids[7], vocab.ids[999]], [5, 6, 7, 8]])
    tokens = tokens if rank is None else tokens[rank : rank + 1]
    run = model
    if wrap == "ddp":
        run = DistributedDataParallel(model)
    elif wrap == "fsdp":
        run = fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    run(input_ids=tokens, labels=tokens).loss.backward()
    found = [parameter.grad for parameter in adapter.parameters()]
    return [item.full_tensor() if isinstance(item, DTensor) else item for item in found]


def _rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save({wrap: _gradients(folder, wrap, rank) for wrap in ("ddp", "fsdp")}, folder / f"{rank}.pt")
    dist.destroy_process_group()
    end_process(0)  # as a run ends its ranks: Python's own way out can abort in gloo's threads


def test_a_rank_without_coord_tokens_takes_part(tmp_path: Path) -> None:
    folder = tiny_qwen3vl(tmp_path / "base")
    mp.spawn(_rank, args=(folder,), nprocs=2)
    # Batches of one row and of two round differently, by a share of the largest gradient.
    expected, exact = _gradients(folder), _gradients(folder, dtype=torch.float64)
    for rank in range(2):
        for wrap, found in torch.load(folder / f"{rank}.pt").items():
            for name, *gradients in zip(("embedding", "head"), found, expected, exact, strict=True):
                assert_close_to_scale(*gradients, what=f"rank {rank}, {wrap}: the gradient of the {name}'s offsets")
