"""Discovery: what is loaded, what is not, and why."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest
from fakes import Empty, EntryPoint, component, found, module, offering

from coordcore import Command, Component, Problem, hookimpl, kinds
from coordcore.discovery import discover
from coordcore.plugins import Plugins


def lines(plugins: Plugins) -> list[str]:
    """Everything that is known of the plugins beside the core's own, in order."""
    offers = [[f"{kind}.{item.name}" for kind, item in info.components] for info in plugins.infos]
    return [
        f"{info.distribution} {info.version} {info.status}: {info.reason or ', '.join(offer)}"
        for info, offer in zip(plugins.infos, offers, strict=True)
    ][1:]


def never() -> ModuleType:
    raise AssertionError("this plugin must not be imported")


def test_the_core_offers_its_own_components_like_any_distribution() -> None:
    (core,) = found().infos

    assert (core.distribution, core.status) == ("coordcore", "ready")
    assert [f"{kind}.{item.name}" for kind, item in core.components] == [
        "format.coordjson",
        "template.plain",
        "loss.text_ce",
        "optimizer.adamw",
    ]


def test_plugins_are_listed_by_distribution_with_normalised_names() -> None:
    plugins = found(
        EntryPoint(
            distribution="My_Losses", version="2.1", plugin=offering(kinds.LOSS, component("b"), component("a"))
        ),
        EntryPoint(distribution="a.Data", plugin=offering(kinds.DATA, component("records"))),
    )

    assert lines(plugins) == ["a-data 1.0 ready: data.records", "my-losses 2.1 ready: loss.b, loss.a"]
    assert plugins.names(kinds.LOSS) == ["a", "b", "text_ce"]
    assert plugins.get(kinds.LOSS, "a").name == "a"
    assert plugins.distribution(kinds.LOSS, "a") == "my-losses"
    assert plugins.version("my-losses") == "2.1"


@pytest.mark.parametrize(
    ("requires", "reason"),
    [
        (["coordcore>=9"], "needs coordcore>=9, this is 0.1.0"),
        (["coordcore<0.1"], "needs coordcore<0.1, this is 0.1.0"),
        (["torch", "CoordCore==0.7.*"], "needs coordcore==0.7.*, this is 0.1.0"),
        (
            ["torch"],
            'does not say which coordcore it needs; its dependencies must name it: "coordcore>=0.1,<0.2"',
        ),
        (
            None,
            'does not say which coordcore it needs; its dependencies must name it: "coordcore>=0.1,<0.2"',
        ),
        (
            ["coordcore>=0.1; extra == 'tests'"],
            'does not say which coordcore it needs; its dependencies must name it: "coordcore>=0.1,<0.2"',
        ),
        (
            ["coordcore >= = 1"],
            "its metadata holds an invalid requirement: 'coordcore >= = 1'",
        ),
    ],
)
def test_an_unfit_version_is_found_before_the_import(requires: list[str] | None, reason: str) -> None:
    plugins = found(EntryPoint(plugin=never, requires=requires))

    assert lines(plugins) == [f"coordcore-made-up 1.0 incompatible: {reason}"]


@pytest.mark.parametrize(
    "requirement", ["coordcore>=0.1", "coordcore", "coordcore[train]>=0.1,<0.2", "coordcore; python_version>'3'"]
)
def test_a_fitting_version_is_loaded(requirement: str) -> None:
    plugins = found(EntryPoint(requires=[requirement], plugin=offering(kinds.LOSS, component("x"))))

    assert lines(plugins) == ["coordcore-made-up 1.0 ready: loss.x"]


def test_a_plugin_for_another_interface_is_named_and_not_imported() -> None:
    plugins = found(EntryPoint(plugin=never, group="coordcore.v2"))

    assert lines(plugins) == [
        "coordcore-made-up 1.0 incompatible: needs another interface, coordcore.v2; coordcore 0.1.0 offers coordcore.v1"
    ]


def test_a_plugin_that_serves_two_interfaces_is_loaded_for_this_one() -> None:
    ours = EntryPoint(plugin=offering(kinds.LOSS, component("x")))
    plugins = found(EntryPoint(plugin=never, group="coordcore.v2"), ours)

    assert lines(plugins) == ["coordcore-made-up 1.0 ready: loss.x"]


def test_entry_points_of_other_projects_are_none_of_ours() -> None:
    assert (
        lines(found(EntryPoint(plugin=never, group="coordcore.extras"), EntryPoint(plugin=never, group="pytest11")))
        == []
    )


def test_a_blocked_plugin_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDCORE_BLOCK", "other, Made.Two")
    plugins = found(
        EntryPoint(plugin=never, distribution="made-one"),
        EntryPoint(plugin=never, distribution="made_two"),
        block=("Made_One",),
    )

    assert lines(plugins) == [
        "made-one 1.0 blocked: named in [plugins] block",
        "made-two 1.0 blocked: named in COORDCORE_BLOCK",
    ]


def misspelt_hook() -> ModuleType:
    """unknown hook 'coordcore_loss'; did you mean 'coordcore_losses'?"""
    return module(coordcore_loss=hookimpl(lambda: []))


def hook_of_nobody() -> ModuleType:
    """unknown hook 'train'; known: coordcore_answer_formats, coordcore_check, coordcore_commands, \
coordcore_data_builders, coordcore_engine, coordcore_evaluators, coordcore_losses, coordcore_optimizers, \
coordcore_run_ended, coordcore_step_ended, coordcore_surgeries, coordcore_template_adapters"""
    return module(train=hookimpl(lambda: []))


def forgotten_marker() -> ModuleType:
    """coordcore_losses is not marked with @coordcore.hookimpl"""
    return module(coordcore_losses=lambda: [])


def no_hooks() -> ModuleType:
    """it holds no function marked with @coordcore.hookimpl"""
    return module(x=1)


def wrong_arguments() -> ModuleType:
    """coordcore_check takes 'runs', which the hook coordcore_check does not give; it gives run"""

    def coordcore_check(runs: Any) -> list[Problem]:
        return []

    return module(coordcore_check=hookimpl(coordcore_check))


def superfluous_arguments() -> ModuleType:
    """coordcore_losses takes 'config', which the hook coordcore_losses does not give; it gives no arguments"""
    return module(coordcore_losses=hookimpl(lambda config: []))


def no_iterable() -> ModuleType:
    """coordcore_losses returned 3; it must return an iterable of Component"""
    return module(coordcore_losses=hookimpl(lambda: 3))


def no_components() -> ModuleType:
    """coordcore_losses returned 'h' in its iterable; it must hold Component objects"""
    return module(coordcore_losses=hookimpl(lambda: "huber"))


def failing_hook() -> ModuleType:
    """KeyError: 'no such table'"""
    return module(coordcore_losses=hookimpl(lambda: {}["no such table"]))


def failing_generator() -> ModuleType:
    """ValueError: half way"""

    def coordcore_losses() -> Iterator[Any]:
        yield component("first")
        raise ValueError("half way")

    return module(coordcore_losses=hookimpl(coordcore_losses))


def name_twice() -> ModuleType:
    """offers loss.x twice"""
    return offering(kinds.LOSS, component("x"), component("x"))


def bad_name() -> ModuleType:
    """ValueError: a name must be lower-case letters, digits and underscores, starting with a letter, \
got 'Soft-CE'"""
    return offering(kinds.LOSS, component("Soft-CE"))


def two_line_summary() -> ModuleType:
    """ValueError: summary must be one line of printable text, got 'two\\nlines'"""
    return offering(kinds.LOSS, Component(name="x", config=Empty, build=print, summary="two\nlines"))


def missing_dependency() -> ModuleType:
    """ModuleNotFoundError: No module named 'not_installed_anywhere'"""
    import not_installed_anywhere  # noqa: F401

    return module()


def exit_on_import() -> ModuleType:
    """SystemExit: needs a licence"""
    sys.exit("needs a licence")


def type_for_checkers_only() -> ModuleType:
    """config class Config of 'x': name 'Tensor' is not defined; its annotations must be importable at run time, \
not under TYPE_CHECKING"""

    @attrs.frozen(kw_only=True)
    class Config:
        weight: Tensor  # noqa: F821 - the mistake

    return offering(kinds.LOSS, component("x", Config))


BROKEN = [
    misspelt_hook,
    hook_of_nobody,
    forgotten_marker,
    no_hooks,
    wrong_arguments,
    superfluous_arguments,
    no_iterable,
    no_components,
    failing_hook,
    failing_generator,
    name_twice,
    bad_name,
    two_line_summary,
    missing_dependency,
    exit_on_import,
    type_for_checkers_only,
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda item: item.__name__)
def test_a_broken_plugin_is_recorded_with_its_reason(broken: Any) -> None:
    plugins = found(
        EntryPoint(plugin=broken),
        EntryPoint(distribution="whole", plugin=offering(kinds.LOSS, component("fine"))),
    )

    assert lines(plugins) == [f"coordcore-made-up 1.0 failed: {broken.__doc__}", "whole 1.0 ready: loss.fine"]
    assert plugins.names(kinds.LOSS) == ["fine", "text_ce"]


