"""The resolved manifest loads again to the same, and the fingerprint sees what matters."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import tomli
from fakes import EntryPoint, component, module, usual

from coordcore import __version__, hookimpl, kinds, option
from coordcore.discovery import discover
from coordcore.manifest import Manifest, load
from coordcore.manifest.types import plain
from coordcore_train.run.resolved import fingerprint, resolved

FULL = """\
requires = ["packaging>=20"]
[model]
base = "Qwen/Qwen3-VL-2B-Instruct"
[vocab]
[coords]
quantisation = "qwen_1000"
[train]
steps = 10
betas = [0.9, 0.95]
[train.swift]
neftune_noise_alpha = 5.0
[output]
dir = "out"
[data.boxes]
train = "boxes.jsonl"
images = ["a", "b"]
[surgery.offset]
[surgery.adapter]
[loss.fuzzy]
scale = "log"
gate.hard = true
parts = { "my part" = 1.5 }
[loss.text_ce]
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def manifest(text: str = FULL, *overrides: str) -> Manifest:
    Path("m.toml").write_text(text)
    return load("m.toml", overrides, usual()).manifest


def test_a_resolved_manifest_loads_again_to_the_same_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = usual()
    Path("m.toml").write_text(FULL)
    first = load("m.toml", (), plugins).manifest
    Path("elsewhere").mkdir()
    Path("elsewhere/manifest.resolved.toml").write_text(resolved(first, plugins))
    monkeypatch.chdir("elsewhere")

    second = load("manifest.resolved.toml", (), plugins).manifest
    assert second == first
    assert fingerprint(second) == fingerprint(first)


def test_it_holds_every_default_and_absolute_paths() -> None:
    document = tomli.loads(resolved(manifest(), usual()))

    assert document["train"]["seed"] == 42
    assert document["vocab"] == {"initialiser": "digits", "seed": 0}
    assert document["output"]["dir"] == str(Path.cwd() / "out")
    assert document["data"]["boxes"] == {
        "train": str(Path.cwd() / "boxes.jsonl"),
        "images": [str(Path.cwd() / "a"), str(Path.cwd() / "b")],
        "mode": "dense",
    }
    assert document["loss"]["fuzzy"]["scale"] == "log"
    assert document["template"] == {"plain": {}}
    assert list(document["surgery"]) == ["offset", "adapter"]


def test_it_says_what_the_run_was_made_with() -> None:
    record = tomli.loads(resolved(manifest(), usual()))["resolved"]

    assert record["coordcore"] == __version__
    assert record["plugins"] == {"made-boxes": "1.0", "made-losses": "1.0", "made-surgery": "1.0"}
    assert (record["quantisation"]["name"], record["quantisation"]["bins"]) == ("qwen_1000", 1000)
    assert record["fingerprint"] == fingerprint(manifest())


@attrs.frozen(kw_only=True)
class Holding:
    """The settings of a component that holds others."""

    parts: Any = attrs.field(metadata={"key": False})


def test_it_says_the_version_of_whatever_has_a_part_in_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = module(coordcore_engine=hookimpl(lambda: SimpleNamespace(check=None, notes=None)))
    names = ("packaging", "rich", "attrs", "made-part", "made-bystander")
    others = {name: module(coordcore_commands=hookimpl(lambda: [])) for name in names}
    entry_points = [EntryPoint(distribution=name, plugin=plugin) for name, plugin in others.items()]
    monkeypatch.setenv("COORDCORE_BLOCK", "attrs")
    plugins = usual(EntryPoint(distribution="made-engine", plugin=engine), *entry_points)
    requires = """["packaging>=20", "attrs", "rich; python_version < '3'"]"""
    Path("m.toml").write_text(FULL)
    made = load("m.toml", [f"requires={requires}"], plugins).manifest
    part = attrs.evolve(made.selected[0], distribution="made-part")
    holder = attrs.evolve(part, distribution="made-boxes", config=Holding(parts={"a": part}))

    record = tomli.loads(resolved(attrs.evolve(made, selected=(holder, *made.selected[1:])), plugins))["resolved"]
    named = {"made-boxes", "made-engine", "made-losses", "made-part", "made-surgery", "packaging"}
    assert set(record["plugins"]) == named


