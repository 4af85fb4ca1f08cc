"""The objective on a plain transformers model: ranks, sharding, checkpointing, packing and a trained head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from coordcore.builtins import FunctionTerm
from coordcore.coords import CoordVocab
from coordcore.protocols import AddedRows
from coordcore.testing.closeness import assert_close_to_scale
from coordcore_train.checkpoint.folder import read_vocab
from coordcore_train.objective import Objective, loss_in_forward, make_targets
from coordcore_train.run.launch import end_process

ROWS, TOKENS = 4, 30


def bin_ce(seen: Any) -> Tensor:
    return seen.full_lse - seen.logits.gather(1, seen.bins[:, None]).squeeze(1)


def text_ce(seen: Any) -> Tensor:
    return seen.lse - seen.label_logits


TERMS = [
    ("coord", FunctionTerm(fn=bin_ce, needs={"full_lse"})),
    ("text", FunctionTerm(fn=text_ce, scope="text")),
]


class Rows(nn.Module):
    """The simplest surgery: trainable rows on the head."""

    def __init__(self, vocab: CoordVocab, hidden: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.full((len(vocab.ids), hidden), 0.01))
        self.ids = vocab.ids_tensor()

    def head_offset(self, model: nn.Module) -> AddedRows:
        return AddedRows(ids=self.ids, rows=self.rows)


def load(base: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, CoordVocab]:
    from transformers import AutoModelForImageTextToText

    torch.set_num_threads(1)
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=dtype)
    vocab = read_vocab(base)
    model.add_module("extra", Rows(vocab, model.config.get_text_config().hidden_size).to(dtype))
    return model, vocab


def labels_of(vocab: CoordVocab) -> Tensor:
    """Rows whose answers are of unequal length, mostly coord tokens."""
    random = torch.Generator().manual_seed(3)
    labels = torch.full((ROWS, TOKENS), -100)
    for row in range(ROWS):
        end = 12 + 4 * row
        labels[row, 5:end] = torch.tensor(vocab.ids)[torch.randint(0, 1000, (end - 5,), generator=random)]
        labels[row, 6:end:3] = torch.randint(60, 90, (len(range(6, end, 3)),), generator=random)
    return labels


def step(model: Any, wrapped: nn.Module, vocab: CoordVocab, labels: Tensor, counts: list[float], scale: float) -> float:
    """Forward and backward of some rows; the share of the loss."""
    targets = make_targets(labels, vocab)
    inputs = torch.where(labels < 0, 65, labels)
    with loss_in_forward(
        model, Objective(TERMS, vocab, chunk_rows=7), targets, counts, surgeries=[model.extra]
    ) as seen:
        loss = wrapped(input_ids=inputs).logits.sum()
    assert len(seen) == 1
    (loss * scale).backward()
    return loss.item()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    from torch.distributed.tensor import DTensor

    found = {name: item.grad for name, item in model.named_parameters() if item.grad is not None}
    return {name: item.full_tensor() if isinstance(item, DTensor) else item for name, item in found.items()}


def alone(base: Path, dtype: torch.dtype = torch.float32) -> tuple[float, dict[str, Tensor]]:
    """The whole batch in one process, whole logits, nothing of ours."""
    model, vocab = load(base, dtype)
    labels = labels_of(vocab)
    hidden = model.model(input_ids=torch.where(labels < 0, 65, labels)).last_hidden_state
    logits = model.lm_head(hidden).index_add(-1, model.extra.ids, hidden @ model.extra.rows.T)[:, :-1]
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    is_coord = torch.isin(labels[:, 1:].flatten(), vocab.ids_tensor())
    is_text = (labels[:, 1:].flatten() >= 0) & ~is_coord
    loss = nll[is_coord].sum() / is_coord.sum() + nll[is_text].sum() / is_text.sum()
    loss.backward()
    return loss.item(), gradients(model)


def assert_as_alone(actual: tuple[float, dict[str, Tensor]], base: Path) -> None:
    """The loss and every gradient of the whole batch in one process, but for the rounding of other batch sizes."""
    (loss, gradients), (_, exact) = alone(base), alone(base, torch.float64)
    assert actual[0] == pytest.approx(loss, rel=1e-5)
    assert set(actual[1]) == set(gradients)
    for name, gradient in gradients.items():
        assert_close_to_scale(actual[1][name], gradient, exact[name], what=name)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base(request: Any, tmp_path_factory: Any) -> Path:
    from coordcore_train.testing.tiny import tiny_qwen3vl

    return tiny_qwen3vl(tmp_path_factory.mktemp("ranks") / "base", tie_word_embeddings=request.param)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_accumulation_and_gradient_checkpointing(base: Path, checkpointing: bool) -> None:
    model, vocab = load(base)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
    labels = labels_of(vocab)
    counts = Objective(TERMS, vocab).count(make_targets(labels, vocab))
    loss = sum(step(model, model, vocab, labels[row : row + 1], counts, 1.0) for row in range(ROWS))
    assert_as_alone((loss, gradients(model)), base)


def test_packed_rows_are_rows_side_by_side(base: Path) -> None:
    model, vocab = load(base)
    labels = labels_of(vocab)
    packed = labels.reshape(1, -1)
    # Positions start again with each row, and attention stays within it, as a padding-free collator arranges.
    block = torch.block_diag(*[torch.ones(TOKENS, TOKENS).tril()] * ROWS).bool()[None, None]
    positions = torch.arange(TOKENS).repeat(ROWS).expand(3, 1, -1)
    with loss_in_forward(model, Objective(TERMS, vocab), make_targets(packed, vocab), surgeries=[model.extra]):
        loss = model(
            input_ids=torch.where(packed < 0, 65, packed), attention_mask=block, position_ids=positions
        ).logits.sum()
    loss.backward()
    assert_as_alone((loss.item(), gradients(model)), base)


KINDS = ("ddp", "fsdp2")


def rank_main(rank: int, base: Path, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for kind in KINDS:
        model, vocab = load(base)
        wrapped: nn.Module = model
        if kind == "ddp":
            model.model.visual.requires_grad_(False)  # takes no part in a text batch
            wrapped = DistributedDataParallel(model, find_unused_parameters=False)
        else:
            mesh = init_device_mesh("cpu", (2,))
            for layer in model.model.language_model.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
        labels = labels_of(vocab)
        counts = Objective(TERMS, vocab).count(make_targets(labels, vocab))
        # Unequal shares: the second rank has the longer answers. Both wrappers average, so each loss is doubled.
        total = torch.tensor(step(model, wrapped, vocab, labels[2 * rank : 2 * rank + 2], counts, 2.0))
        dist.all_reduce(total)
        found = gradients(model)
        if rank == 0:
            torch.save((total.item(), found), f"{folder}/{kind}.pt")
    dist.barrier()
    dist.destroy_process_group()
    end_process(0)  # as a run ends its ranks: Python's own way out can abort in gloo's threads


def test_two_ranks_are_one_batch(base: Path, tmp_path: Path) -> None:
    mp.spawn(rank_main, args=(base, str(tmp_path)), nprocs=2)
    for kind in KINDS:
        assert_as_alone(torch.load(tmp_path / f"{kind}.pt"), base)
