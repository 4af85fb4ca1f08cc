"""The objective in bfloat16 at 8,192 tokens, half of them supervised: time and memory beside the other ways."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import objective_data as paths
import torch
from reference import Batch, default_terms, make_batch, objective, text_terms
from setting import NotApplicableError, Setting, variants
from torch import Tensor, nn

from coordcore_train.objective import LinearHead
from coordcore_train.objective.streaming import VocabularyStream, add_product, product

PRODUCTS = "the two matrix products"
EXACT = "the two in float32, in blocks"
OURS = "ours"
OURS_PLAIN = "ours, plain CE"
LIGER = "Liger fused linear CE, plain CE"


def sized(setting: Setting, *, vocabulary: int, width: int) -> Batch:
    return make_batch(
        setting,
        tokens=setting.size(8192, 64),
        supervised=setting.size(4096, 32),
        vocabulary=setting.size(vocabulary, 1800),
        width=setting.size(width, 32),
        dtype=torch.bfloat16,
    )


def both_ways(batch: Batch, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward and backward, starting without gradients as a step does."""

    def run() -> None:
        batch.forget_gradients()
        loss().backward()

    return run


def ours(batch: Batch, terms: Any, *, offsets: bool = True, **options: Any) -> Callable[[], Tensor]:
    compute = objective(batch, terms, **options)
    head = batch.linear if offsets else LinearHead(batch.head)
    return lambda: compute(batch.hidden, head, batch.targets).loss


def products(batch: Batch) -> Callable[[], None]:
    """Logits of every supervised position and their gradient by the hidden states, in the head's dtype."""
    suffix = torch.cat([batch.targets["text_index"], batch.targets["coord_index"]])
    hidden, weight = batch.hidden.detach()[suffix], batch.head.weight.detach()

    def run() -> None:
        for rows in hidden.split(2048):
            (rows @ weight.T) @ weight

    return run


def exact_products(batch: Batch) -> Callable[[], None]:
    """The two products with results in float32, in the objective's blocks: what its precision and memory cost alone."""
    suffix = torch.cat([batch.targets["text_index"], batch.targets["coord_index"]])
    hidden, weight = batch.hidden.detach()[suffix], batch.head.weight.detach()
    blocks = list(VocabularyStream(weight=weight).blocks(hidden.dtype, len(hidden)))
    softmax = torch.randn(len(hidden), len(blocks[0].weight), device=hidden.device, dtype=hidden.dtype)

    def run() -> None:
        total = torch.zeros_like(hidden, dtype=torch.float32)
        for block in blocks:
            product(hidden, block.weight.T)
            add_product(total, softmax[:, : len(block.weight)], block.weight)

    return run


def measured(setting: Setting, *, vocabulary: int, width: int) -> dict[str, Any]:
    batch = sized(setting, vocabulary=vocabulary, width=width)
    others = _Others(batch)
    losses: list[tuple[str, Callable[[], Tensor]]] = [
        (OURS, ours(batch, default_terms())),
        (OURS_PLAIN, ours(batch, text_terms(coord_positions=True), offsets=False)),
    ]
    if find_spec("liger_kernel") and setting.cuda:
        losses.append((LIGER, others.liger))
    if hasattr(nn.functional, "linear_cross_entropy"):
        losses.append(("torch linear_cross_entropy, plain CE", others.torch_linear))
    if find_spec("cut_cross_entropy") and setting.cuda:
        losses.append(("Apple cut-cross-entropy, plain CE", others.apple))
    losses += [
        ("suffix logits", partial(paths.suffix_logits, others)),
        ("full logits", partial(paths.full_logits, others)),
    ]
    runs = [(PRODUCTS, products(batch)), (EXACT, exact_products(batch))]
    runs += [(name, both_ways(batch, loss)) for name, loss in losses]
    count, size, hidden = len(others.suffix), *batch.head.weight.shape
    return {
        "title": f"objective: {batch.hidden.shape[0]:,} tokens, {count:,} supervised, V = {size:,}, H = {hidden:,}, "
        "bfloat16, head frozen",
        "variants": variants(
            runs, setting, repeats=9, ours=(PRODUCTS, EXACT, OURS, OURS_PLAIN), before=batch.forget_gradients
        ),
        # Two products; the head read twice, hidden states and their gradient once.
        "floor": {"flops": 4 * count * size * hidden, "bytes": 2 * (2 * size * hidden + 2 * count * hidden)},
        "dtype": "bfloat16",
    }


