"""A run's examples as ms-swift rows, and the batches of a rank by which every example of an epoch is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import attrs
import torch
from swift.dataloader import BatchSamplerShard, DataLoaderShard
from torch.utils.data import BatchSampler, Dataset

from coordcore.protocols import ExampleSource
from coordcore.records.example import Example
from coordcore_train.hidden import Hiding
from coordcore_train.run.given import example_of
from coordcore_train.swift.lengths import Grouping
from coordcore_train.swift.template import to_row

BLOCK = 1 << 20
"""Examples that are shuffled together: what is kept of an epoch's order, however many there are."""


class Rows(Dataset[dict[str, Any]]):
    """A run's examples as ms-swift rows, made per access.

    `multiple`: the length is filled up to a multiple of it with rows that are not charged, so that every rank has the
    same number of batches and no example counts twice. Of a source whose examples differ from epoch to epoch the rows
    of the next epoch follow behind, without end: a data-loader process that lives on is told the epoch by the index.
    So they do where other boxes are hidden in every epoch. groups: of the run's data builder. giver: what messages call
    that builder.
    """

    def __init__(
        self,
        source: ExampleSource,
        multiple: int = 1,
        groups: Sequence[str] = (),
        giver: str = "the data builder",
        hiding: Hiding | None = None,
    ) -> None:
        self.source = source
        self.groups = groups
        self.giver = giver
        self.real = len(source)
        self.length = math.ceil(self.real / multiple) * multiple
        self.hiding = hiding
        self.has_epochs = hasattr(source, "in_epoch")
        self.by_epoch = self.has_epochs or hiding is not None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        example, (epoch, place) = self.example(index), divmod(index, self.length)
        hidden = frozenset[int]() if self.hiding is None else self.hiding.drawn(example.geometries, epoch, place)
        return to_row(example, padding=place >= self.real, groups=self.groups, hidden=hidden)

    def example(self, index: int) -> Example:
        """Of which a row is made. Raises InputError and RunError as `example_of`."""
        epoch, place = divmod(index, self.length)
        return example_of(self.giver, self.source, place % self.real, epoch if self.has_epochs else None)


class Said(Dataset[Example]):
    """The examples of rows without their images: what one process can well send to another."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __getitem__(self, index: int) -> Example:
        return attrs.evolve(self.rows.example(index), images=())


def shuffled(count: int, seed: int) -> Iterator[int]:
    """The numbers up to `count` in a random order that follows from `seed`.

    Up to a block of them in that of `torch.randperm`, as ms-swift has it. Of more, B blocks take one each of every B
    neighbours, a random one, and are shuffled: 16 bytes a number of one block are held, where a permutation of all
    grows with the data.
    """
    blocks = max(1, math.ceil(count / BLOCK))
    generator, other = (torch.Generator().manual_seed(seed) for _ in range(2))
    turns = torch.randint(blocks, (math.ceil(count / blocks),), generator=other)
    for block in range(blocks):
        order = torch.randperm(len(turns), generator=generator)
        numbers = order * blocks + (turns[order] + block) % blocks
        yield from map(int, numbers[numbers < count].numpy())


class Shares(BatchSamplerShard):
    """The batches of one rank: what a single rank would train in a step, dealt out to all of them in turn.

    ms-swift's own deals out `count // ranks * ranks` examples in an order of as many, so that the last of an epoch
    are trained in no epoch, or others with every number of ranks; and it holds the whole order, as a list. stock: its
    sampler, with this rank and the number of ranks. count: of examples. Rows from `count` on fill up the last batch,
    unless that is to be dropped. skip: the batches of this epoch that were trained before the run was interrupted.
    length: by which an epoch's rows lie behind those of the one before; 0 where they are the same. grouping: puts
    examples of about one length into a step.
    """

    def __init__(
        self, stock: BatchSamplerShard, count: int, skip: int = 0, length: int = 0, grouping: Grouping | None = None
    ) -> None:
        self.__dict__.update(stock.__dict__)
        self.count, self.skip, self.length, self.grouping = count, skip, length, grouping
        self.total_samples = count // self.world_size if self.drop_last else math.ceil(count / self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        epoch = self.curr_seed - self.base_seed
        order: Iterable[int] = shuffled(self.count, self.curr_seed) if self.shuffle else range(self.count)
        if self.grouping is not None:
            trained = self.skip * self.batch_size * self.world_size
            order = self.grouping.ordered(order, self.count, epoch, key=str(self.curr_seed), skip=trained)
        every = self.total_samples * self.world_size
        order = chain(order, range(self.count, every))
        share = islice((epoch * self.length + index for index in order), self.rank, every, self.world_size)
        yield from islice(BatchSampler(share, self.batch_size, self.drop_last), self.skip, None)

    def __len__(self) -> int:
        return int(super().__len__()) - self.skip


def shared_out(
    loader: DataLoaderShard, rows: Rows, skip_batches: int, grouping: Grouping | None = None
) -> DataLoaderShard:
    """The loader of one rank, with `Shares` in the place of ms-swift's sampler."""
    length = rows.length if rows.by_epoch else 0
    return DataLoaderShard(
        loader.dataset,
        device=loader.device,
        batch_sampler=Shares(loader.batch_sampler, rows.real, skip_batches, length, grouping),
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        persistent_workers=loader.persistent_workers,
        prefetch_factor=loader.prefetch_factor,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )
