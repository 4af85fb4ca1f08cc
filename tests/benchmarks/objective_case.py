"""The whole objective: from hidden states to loss and gradients, against the paths that hold logits, and by size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import objective_data as paths
import torch
from measure import Case, Reach, Setting, Variant
from objective_data import Batch, make_batch
from torch import Tensor

VOCABULARY = 152_670
BLOCK = 4096
PRODUCTS = "the two matrix products"


def both_ways(batch: Batch, loss: Callable[[], Tensor]) -> Variant:
    """Forward and backward, starting without gradients as a step does."""

    def run() -> Tensor:
        batch.forget_gradients()
        value = loss()
        value.backward()
        return value.detach()

    return run


def sized(setting: Setting, *, trainable_head: bool = False) -> Batch:
    """The figures' batch: 1024 positions of which 256 are supervised, V = 152,670, H = 1024."""
    return make_batch(
        setting,
        tokens=setting.size(1024, 64),
        supervised=setting.size(256, 16),
        vocabulary=setting.size(VOCABULARY, 3000),
        width=setting.size(1024, 32),
        trainable_head=trainable_head,
    )


def products(batch: Batch) -> Variant:
    """What no path can avoid when every supervised position needs its log-sum-exp: logits, and their gradient back.

    Block by block of vocabulary rows, which are still in the cache for the second product.
    """
    hidden, weight = batch.hidden.detach()[batch.suffix], batch.head.weight
    gradient = torch.zeros_like(hidden)

    @torch.no_grad()
    def run() -> None:
        gradient.zero_()
        for rows in weight.split(BLOCK):
            gradient.addmm_(hidden @ rows.T, rows)

    return run


def whole(setting: Setting) -> Mapping[str, Variant]:
    batch = sized(setting)
    losses: dict[str, Callable[[], Tensor]] = {
        "ours": partial(paths.ours, batch, paths.objective(batch)),
        "full logits": partial(paths.full_logits, batch),
        "suffix logits": partial(paths.suffix_logits, batch),
        "transformers, plain CE": partial(paths.plain_full_logits, batch),
        "torch linear_cross_entropy, chunks of 256, plain CE": partial(
            paths.linear_cross_entropy, batch, batch_chunk_size=256
        ),
        "torch linear_cross_entropy, chunks of 64, plain CE": partial(
            paths.linear_cross_entropy, batch, batch_chunk_size=64
        ),
    }
    if setting.device == "cuda":
        losses["Liger, plain CE"] = partial(paths.liger_cross_entropy, batch)
    return {PRODUCTS: products(batch), **{name: both_ways(batch, loss) for name, loss in losses.items()}}


def automatic(setting: Setting) -> Mapping[str, Variant]:
    """The chunks that torch's linear_cross_entropy chooses when asked for its default."""
    batch = sized(setting)
    return {
        "ours": both_ways(batch, partial(paths.ours, batch, paths.objective(batch))),
        "torch linear_cross_entropy, automatic chunks, plain CE": both_ways(
            batch, partial(paths.linear_cross_entropy, batch)
        ),
    }


def gates(setting: Setting) -> Mapping[str, Variant]:
    batch = sized(setting)
    on, off = paths.objective(batch), paths.objective(batch, gate=False)
    return {
        "gates off": both_ways(batch, partial(paths.ours, batch, off)),
        "gates on": both_ways(batch, partial(paths.ours, batch, on)),
    }


def trainable(setting: Setting) -> Mapping[str, Variant]:
    batch = sized(setting, trainable_head=True)
    return {
        "ours": both_ways(batch, partial(paths.ours, batch, paths.objective(batch))),
        "full logits": both_ways(batch, partial(paths.full_logits, batch)),
        "suffix logits": both_ways(batch, partial(paths.suffix_logits, batch)),
    }


def scaling(setting: Setting, *, supervised: int, vocabulary: int, peer: bool) -> Mapping[str, Variant]:
    """Every position supervised; H = 256, so that the largest size takes seconds: logits do not depend on H."""
    supervised, vocabulary = setting.size(supervised, 16), setting.size(vocabulary, 3000)
    batch = make_batch(
        setting, tokens=supervised + 1, supervised=supervised, vocabulary=vocabulary, width=setting.size(256, 32)
    )
    variants = {"ours": both_ways(batch, partial(paths.ours, batch, paths.objective(batch)))}
    if peer:
        variants["suffix logits"] = both_ways(batch, partial(paths.suffix_logits, batch))
    return variants


def chunks(setting: Setting) -> Mapping[str, Variant]:
    """1024 supervised positions, so that even large chunks are several; H = 256."""
    supervised, vocabulary = setting.size(1024, 16), setting.size(VOCABULARY, 3000)
    batch = make_batch(
        setting, tokens=supervised + 1, supervised=supervised, vocabulary=vocabulary, width=setting.size(256, 32)
    )
    sizes: dict[str, dict[str, int]] = {"default": {}}
    sizes |= {f"{rows} positions at a time": {"chunk_rows": rows} for rows in (64, 256, 1024)}
    sizes |= {f"{columns:,} vocabulary rows at a time": {"chunk_columns": columns} for columns in (1024, 4096, 32_768)}
    return {
        name: both_ways(batch, partial(paths.ours, batch, paths.objective(batch, **options)))
        for name, options in sizes.items()
    }


def sweep(name: str, title: str, sizes: tuple[int, ...], **fixed: Any) -> list[Case]:
    """One case per size. Beyond 2048 positions the logits of the other path are too many for a small machine."""
    cases = []
    flat = Reach(what="growth", at_most=32, text=f"<= 32 MB more than at {sizes[0]:,}")
    for at in sizes:
        reaches = [flat] if name == "supervised" and at == sizes[-1] else []
        values = {**fixed, name: at}
        build = partial(scaling, **values, peer=values["supervised"] <= 2048)
        cases.append(Case(name=f"{name}-{at}", title=title, build=build, rounds=2, reaches=reaches, sweep=name, at=at))
    return cases


CASES = [
    Case(
        name="objective",
        title="the whole objective: 1024 positions, 256 supervised (60 % coord), V = 152,670, H = 1024, gate on",
        build=whole,
        reaches=[
            Reach(what="memory", at_most=64, text="<= 64 MB"),
            Reach(what="time", against="full logits", at_most=0.25, text="<= 0.25x the time"),
            Reach(what="time", against="suffix logits", at_most=0.75, text="<= 0.75x the time"),
            Reach(what="time", against=PRODUCTS, at_most=1.25, text="<= 1.25x the time"),
        ],
    ),
    Case(
        name="objective-automatic",
        title="the same batch, and the chunks that torch chooses itself",
        build=automatic,
        rounds=1,
    ),
    Case(
        name="objective-gates",
        title="the objective with gates off, against gates on",
        build=gates,
        base="gates off",
        reaches=[Reach(what="time", variant="gates off", against="gates on", at_most=0.5, text="<= 0.5x the time")],
    ),
    Case(
        name="objective-trainable-head",
        title="the objective with a trainable head (full tuner)",
        build=trainable,
        rounds=3,
        reaches=[Reach(what="time", against="suffix logits", at_most=1.0, text="<= 1.0x the time")],
    ),
    Case(
        name="objective-chunks",
        title="the objective by chunk size: 1024 supervised positions, V = 152,670, H = 256",
        build=chunks,
        base="default",
        rounds=3,
    ),
    *sweep("supervised", "supervised positions", (256, 512, 1024, 2048, 4096, 8192), vocabulary=VOCABULARY),
    *sweep("vocabulary", "vocabulary rows", (32_768, 65_536, 131_072, 262_144), supervised=256),
]
