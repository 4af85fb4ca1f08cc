"""What a manifest says of its sources: structured as the builders' own sections, and refused at its place."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from sources import boxes, config, structured

from coordcore import COORD_SUPERVISION, COORD_TOKENS, Problem
from coordcore.components import LENGTHS
from coordcore.manifest.sections import Manifest, Model, Train
from coordcore.testing.plugin import TinyBoxesConfig
from coordcore_mixture import plugin

ONE = boxes()


@pytest.mark.parametrize(
    ("sources", "problem"),
    [
        ({}, "sources: a mixture needs a source, got none; add [data.mixture.sources.<name>] with a builder"),
        (3, "sources: must be a table, each value a table, got 3"),
        ({"a": 3}, "sources.a: must be a table, got 3"),
        ({"a": {}}, "sources.a.builder: required key is missing: the data builder, as it stands in [data.<builder>]"),
        (
            {"a": {"builder": "tiny_boxe"}},
            "sources.a.builder: no plugin offers this data builder; did you mean 'tiny_boxes'? available: ",
        ),
        ({"a": {"builder": 3}}, "sources.a.builder: must be a string, got 3; write it in quotes"),
        (
            {"a": {"builder": "mixture"}},
            "sources.a.builder: a mixture is no source of a mixture; name its sources here, beside the others",
        ),
        ({"a": boxes(weigth=1.0)}, "sources.a.weigth: unknown key; did you mean 'weight'?"),
        ({"a": boxes(weight=0.0)}, "sources.a.weight: must be > 0, got 0.0"),
        ({"a": boxes(weight=-1)}, "sources.a.weight: must be > 0, got -1.0"),
        ({"a": boxes(weight=float("nan"))}, "sources.a.weight: must be finite, got nan"),
        ({"a": boxes(weight=float("inf"))}, "sources.a.weight: must be finite, got inf"),
        ({"a": boxes(weight="2")}, "sources.a.weight: must be a number, got '2'; write it without quotes"),
        ({"a": boxes(records=0)}, "sources.a.records: must be > 0, got 0"),
        ({"a": boxes(records=10**12)}, "sources.a.records: must be <= 1000000000, got 1000000000000"),
        ({"a": boxes(records=2.5)}, "sources.a.records: must be an integer, got 2.5"),
        (
            {"a": boxes(weight=2.0, records=5)},
            "sources.a.records: a source has a weight or a number of records, got 2.0 and 5; keep one",
        ),
        (
            {"a": boxes(weight=2.0), "b": ONE},
            "sources: a weight is a share among sources that have one, got one for a alone; give others one too, "
            "or write a's records in an epoch",
        ),
        (
            {"a": boxes(weight=1e-12), "b": boxes(weight=3.0)},
            "sources: a would give less than one record in 1,000,000,000, got a weight of 1e-12 of 3; give it more, or "
            "leave the source out",
        ),
        ({"my set": ONE}, "sources: a source's name is a letter, then letters, digits and underscores, got 'my set'"),
        ({"é": ONE}, "sources: a source's name is a letter, then letters, digits and underscores, got 'é'"),
        ({"a": boxes("many")}, "sources.a.settings.train: must be an integer, got 'many'"),
        ({"a": boxes(0)}, "sources.a.settings.train: must be > 0, got 0"),
        (
            {"a": {"builder": "tiny_boxes", "settings": {"trian": 3}}},
            "sources.a.settings.trian: unknown key; did you mean 'train'?",
        ),
        ({"a": {"builder": "tiny_boxes", "settings": 3}}, "sources.a.settings: must be a table, got 3"),
    ],
)
def test_a_bad_source_is_refused_where_it_stands(sources: Any, problem: str) -> None:
    found = structured(sources)[1]
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_everything_is_told_at_once() -> None:
    _, problems = structured({"a": boxes(0, weight=-1.0), "b": {"builder": "none"}})
    assert [problem.split(":")[0] for problem in problems] == [
        "sources.a.weight",
        "sources.a.settings.train",
        "sources.b.builder",
    ]


def test_the_settings_are_the_builder_s_own() -> None:
    found = config(a=boxes(3), b={"builder": "tiny_boxes"})
    assert [source.settings for source in found.sources.values()] == [
        TinyBoxesConfig(train=3, validation=2),
        TinyBoxesConfig(),
    ]


def test_a_lone_source_may_have_a_weight() -> None:
    assert config(a=boxes(weight=2.0)).sources["a"].weight == 2.0


def test_a_builder_that_fails_at_its_settings_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: object) -> None:
        raise KeyError("oh")

    monkeypatch.setattr(TinyBoxesConfig, "__attrs_post_init__", fail, raising=False)
    monkeypatch.setattr(TinyBoxesConfig, "__init__", lambda self, **_values: self.__attrs_post_init__())
    assert structured({"a": ONE})[1] == [
        "sources.a.settings: plugin coordcore-testing cannot take these settings: KeyError: 'oh'; "
        "tell its authors, or leave the source out"
    ]


def test_what_is_wrong_with_a_file_of_a_source_names_the_source() -> None:
    (source,) = config(a=ONE).sources.values()
    found = Problem(path="", message="holds no records; name another file", file="empty.jsonl")
    assert str(plugin._told(found, "a", source)) == (
        "empty.jsonl: holds no records; name another file (asked for by data.mixture.sources.a)"
    )
    assert plugin._told(Problem(path="data.tiny_boxes.train", message=""), "a", source).path == (
        "data.mixture.sources.a.settings.train"
    )


def test_a_mixture_provides_and_requires_what_its_sources_do() -> None:
    [component] = plugin.coordcore_data_builders()
    found = config(a=boxes(), b=boxes())
    assert {*component.provides(found)} == {COORD_TOKENS, LENGTHS}
    assert [*component.requires(found)] == [COORD_SUPERVISION]


@pytest.mark.parametrize("grouped", [False, True])
def test_a_source_that_tells_no_lengths_is_refused_by_name_where_they_are_asked(grouped: bool) -> None:
    [component] = plugin.coordcore_data_builders()
    found = config(told=boxes(), silent=boxes())
    silent = attrs.evolve(found.sources["silent"].chosen, provides=(COORD_TOKENS,))
    sources = {**found.sources, "silent": attrs.evolve(found.sources["silent"], chosen=silent)}
    run = Manifest(name="m", model=Model(base="base"), train=Train(group_by_length=grouped))
    problems = [str(problem) for problem in component.check(attrs.evolve(found, sources=sources), run)]
    assert problems == grouped * [
        "data.mixture.sources.silent: the examples of tiny_boxes do not tell how long they are before they are made "
        "(it provides no 'lengths'), and train.group_by_length asks them; leave that out, or set packing instead"
    ]


@pytest.mark.parametrize(
    ("limits", "most", "told"),
    [
        ((4096, 1024), None, "no source has images of more than 4096 pixels"),
        ((4096, 1024), 8192, "up to 8192 (train.max_pixels)"),
        ((4096, 1024), 4096, ""),
        ((4096, None), None, ""),
    ],
)
def test_a_limit_that_the_checkpoint_would_not_have_is_told(
    limits: tuple[int, int | None], most: int | None, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (boxes(**({} if size is None else {"max_pixels": size})) for size in limits)
    run = Manifest(name="test", model=Model(base="base"), train=Train(max_pixels=most))
    (mixture,) = plugin.coordcore_data_builders()
    assert list(mixture.check(config(a=first, b=second), run)) == []
    assert (told in caplog.text) if told else not caplog.text
