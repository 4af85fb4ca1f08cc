"""`train.group_by_length`: steps of examples that are about as long, every example once, the same for every layout."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import support
import torch.distributed as dist
from engine_fakes import Boxes
from swift.dataloader import BatchSamplerShard

from coordcore.errors import RunError
from coordcore_train.run.folder import RunDir
from coordcore_train.swift.encode import grouping_of
from coordcore_train.swift.lengths import STEPS, Grouping, Lengths
from coordcore_train.swift.rows import Rows, Shares

COUNT = 1003
BOXES = [1 + int(40 * Random(index).random() ** 3) for index in range(COUNT)]
"""Of each example: mostly few, seldom forty."""


class Told:
    """A source that tells lengths alone, and which it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def length(self, epoch: int, index: int) -> tuple[int, list[tuple[int, int]]]:
        self.asked.append(index)
        return 24 * BOXES[index], [(64, 64)]


def sampler(
    monkeypatch: pytest.MonkeyPatch,
    source: Any,
    *,
    size: int = 4,
    accumulation: int = 1,
    ranks: int = 1,
    rank: int = 0,
    epoch: int = 0,
    skip: int = 0,
    count: int = COUNT,
    length: int = 0,
    drop_last: bool = False,
    grouped: bool = True,
) -> Shares:
    """The batches of a rank in an epoch."""
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: ranks)
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    stock = BatchSamplerShard(count, size, shuffle=True, drop_last=drop_last, data_seed=7)
    grouping = Grouping(length=Lengths(source=source, area=1024), step=size * accumulation * ranks)
    made = Shares(stock, count, skip, length, grouping if grouped else None)
    made.set_epoch(epoch)
    return made


def padded(batches: list[list[int]]) -> int:
    """Tokens that are computed for nothing: each example is filled up to the longest of its batch."""
    lengths = [[24 * BOXES[index] for index in batch] for batch in batches]
    return sum(max(batch) * len(batch) - sum(batch) for batch in lengths)