def test_a_component_of_a_new_kind_stands_in_it() -> None:
    table = (*kinds.KINDS, kinds.Kind("reward", noun="reward", protocol="LossTerm", how_many="any"))
    plugin = module(
        coordcore_data_builders=hookimpl(lambda: [component("text")]),
        coordcore_rewards=hookimpl(lambda: [component("iou")]),
    )
    plugins = discover(entry_points=[EntryPoint(plugin=plugin)], kinds=table)
    Path("m.toml").write_text('[model]\nbase = "base"\n[data.text]\n[loss.text_ce]\n[reward.iou]\n')
    made = load("m.toml", (), plugins).manifest
    assert tomli.loads(resolved(made, plugins))["reward"] == {"iou": {}}
    assert fingerprint(made) != fingerprint(load("m.toml", ["drop=reward.iou"], plugins).manifest)


@pytest.mark.parametrize(
    "override",
    [
        "name=other", "output.dir=other", "output.merge=false", "launch.nproc_per_node=2", "launch.timeout=60",
        "train.log_every=1",
        "train.save_every=5", "train.eval_every=5", "train.keep=9", "train.workers=3", "train.threads=1",
        'requires=["attrs"]', 'plugins.block=["x"]', "train.steps=10",
    ],
)  # fmt: skip
def test_what_does_not_change_the_weights_does_not_change_the_fingerprint(override: str) -> None:
    assert fingerprint(manifest(FULL, override)) == fingerprint(manifest())


@pytest.mark.parametrize(
    "override",
    [
        "train.steps=11", "train.seed=1", "train.learning_rate=1e-3", "train.swift.x=1", "model.dtype=float32",
        "model.base=Qwen/other", "tuner.rank=4", "coords.quantisation=nearest_999", "vocab.seed=1", "drop=vocab",
        "drop=loss.text_ce", "loss.fuzzy.sigma=3", "loss.text_ce.weight=2", "data.boxes.limit=3", "data.plain_text={}",
    ],
)  # fmt: skip
def test_what_changes_the_weights_changes_the_fingerprint(override: str) -> None:
    assert fingerprint(manifest(FULL, override)) != fingerprint(manifest())


def test_the_order_of_surgeries_changes_the_fingerprint() -> None:
    swapped = FULL.replace("[surgery.offset]\n[surgery.adapter]\n", "[surgery.adapter]\n[surgery.offset]\n")

    assert fingerprint(manifest(swapped)) != fingerprint(manifest())


def test_the_order_of_keys_does_not_change_the_fingerprint() -> None:
    swapped = FULL.replace('scale = "log"\ngate.hard = true\n', 'gate.hard = true\nscale = "log"\n')

    assert fingerprint(manifest(swapped)) == fingerprint(manifest())


def test_a_key_that_came_later_changes_the_fingerprint_only_where_it_says_something_else() -> None:
    assert fingerprint(manifest(FULL, "model.type=auto")) == fingerprint(manifest())
    assert fingerprint(manifest(FULL, "model.type=qwen2_vl")) != fingerprint(manifest())


@attrs.frozen(kw_only=True)
class Kept:
    """A section of a plugin that got keys."""

    first: int = option(default=1, help="was there from the start")
    later: str = option(default="new", help="came later, with another default", before="old")
    last: str | None = option(default=None, help="came later, and None says what was done before")


@pytest.mark.parametrize(("later", "covered"), [("old", {"first": 1}), ("new", {"first": 1, "later": "new"})])
def test_before_is_what_was_done_without_the_key(later: str, covered: dict[str, object]) -> None:
    assert plain(Kept(later=later), added=False) == covered
    assert plain(Kept(later=later)) == {"first": 1, "later": later}
