"""The examples of a mixture."""

from __future__ import annotations

import pickle
from collections import Counter

import attrs
import pytest
from sources import boxes, opened

from coordcore import Example, InputError
from coordcore.testing.plugin import TinyBoxesBuilder
from coordcore_mixture.data import MixedExamples, Mixture, NamedExamples


def seen(source: MixedExamples, epoch: int) -> list[str]:
    return [source.in_epoch(epoch, index).source for index in range(len(source))]


def train(seed: int = 0, **sources: object) -> MixedExamples:
    found = opened(seed, **sources).train()
    assert isinstance(found, MixedExamples)
    return found


def test_an_example_is_its_source_s_own_but_for_its_place() -> None:
    mixed = train(a=boxes(4), b=boxes(4))
    own = opened(a=boxes(4)).builders["a"].train()
    for index in range(8):
        example = mixed[index]
        name, place = example.source.split(": ")
        original = own[int(place.removeprefix("tiny box "))]
        assert name in ("a", "b")
        assert (example.messages, example.geometries) == (original.messages, original.geometries)
        assert example.images[0].tobytes() == original.images[0].tobytes()


def test_without_a_word_an_epoch_is_every_record_once() -> None:
    for epoch in (0, 3):
        assert Counter(seen(train(a=boxes(5), b=boxes(3)), epoch)) == Counter(
            [*(f"a: tiny box {number}" for number in range(5)), *(f"b: tiny box {number}" for number in range(3))]
        )


def test_weights_are_the_proportions_of_an_epoch() -> None:
    found = seen(train(a=boxes(4, weight=3), b=boxes(12, weight=1)), 0)
    by_source = Counter(place.split(":")[0] for place in found)
    assert by_source == {"a": 12, "b": 4}
    assert set(Counter(place for place in found if place.startswith("a")).values()) == {3}
    assert Counter(place.split(":")[0] for place in found[:8]) == {"a": 6, "b": 2}


def test_a_source_taken_in_part_goes_on_in_the_next_epoch() -> None:
    mixed = train(a=boxes(4), b=boxes(9, records=3))
    drawn = [place for epoch in range(3) for place in seen(mixed, epoch) if place.startswith("b")]
    assert sorted(drawn) == [f"b: tiny box {number}" for number in range(9)]
    assert seen(mixed, 0) != seen(mixed, 1)


def test_a_source_that_draws_anew_in_each_epoch_does_so_in_each_pass() -> None:
    class Asked:
        """Four examples that say which pass they were asked in."""

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int, /) -> Example:
            raise AssertionError("a source with epochs is asked by them")

        def in_epoch(self, epoch: int, index: int) -> Example:
            return Example(messages=(), source=f"{index} in pass {epoch}")

    source = NamedExamples(name="a", source=Asked(), max_pixels=None)
    mixed = MixedExamples(sources={"a": source}, counts={"a": 6}, seed=0)
    drawn = [place for epoch in range(2) for place in seen(mixed, epoch)]
    assert sorted(drawn) == [f"a: {index} in pass {turn}" for index in range(4) for turn in range(3)]


def test_the_run_s_seed_decides_what_is_taken() -> None:
    first, second, again = (seen(train(seed, a=boxes(50, records=10)), 0) for seed in (0, 1, 0))
    assert first == again != second


def test_a_source_travels_to_another_process_without_a_record() -> None:
    small = train(a=boxes(4), b=boxes(9, records=3))
    large = train(a=boxes(10**9), b=boxes(10**9, records=10**8))
    assert len(large) == 11 * 10**8
    assert len(pickle.dumps(large)) < len(pickle.dumps(small)) + 50
    assert seen(pickle.loads(pickle.dumps(small)), 2) == seen(small, 2)


def test_held_out_examples_come_one_source_after_another() -> None:
    found = opened(a=boxes(4, validation=2), b=boxes(7, validation=1)).validation()
    assert found is not None
    assert [found[index].source for index in range(len(found))] == ["a: tiny box 4", "a: tiny box 5", "b: tiny box 7"]
    with pytest.raises(IndexError, match="example 3 of 3"):
        found[3]


