"""Several ranks train every example in every epoch, in the steps in which a single rank would."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import support
import torch
import torch.distributed as dist
from swift.dataloader import BatchSamplerShard

from coordcore import Example
from coordcore_train.swift import rows as rows_module
from coordcore_train.swift.rows import BLOCK, Rows, Shares, shuffled


def batches(
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    size: int,
    ranks: int,
    rank: int,
    *,
    drop_last: bool = False,
    epoch: int = 1,
    length: int = 0,
    skip: int = 0,
) -> list[list[int]]:
    """The batches of a rank in an epoch, the second unless another is named."""
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: ranks)
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    stock = BatchSamplerShard(count, size, shuffle=True, drop_last=drop_last, data_seed=7)
    sampler = stock if ranks == 1 and not length else Shares(stock, count, skip, length)
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert len(found) == len(sampler)
    return found


@pytest.mark.parametrize(("count", "size", "ranks"), [(5, 2, 2), (5, 1, 2), (7, 2, 3), (1, 1, 4), (8, 2, 2), (9, 4, 2)])
def test_a_step_of_several_ranks_is_one_of_a_single_rank(
    monkeypatch: pytest.MonkeyPatch, count: int, size: int, ranks: int
) -> None:
    alone = batches(monkeypatch, count, size * ranks, 1, 0)
    shares = [batches(monkeypatch, count, size, ranks, rank) for rank in range(ranks)]

    together = [sorted(index for batch in step if batch for index in batch) for step in zip(*shares, strict=True)]

    assert [[index for index in step if index < count] for step in together] == [sorted(batch) for batch in alone]
    assert sorted(itertools.chain(*together)) == list(range(-(-count // ranks) * ranks))


def test_an_incomplete_batch_is_dropped_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = batches(monkeypatch, 11, 4, 1, 0, drop_last=True)
    shares = [batches(monkeypatch, 11, 2, 2, rank, drop_last=True) for rank in range(2)]
    assert [sorted(first + second) for first, second in zip(*shares, strict=True)] == [sorted(item) for item in alone]


def test_a_continued_epoch_goes_on_behind_what_was_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = batches(monkeypatch, 11, 2, 2, 1)
    stock = BatchSamplerShard(11, 2, shuffle=True, drop_last=False, data_seed=7)
    stock.set_epoch(1)
    rest = Shares(stock, 11, skip=2)
    assert (list(rest), len(rest)) == (whole[2:], 1)


def test_a_single_rank_has_the_order_of_ms_swift(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = BatchSamplerShard(11, 2, shuffle=True, drop_last=False, data_seed=7)
    stock.set_epoch(1)
    assert list(Shares(stock, 11)) == list(stock)


@pytest.mark.parametrize("count", [1000, 1024, 1025])
def test_many_examples_are_shuffled_block_by_block(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(rows_module, "BLOCK", 64)
    orders = [list(shuffled(count, seed)) for seed in (0, 0, 1)]

    assert sorted(orders[0]) == list(range(count))
    assert orders[0] == orders[1] != orders[2]


def test_a_block_is_spread_over_all_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "BLOCK", 64)
    order = list(shuffled(1024, 0))
    for first in range(0, 1024, 64):
        block = order[first : first + 64]
        assert sorted(number // 16 for number in block) == list(range(64))  # one of every 16 neighbours
        assert len({number % 16 for number in block}) > 8  # not always the same one, which may be of one source
        assert block != sorted(block)


def test_an_order_is_no_larger_with_more_examples() -> None:
    count = 10**13  # 80 terabytes, were it kept
    some = [*itertools.islice(shuffled(count, 0), BLOCK // 512)]
    assert len(set(some)) == len(some)
    assert 0 <= min(some) < count / 500 < count - count / 500 < max(some) < count


class ByEpoch:
    """Three examples, others in each epoch."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int, /) -> Example:
        raise AssertionError("training asks for an epoch")

    def in_epoch(self, epoch: int, index: int) -> Example:
        return Example(messages=({"role": "assistant", "content": "yes"},), source=f"epoch {epoch}, {index}")


def asked(monkeypatch: pytest.MonkeyPatch, rank: int, ranks: int, skip: int = 0) -> list[str]:
    """What a rank trains of them in the third epoch, padding apart."""
    rows, found = Rows(ByEpoch(), ranks), []
    for index in itertools.chain(*batches(monkeypatch, 3, 1, ranks, rank, epoch=2, length=rows.length, skip=skip)):
        example, padding, *_ = rows[index]["coordcore_example"]
        found += [] if padding else [example.source]
    return found


def test_a_source_is_told_the_epoch_by_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = asked(monkeypatch, 0, 1)
    first, second = (asked(monkeypatch, rank, 2) for rank in range(2))
    assert sorted(alone) == [f"epoch 2, {index}" for index in range(3)]
    assert [first[0], second[0], first[1]] == alone
    assert len(second) == 1


def test_a_continued_epoch_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, 0, 1, skip=2) == asked(monkeypatch, 0, 1)[2:]


def test_five_examples_on_two_ranks_train_what_a_single_rank_trains(coord_base: Path, tmp_path: Path) -> None:
    # An epoch ends with a step in which the second rank has nothing but padding; example 3 has no box.
    sections = {"data": {"fake_boxes": {"train": 5}}, "train": {"steps": 4}}
    alone = support.train(tmp_path / "alone", coord_base, **sections)
    sections["train"] |= {"batch_size": 1, "accumulation": 2}
    run = support.train(tmp_path / "ranks", coord_base, **sections, launch={"nproc_per_node": 2})

    assert support.losses(run) == pytest.approx(support.losses(alone), rel=1e-6)
    trained, expected = support.weights(run), support.weights(alone)
    assert trained.keys() == expected.keys()
    for name, tensor in trained.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6, msg=name)