def test_every_example_once_in_every_epoch_each_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = [[*itertools.chain(*sampler(monkeypatch, Told(), epoch=epoch))] for epoch in range(3)]

    assert all(sorted(order) == list(range(COUNT)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    # Not the same examples together again, which sorting all of them would give.
    steps = [{frozenset(batch) for batch in sampler(monkeypatch, Told(), epoch=epoch)} for epoch in range(2)]
    assert len(steps[0] & steps[1]) <= 1
    assert orders[1] == [*itertools.chain(*sampler(monkeypatch, Told(), epoch=1))]


def test_padding_falls_to_a_sixth(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [*sampler(monkeypatch, Told(), size=8, grouped=False)]
    grouped = [*sampler(monkeypatch, Told(), size=8)]
    assert len(grouped) == len(plain)
    assert 0 < 6 * padded(grouped) < padded(plain)


def test_long_steps_stand_among_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = [max(BOXES[index] for index in batch) for batch in sampler(monkeypatch, Told())][:STEPS]
    assert sorted(longest) not in (longest, longest[::-1])
    assert longest.index(max(longest)) not in (0, len(longest) - 1)


@pytest.mark.parametrize(("size", "accumulation", "ranks"), [(2, 2, 2), (4, 1, 2), (1, 4, 2), (2, 1, 4), (8, 1, 1)])
def test_a_step_holds_the_same_examples_however_it_is_dealt_out(
    monkeypatch: pytest.MonkeyPatch, size: int, accumulation: int, ranks: int
) -> None:
    alone = [sorted(batch) for batch in sampler(monkeypatch, Told(), size=8)]
    how: Any = {"size": size, "accumulation": accumulation, "ranks": ranks}
    shares = [[*sampler(monkeypatch, Told(), **how, rank=rank)] for rank in range(ranks)]

    micro = [[*itertools.chain(*batches)] for batches in zip(*shares, strict=True)]
    steps = [sorted(itertools.chain(*micro[k : k + accumulation])) for k in range(0, len(micro), accumulation)]
    seen = [index for index in itertools.chain(*steps) if index < COUNT]

    assert sorted(seen) == list(range(COUNT))
    assert [[index for index in step if index < COUNT] for step in steps] == alone
    assert len({len(share) for share in shares}) == 1


def test_ranks_wait_for_no_longer_example_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = ([*sampler(monkeypatch, Told(), ranks=2, rank=rank)] for rank in range(2))
    longest = [[24 * max(BOXES[index] for index in batch) for batch in share] for share in (first[:-1], second[:-1])]
    waited = sum(abs(one - other) for one, other in zip(*longest, strict=True))
    assert waited < sum(longest[0]) / 20


def test_a_continued_epoch_goes_on_in_the_same_order_and_measures_no_block_that_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = [*sampler(monkeypatch, Told(), epoch=2)]
    for skip in (1, STEPS - 1, STEPS, 130, len(whole) - 1, len(whole)):
        source = Told()
        assert [*sampler(monkeypatch, source, epoch=2, skip=skip)] == whole[skip:]
        trained = skip // STEPS * STEPS * 4
        assert len(source.asked) <= COUNT - trained
        assert not {*source.asked} & {*itertools.chain(*whole[: trained // 4])}


def test_an_epoch_measures_its_examples_as_it_comes_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Told()
    next(iter(sampler(monkeypatch, source)))
    assert len(source.asked) == 4 * STEPS


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 17, 64])
@pytest.mark.parametrize("drop_last", [False, True])
def test_few_examples(monkeypatch: pytest.MonkeyPatch, count: int, drop_last: bool) -> None:
    order = [*itertools.chain(*sampler(monkeypatch, Told(), count=count, drop_last=drop_last))]
    assert len({*order}) == len(order) == (count // 4 * 4 if drop_last else count)


def test_a_source_of_epochs_is_asked_for_its_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    class ByEpoch(Told):
        def length(self, epoch: int, index: int) -> tuple[int, list[tuple[int, int]]]:
            self.asked.append(epoch)
            return (index if epoch else -index), []

    source = ByEpoch()
    batches = [*sampler(monkeypatch, source, epoch=3, count=8, length=8)]
    assert {*source.asked} == {3}
    assert sorted(itertools.chain(*batches)) == list(range(24, 32))


@pytest.mark.parametrize(
    ("size", "max_pixels", "expected"),
    [
        ((64, 64), None, 4),
        ((64, 32), None, 4),
        ((640, 320), None, 200),
        ((640, 320), 51200, 50),
        ((9999, 9999), None, 60),
    ],
)
def test_images_count_as_many_tokens_as_they_become(
    size: tuple[int, int], max_pixels: int | None, expected: int
) -> None:
    source = SimpleNamespace(length=lambda _epoch, index: (index, [size, size]))
    lengths = Lengths(
        source=source, area=1024, least=4, most=200 if size != (9999, 9999) else 60, max_pixels=max_pixels
    )
    assert lengths(0, 7) == 7 + 2 * expected


def test_images_of_a_processor_without_patches_count_alike() -> None:
    template = SimpleNamespace(processor=SimpleNamespace(), max_pixels=None)
    source = SimpleNamespace(length=lambda _epoch, _index: (7, [(640, 480)]))
    assert grouping_of(source, template, 4).length(0, 0) == 7


@pytest.mark.parametrize(
    "told", [None, 7, (math.nan, []), (-1, []), (math.inf, []), ("7", []), (7, [64, 64]), (7, None)]
)
def test_a_source_that_tells_no_length(told: Any) -> None:
    lengths = Lengths(source=SimpleNamespace(length=lambda _epoch, _index: told), area=1024)
    with pytest.raises(RunError) as caught:
        lengths(2, 5)
    assert str(caught.value).startswith(f"train.group_by_length: SimpleNamespace.length(2, 5) gave {told!r}, where a ")


def test_a_source_without_the_lengths_that_its_component_promises() -> None:
    with pytest.raises(RunError, match=r"train.group_by_length: Rows, which the data builder returned, has no `length"):
        grouping_of(Rows([]), SimpleNamespace(), 4)


def test_a_run_goes_on_in_the_middle_of_an_epoch_and_a_step_of_everything_has_the_loss_of_any_order(
    coord_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    plain = Boxes.__getitem__

    def asking(self: Boxes, index: int) -> Any:
        asked.append(index)
        return plain(self, index)

    monkeypatch.setattr(Boxes, "__getitem__", asking)
    # An epoch is of 10 examples: a step of 4, another of 4, and a last of 2.
    train = {"steps": 5, "batch_size": 2, "accumulation": 2, "save_every": 4, "keep": None, "group_by_length": True}
    sections: Any = {"data": {"fake_boxes": {"train": 10}}, "train": train}
    whole = support.train(tmp_path / "whole", coord_base, **sections)
    every = asked[-18:]
    assert (sorted(every[:10]), sorted(every[10:])) != (every[:10], every[10:])
    assert sorted(every[:10]) == list(range(10))

    cut = RunDir(Path(shutil.copytree(whole.path, tmp_path / "cut" / "run")))
    shutil.rmtree(cut.checkpoints / "checkpoint-5")
    lines = cut.metrics.read_text().splitlines(keepends=True)
    cut.metrics.write_text("".join(lines[:4]))
    cut.write_state(done=False, trained=False)
    asked.clear()
    assert (
        support.train(tmp_path / "cut", coord_base, **sections).metrics.read_text().splitlines(keepends=True) == lines
    )
    assert asked[-4:] == every[-4:]

    everything = {**train, "steps": 1, "batch_size": 2, "accumulation": 5, "save_every": None}
    one_step = [
        support.losses(
            support.train(
                tmp_path / name, coord_base, **{**sections, "train": {**everything, "group_by_length": grouped}}
            )
        )
        for name, grouped in (("apart", False), ("grouped", True))
    ]
    assert one_step[1] == pytest.approx(one_step[0], rel=1e-6)