class _Others:
    """The batch as `tests/benchmarks/objective_data` sees it, and the other libraries' losses of it."""

    def __init__(self, batch: Batch) -> None:
        self.hidden, self.head, self.rows, self.vocab, self.targets = (
            batch.hidden, batch.head, batch.rows, batch.vocab, batch.targets
        )  # fmt: skip
        self.ids = batch.offset.ids
        self.suffix = torch.cat([batch.targets["text_index"], batch.targets["coord_index"]])
        labels = torch.full((len(batch.hidden) + 1,), -100, device=self.ids.device)
        labels[self.suffix + 1] = self.plain
        self.labels = labels[None, :-1]

    @property
    def plain(self) -> Tensor:
        """The labels of `suffix`."""
        return torch.cat([self.targets["text_labels"], self.ids[self.targets["bins"]]])

    def liger(self) -> Tensor:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        return LigerFusedLinearCrossEntropyLoss()(self.head.weight, self.hidden[self.suffix], self.plain)

    def torch_linear(self) -> Tensor:
        return nn.functional.linear_cross_entropy(self.hidden[self.suffix], self.head.weight, self.plain)

    def apple(self) -> Tensor:
        from cut_cross_entropy import linear_cross_entropy

        return linear_cross_entropy(self.hidden[self.suffix], self.head.weight, self.plain)


v152670_h2048 = partial(measured, vocabulary=152_670, width=2048)
v152670_h4096 = partial(measured, vocabulary=152_670, width=4096)
v248320_h2048 = partial(measured, vocabulary=248_320, width=2048)
v248320_h4096 = partial(measured, vocabulary=248_320, width=4096)


def trained_head(setting: Setting) -> dict[str, Any]:
    """With a head that is trained too: a third product, and logits that are computed twice."""
    batch = sized(setting, vocabulary=152_670, width=2048)
    batch.head.requires_grad_(True)
    others = _Others(batch)
    losses: list[tuple[str, Callable[[], Tensor]]] = [(OURS, ours(batch, default_terms()))]
    if find_spec("liger_kernel") and setting.cuda:
        losses.append((LIGER, others.liger))
    losses.append(("suffix logits", partial(paths.suffix_logits, others)))
    count, size, hidden = len(others.suffix), *batch.head.weight.shape
    return {
        "title": f"objective: {count:,} supervised, V = {size:,}, H = {hidden:,}, bfloat16, head trained",
        "variants": variants(
            [(name, both_ways(batch, loss)) for name, loss in losses],
            setting,
            repeats=9,
            ours=(OURS,),
            before=batch.forget_gradients,
        ),
        # Three products; the head read three times and its gradient written.
        "floor": {"flops": 6 * count * size * hidden, "bytes": 2 * (4 * size * hidden + 2 * count * hidden)},
        "dtype": "bfloat16",
    }


def chunks(setting: Setting) -> dict[str, Any]:
    """What other chunks than the default ones would give: positions at a time, and vocabulary rows at a time."""
    batch = sized(setting, vocabulary=152_670, width=2048)
    runs = [(PRODUCTS, products(batch)), ("default", both_ways(batch, ours(batch, default_terms())))]
    for rows in (512, 1024, 2048, 4096):
        for columns in (4096, 8192, 16_384, 32_768):
            # A block of logits in float32.
            if 32e6 <= rows * columns * 4 <= 256e6:
                options = {"chunk_rows": rows, "chunk_columns": columns}
                name = f"{rows:,} positions, {columns:,} vocabulary rows"
                runs.append((name, both_ways(batch, ours(batch, default_terms(), **options))))
    return {
        "title": f"objective by chunk, V = {batch.head.weight.shape[0]:,}, H = {batch.head.weight.shape[1]:,}",
        "variants": variants(runs, setting, repeats=5, ours=[name for name, _ in runs], before=batch.forget_gradients),
    }


def kernels(setting: Setting) -> dict[str, Any]:
    """Where the time of one forward and backward pass goes: the kernels that take most, in microseconds of one pass."""
    if not setting.cuda:
        raise NotApplicableError("the CPU has no kernels to tell apart")
    from torch.profiler import ProfilerActivity, profile

    batch = sized(setting, vocabulary=152_670, width=2048)
    run = both_ways(batch, ours(batch, default_terms()))
    run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        run()
        torch.cuda.synchronize()
    # Of the operations too it tells the time of their kernels: counted once.
    found = [average for average in seen.key_averages() if average.device_type == torch.autograd.DeviceType.CUDA]
    found.sort(key=lambda item: -item.self_device_time_total)
    total = math.fsum(item.self_device_time_total for item in found)
    return {
        "total_us": total,
        "kernels": [
            {"name": item.key[:120], "calls": item.count, "us": item.self_device_time_total} for item in found[:25]
        ],
    }