def test_sources_without_held_out_examples_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TinyBoxesBuilder, "validation", lambda self: None)
    assert opened(a=boxes()).validation() is None


@pytest.mark.parametrize("index", [-1, 7])
def test_an_example_outside_the_epoch_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError, match=f"example {index} of 7"):
        train(a=boxes(4), b=boxes(3))[index]


def test_what_a_builder_refuses_names_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise InputError("train.jsonl: cannot be read")

    monkeypatch.setattr(TinyBoxesBuilder, "__attrs_post_init__", refuse, raising=False)
    monkeypatch.setattr(TinyBoxesBuilder, "__init__", lambda self, **_values: self.__attrs_post_init__())
    with pytest.raises(InputError, match=r"^sources\.a: train\.jsonl: cannot be read$"):
        opened(a=boxes())


def test_an_example_is_of_its_source_s_group_and_limit() -> None:
    mixture = opened(a=boxes(4, max_pixels=4096), b=boxes(4))
    held_out = mixture.validation()
    assert held_out is not None
    examples = [*map(mixture.train().__getitem__, range(8)), *map(held_out.__getitem__, range(4))]
    assert {(example.group, example.max_pixels) for example in examples} == {("a", 4096), ("b", None)}
    assert all(example.source.startswith(f"{example.group}: ") for example in examples)
    assert mixture.groups == ["a", "b"]


@attrs.frozen
class Dated:
    """Three examples that say in which epoch of their source they are asked for."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int, /) -> Example:
        raise AssertionError("asked without an epoch")

    def in_epoch(self, epoch: int, index: int) -> Example:
        return Example(messages=(), source=f"{epoch}:{index}")


def test_a_source_with_epochs_is_in_a_new_one_with_every_pass_over_it() -> None:
    source = NamedExamples(name="a", source=Dated(), max_pixels=None)
    mixed = MixedExamples(sources={"a": source}, counts={"a": 2}, seed=0)
    passes = [place.split(": ")[1].split(":") for epoch in range(3) for place in seen(mixed, epoch)]
    assert [epoch for epoch, _ in passes] == ["0", "0", "0", "1", "1", "1"]
    assert {index for _, index in passes[:3]} == {index for _, index in passes[3:]} == {"0", "1", "2"}


def test_the_prompts_are_those_of_the_first_source_that_has_them() -> None:
    class Asking:
        def __init__(self, **prompts: str) -> None:
            self.prompts = prompts

    builders = {"a": Asking(detect="All."), "b": Asking(detect="Every.", refer="Find {phrase}.")}
    mixed = Mixture(settings={}, builders=builders, seed=0)
    assert mixed.prompts == {"detect": "All.", "refer": "Find {phrase}."}
    assert Mixture(settings={}, builders={"c": object()}, seed=0).prompts is None


class Long:
    """Four examples whose length says what they were asked for, with an image of 640 x 480."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int, /) -> Example:
        raise AssertionError("a length is told without making the example")

    def length(self, epoch: int, index: int) -> tuple[int, list[tuple[int, int]]]:
        return 100 * epoch + index, [(640, 480)]


def test_a_length_is_that_of_the_example_which_the_epoch_has_there() -> None:
    named = {name: NamedExamples(name=name, source=Long(), max_pixels=None) for name in ("a", "b")}
    mixed = MixedExamples(sources=named, counts={"a": 6, "b": 2}, seed=0)
    told = [mixed.length(epoch, index)[0] for epoch in range(2) for index in range(8)]
    # Of a three passes, of b one.
    assert sorted(told) == sorted([*(100 * turn + k for turn in range(3) for k in range(4)), *range(4)])


def test_images_are_told_as_their_source_has_them_reduced() -> None:
    source = NamedExamples(name="a", source=Long(), max_pixels=640 * 480 // 4)
    assert source.length(0, 1) == (1, [(320, 240)])
    assert NamedExamples(name="a", source=Long(), max_pixels=10**7).length(0, 1) == (1, [(640, 480)])