def test_an_interrupt_while_a_plugin_is_imported_is_no_plugin_failure() -> None:
    def interrupted() -> ModuleType:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found(EntryPoint(plugin=interrupted))


def test_two_entry_points_for_one_module_are_a_mistake() -> None:
    plugin = offering(kinds.LOSS, component("x"))
    plugins = found(EntryPoint(name="a", plugin=plugin), EntryPoint(name="b", plugin=plugin))

    assert lines(plugins) == [
        "coordcore-made-up 1.0 ready: loss.x",
        "coordcore-made-up 1.0 failed: another entry point names the same object",
    ]


def test_of_a_name_offered_twice_neither_wins() -> None:
    plugins = found(
        EntryPoint(distribution="one", plugin=offering(kinds.LOSS, component("same"), component("mine"))),
        EntryPoint(distribution="two", plugin=offering(kinds.LOSS, component("same"))),
        EntryPoint(distribution="three", plugin=offering(kinds.DATA, component("same"))),
    )

    assert [str(conflict) for conflict in plugins.conflicts] == [
        "loss.same is offered by one and two; uninstall one or list it in [plugins] block"
    ]
    assert plugins.names(kinds.LOSS) == ["mine", "text_ce"]
    assert plugins.names(kinds.DATA) == ["same"]


def test_nobody_replaces_a_component_of_the_core() -> None:
    plugins = found(EntryPoint(distribution="bold", plugin=offering(kinds.LOSS, component("text_ce"))))

    assert [conflict.distributions for conflict in plugins.conflicts] == [("coordcore", "bold")]
    assert plugins.names(kinds.LOSS) == []


def test_an_installed_distribution_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    info = folder / "stranger_loss-3.0.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\nName: stranger-loss\nVersion: 3.0\nRequires-Dist: coordcore>=0.1\n"
    )
    info.joinpath("entry_points.txt").write_text("[coordcore.v1]\nhuber = stranger_loss_plugin\n")
    folder.joinpath("stranger_loss_plugin.py").write_text(
        "import attrs, coordcore\n"
        "@attrs.frozen(kw_only=True)\n"
        "class Huber:\n"
        "    delta: float = coordcore.option(default=1.0, help='where it turns linear')\n"
        "@coordcore.hookimpl\n"
        "def coordcore_losses():\n"
        "    return [coordcore.Component(name='huber', config=Huber, build=print, summary='Huber loss')]\n"
    )
    monkeypatch.syspath_prepend(folder)
    plugins = discover()

    assert "stranger-loss 3.0 ready: loss.huber" in lines(plugins)


RESERVED = [("run", "coordcore-train"), ("eval", "coordcore-detection"), ("data", "coordcore-data")]


@pytest.mark.parametrize(("name", "owner"), RESERVED)
def test_nobody_takes_a_command_from_the_project(name: str, owner: str) -> None:
    own, foreign = (Command(name=name, load=lambda: print, summary=summary) for summary in ("own", "foreign"))
    plugins = found(
        EntryPoint(distribution="a-strange", plugin=module(coordcore_commands=hookimpl(lambda: [foreign]))),
        EntryPoint(distribution=owner, plugin=module(coordcore_commands=hookimpl(lambda: [own]))),
    )

    assert plugins.commands() == {name: own}
    assert [str(conflict) for conflict in plugins.conflicts] == [
        f"command.{name} is {owner}'s own; that of a-strange is left out; uninstall it or list it in COORDCORE_BLOCK"
    ]


WRONG_MEMBERS: list[tuple[dict[str, Any], str]] = [
    ({"units": "px"}, "units must be a mapping of part to unit, got 'px'"),
    ({"units": {"w1": 3}}, "units must be one line of printable text, got 3"),
    ({"units": {"w1": "two\nlines"}}, "units must be one line of printable text"),
    ({"soft_target": 2.0}, r"soft_target must be a function, got 2\.0"),
    ({"provides": ["coord-tokens"]}, "provides must be a function, got"),
    ({"check": None}, "check must be a function, got None"),
]


@pytest.mark.parametrize(("members", "message"), WRONG_MEMBERS)
def test_what_a_component_states_wrongly_is_refused(members: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        component("x", **members)
