"""Rules that no single section can see: capabilities, claims, what plugins and the engine report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from fakes import EntryPoint, component, found, offering, usual

from coordcore import COORD_SUPERVISION, COORD_TOKENS, Problem, hookimpl, kinds
from coordcore.check import check, notes
from coordcore.manifest import Loaded, Manifest, load
from coordcore.plugins import Plugins
from coordcore.records.answers import COORDJSON

PLAIN = '[model]\nbase = "base"\n[data.plain_text]\n[loss.text_ce]\n'
BOXES = '[model]\nbase = "base"\n[data.boxes]\ntrain = "boxes.jsonl"\n[loss.fuzzy]\n'
NO_ENGINE = (
    "the base checkpoint and [train.swift] were not checked: no engine is installed; pip install 'coordcore[train]'"
)


@pytest.fixture(autouse=True)
def _records() -> None:
    Path("boxes.jsonl").touch()


def loaded(text: str, *overrides: str, plugins: Plugins | None = None) -> Loaded:
    Path("m.toml").write_text(text)
    return load("m.toml", overrides, plugins or usual())


def problems(text: str, *overrides: str, plugins: Plugins | None = None) -> list[str]:
    result = loaded(text, *overrides, plugins=plugins)
    return [str(problem).replace(str(Path.cwd()), "{cwd}") for problem in check(result)]


@pytest.mark.parametrize("text", [PLAIN, BOXES])
def test_a_right_manifest_has_no_problems(text: str) -> None:
    assert problems(text) == []
    assert notes(loaded(text)) == [NO_ENGINE]


# --- components -----------------------------------------------------------------------------------------------------


def test_coord_tokens_need_a_loss_that_supervises_them() -> None:
    assert problems(BOXES.replace("[loss.fuzzy]", "[loss.text_ce]")) == [
        "m.toml:3: data.boxes: coord tokens need a loss that supervises them, and no component of this run provides "
        "'coord-supervision'; add [loss.fuzzy]"
    ]


def test_coord_tokens_need_one_even_where_their_builder_forgot_to_say_so() -> None:
    forgetful = component("b", provides=lambda _config: [COORD_TOKENS])
    plugins = found(EntryPoint(plugin=offering(kinds.DATA, forgetful)))

    assert problems('[model]\nbase = "base"\n[data.b]\n[loss.text_ce]\n', plugins=plugins) == [
        "m.toml:3: data.b: coord tokens need a loss that supervises them, and no component of this run provides "
        "'coord-supervision'; set one so that it does, or install a plugin that does"
    ]


def test_plain_cross_entropy_over_coord_positions_meets_the_guard() -> None:
    assert problems(BOXES.replace("[loss.fuzzy]", "[loss.text_ce]\ncoord_positions = true")) == []


def test_a_strangers_loss_meets_the_guard_by_its_capability_alone() -> None:
    boxes = component("b", requires=lambda _config: [COORD_SUPERVISION])
    stranger = component("strange", provides=lambda _config: [COORD_SUPERVISION])
    plugins = found(
        EntryPoint(plugin=offering(kinds.DATA, boxes)),
        EntryPoint(distribution="stranger", plugin=offering(kinds.LOSS, stranger)),
    )

    assert problems('[model]\nbase = "base"\n[data.b]\n[loss.strange]\n', plugins=plugins) == []


def test_a_capability_that_nobody_provides_is_named() -> None:
    needy = component("needy", requires=lambda _config: ["depth-maps"])
    plugins = found(EntryPoint(plugin=offering(kinds.DATA, needy)))

    assert problems('[model]\nbase = "base"\n[data.needy]\n[loss.text_ce]\n', plugins=plugins) == [
        "m.toml:3: data.needy: it needs 'depth-maps', and no component of this run provides 'depth-maps'; "
        "set one so that it does, or install a plugin that does"
    ]


def test_a_data_builder_is_not_to_be_added_to_another() -> None:
    boxes = component("boxes", provides=lambda _config: [COORD_TOKENS])
    needy = component("needy", requires=lambda _config: [COORD_TOKENS])
    plugins = found(
        EntryPoint(plugin=offering(kinds.DATA, component("b"), boxes)),
        EntryPoint(distribution="stranger", plugin=offering(kinds.LOSS, needy)),
    )

    assert problems('[model]\nbase = "base"\n[data.b]\n[loss.needy]\n', plugins=plugins) == [
        "m.toml:4: loss.needy: it needs 'coord-tokens', and no component of this run provides 'coord-tokens'; "
        "set one so that it does, or install a plugin that does"
    ]


def test_two_surgeries_must_not_change_one_module() -> None:
    assert problems(PLAIN + "[surgery.offset]\n[surgery.adapter]\n") == [
        "m.toml:6: surgery.adapter: changes language_model.embed_tokens, which surgery.offset changes too; keep one"
    ]


def test_surgeries_on_different_modules_go_together() -> None:
    plugins = found(
        EntryPoint(plugin=offering(kinds.DATA, component("plain_text"))),
        EntryPoint(
            distribution="surgeon",
            plugin=offering(
                kinds.SURGERY,
                component("a", claims=lambda _config: ["lm_head"]),
                component("b", claims=lambda _config: ["my_lm_head"]),
            ),
        ),
    )

    assert problems(PLAIN + "[surgery.a]\n[surgery.b]\n", plugins=plugins) == []


def test_what_plugins_report_is_placed_in_the_file() -> None:
    def coordcore_check(run: Manifest) -> list[Problem]:
        assert [selected.path for selected in run.of(kinds.LOSS)] == ["loss.text_ce"]
        return [Problem(path="train.steps", message=f"{run.train.steps} is too few")]

    critic = offering(kinds.DATA, component("plain_text"))
    vars(critic)["coordcore_check"] = hookimpl(coordcore_check)

    assert problems(PLAIN + "[train]\nsteps = 3\n", plugins=found(EntryPoint(plugin=critic))) == [
        "m.toml:6: train.steps: 3 is too few"
    ]


def test_a_component_checks_its_own_section_in_the_whole() -> None:
    def check_steps(_config: Any, run: Manifest) -> Iterator[Problem]:
        if run.train.steps is None:
            yield Problem(path="data.plain_text", message="needs train.steps; set it")

    plugins = found(EntryPoint(plugin=offering(kinds.DATA, component("plain_text", check=check_steps))))

    assert problems(PLAIN, plugins=plugins) == ["m.toml:3: data.plain_text: needs train.steps; set it"]
    assert problems(PLAIN + "[train]\nsteps = 3\n", plugins=plugins) == []


def test_missing_files_are_reported() -> None:
    Path("boxes.jsonl").unlink()

    assert problems(BOXES) == ["m.toml:4: data.boxes.train: no such file: {cwd}/boxes.jsonl"]


# --- evaluation, plugins ----------------------------------------------------------------------------------------------


def test_evaluating_checkpoints_needs_an_evaluator_and_checkpoints() -> None:
    assert problems(PLAIN, "train.evaluate_checkpoints=true") == [
        "--set train.evaluate_checkpoints=true: train.evaluate_checkpoints: there is no [eval] section to call; "
        "add one, or leave this out",
        "--set train.evaluate_checkpoints=true: train.evaluate_checkpoints: only the last checkpoint is saved, "
        "which is evaluated anyway; set train.save_every",
    ]


def test_blocking_what_is_not_installed_is_noted() -> None:
    assert notes(loaded(PLAIN + '\n[plugins]\nblock = ["coordcore-sotf-ce"]\n')) == [
        NO_ENGINE,
        "plugins.block: no installed plugin's distribution is called 'coordcore-sotf-ce'; blocks nothing",
    ]


def test_a_plugins_format_that_is_none_is_named() -> None:
    endless = attrs.evolve(COORDJSON, name="endless", between="")
    offered = attrs.evolve(component("endless"), build=lambda _config, _context: endless)
    plugins = usual(EntryPoint(plugin=offering(kinds.FORMAT, offered)))
    [problem] = problems(PLAIN + "[format.endless]\n", plugins=plugins)
    assert problem.startswith("m.toml:5: format.endless: is no answer format: between must not be empty; tell the")
