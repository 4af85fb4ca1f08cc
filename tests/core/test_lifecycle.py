"""Hooks reach only whom they concern, and nothing a plugin does in one reaches a run that does not name it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest
from fakes import EntryPoint, component, found, module, offering

from coordcore import Problem, RunError, hookimpl, kinds, option
from coordcore.check import check
from coordcore.errors import ManifestError
from coordcore.manifest import Manifest, load
from coordcore.plugins import Plugins

NAMED = '[model]\nbase = "base"\n[data.mine]\n[loss.text_ce]\n'
FOREIGN = '[model]\nbase = "base"\n[data.other]\n[loss.text_ce]\n'


def with_hooks(**hooks: Callable[..., Any]) -> ModuleType:
    """A plugin that offers `data.mine` and has these hooks."""
    plugin = offering(kinds.DATA, component("mine"))
    vars(plugin).update({name: hookimpl(function) for name, function in hooks.items()})
    return plugin


def beside(plugin: ModuleType) -> Plugins:
    """The distribution "strange" with this plugin, and one that offers `data.other`."""
    other = offering(kinds.DATA, component("other"))
    return found(EntryPoint(distribution="strange", plugin=plugin), EntryPoint(distribution="other", plugin=other))


def problems(text: str, plugins: Plugins) -> list[str]:
    Path("m.toml").write_text(text)
    return [str(problem) for problem in check(load("m.toml", (), plugins))]


# --- checks -----------------------------------------------------------------------------------------------------------


def raises(run: Manifest) -> Any:
    """raised KeyError: 'x'"""
    raise KeyError("x")


def exits(run: Manifest) -> Any:
    """raised SystemExit: 3"""
    sys.exit(3)


def a_string(run: Manifest) -> Any:
    """returned 'all is well', which is no iterable of Problem objects"""
    return "all is well"


def a_number(run: Manifest) -> Any:
    """returned 3, which is no iterable of Problem objects"""
    return 3


def strings(run: Manifest) -> Any:
    """reported 'too few steps', which is no Problem"""
    return ["too few steps"]


def half_way(run: Manifest) -> Any:
    """raised ValueError: half way"""
    if run.name:
        raise ValueError("half way")
    yield Problem(path="train.steps", message="never")


@pytest.mark.parametrize("broken", [raises, exits, a_string, a_number, strings, half_way])
def test_a_broken_check_is_a_problem_of_the_run_that_names_the_plugin(broken: Any) -> None:
    plugins = beside(with_hooks(coordcore_check=broken))

    assert problems(NAMED, plugins) == [
        f"m.toml:3: data.mine: the check of plugin strange {broken.__doc__}; tell its authors, or leave it out"
    ]
    assert problems(FOREIGN, plugins) == []


@pytest.mark.parametrize("broken", [raises, exits, a_string, a_number, strings, half_way])
def test_a_broken_check_of_a_component_is_told_at_its_section(broken: Any) -> None:
    plugin = offering(kinds.DATA, component("mine", check=lambda _config, run: broken(run)))

    assert problems(NAMED, beside(plugin)) == [
        f"m.toml:3: data.mine: the check of plugin strange {broken.__doc__}; tell its authors, or leave it out"
    ]
    assert problems(FOREIGN, beside(plugin)) == []


def test_a_check_may_return_none() -> None:
    assert problems(NAMED, beside(with_hooks(coordcore_check=lambda run: None))) == []


def test_nobody_blames_a_run_that_does_not_name_it() -> None:
    def blame(run: Manifest) -> list[Problem]:
        return [Problem(path="data.other", message="use mine instead")]

    assert problems(FOREIGN, beside(with_hooks(coordcore_check=blame))) == []


def test_who_blames_the_section_of_another_plugin_is_named() -> None:
    blame = [Problem(path="loss.text_ce", message="too heavy"), Problem(path="data.mine", message="too light")]
    plugin = offering(kinds.DATA, component("mine", check=lambda _config, _run: blame))
    spoken = "m.toml:4: loss.text_ce: too heavy (says plugin strange)"

    assert problems(NAMED, beside(plugin)) == ["m.toml:3: data.mine: too light", spoken]
    assert problems(NAMED, beside(with_hooks(coordcore_check=lambda run: blame))) == [
        "m.toml:3: data.mine: too light",
        spoken,
    ]


def test_a_plugin_of_hooks_alone_is_named_in_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    def coordcore_check(run: Manifest) -> list[Problem]:
        return [Problem(path="train.steps", message="set it")]

    plugins = beside(module(coordcore_check=hookimpl(coordcore_check)))
    monkeypatch.setattr("coordcore.manifest.loading.metadata.version", lambda _name: "1.0")

    assert problems(FOREIGN, plugins) == []
    assert problems('requires = ["Strange >= 1.0"]\n' + FOREIGN, plugins) == ["m.toml: train.steps: set it"]


def test_capabilities_that_raise_do_not_break_a_foreign_run() -> None:
    def provides(_config: Any) -> list[str]:
        raise ValueError("no such table")

    needy = component("other", requires=lambda _config: ["depth-maps"])
    strange = offering(kinds.LOSS, component("x", provides=provides))
    plugins = found(EntryPoint(distribution="strange", plugin=strange), EntryPoint(plugin=offering(kinds.DATA, needy)))

    assert problems(FOREIGN, plugins) == [
        "m.toml:3: data.other: it needs 'depth-maps', and no component of this run provides 'depth-maps'; "
        "set one so that it does, or install a plugin that does"
    ]


QUESTIONS = ("provides", "requires", "claims")


def exits_at(config: Any) -> Any:
    """SystemExit: 3"""
    sys.exit(3)


def looks_up(config: Any) -> Any:
    """KeyError: 'x'"""
    raise KeyError("x")


def none_at_all(config: Any) -> Any:
    """TypeError: {question} must return an iterable of strings, got None"""
    return None


def one_string(config: Any) -> Any:
    """TypeError: {question} must return an iterable of strings, got 'coord-tokens'"""
    return "coord-tokens"


def numbers(config: Any) -> Any:
    """TypeError: {question} must return an iterable of strings, got [3]"""
    return [3]


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("broken", [exits_at, looks_up, none_at_all, one_string, numbers])
def test_what_a_component_says_wrongly_is_a_problem_of_its_section(question: str, broken: Any) -> None:
    offered: Any = component("mine", **{question: broken})

    with pytest.raises(ManifestError) as raised:
        problems(NAMED, beside(offering(kinds.DATA, offered)))
    fault = f"plugin strange cannot take this section: {broken.__doc__.format(question=question)}"
    assert str(raised.value) == f"m.toml:3: data.mine: {fault}; tell its authors, or leave it out"
    assert problems(FOREIGN, beside(offering(kinds.DATA, offered))) == []


def no_such_key(_instance: Any, _attribute: Any, value: Any) -> None:
    raise KeyError(value)


def exits_when_asked(value: Any) -> Any:
    print("bye")
    sys.exit(str(value))


@attrs.frozen(kw_only=True)
class LooksUp:
    size: int = option(default=1, validator=no_such_key, help="")


@attrs.frozen(kw_only=True)
class Exits:
    size: int = attrs.field(default=1, converter=exits_when_asked)


@attrs.frozen(kw_only=True)
class Crosses:
    size: int = 1

    def __attrs_post_init__(self) -> None:
        raise LookupError("no table")


@pytest.mark.parametrize(
    ("config", "told"), [(LooksUp, "KeyError: 2"), (Exits, "SystemExit: 2"), (Crosses, "LookupError: no table")]
)
def test_a_validator_or_converter_that_raises_is_a_problem_of_its_section(
    config: type[Any], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    plugins = beside(offering(kinds.DATA, component("mine", config)))

    with pytest.raises(ManifestError) as raised:
        problems(NAMED.replace("[data.mine]", "[data.mine]\nsize = 2"), plugins)
    fault = f"plugin strange cannot take this section: {told}; tell its authors, or leave it out"
    assert str(raised.value) == f"m.toml:3: data.mine: {fault}"
    assert capfd.readouterr().out == ""


# --- the life of a run ------------------------------------------------------------------------------------------------


def test_lifecycle_hooks_reach_the_plugins_that_are_named_in_their_order() -> None:
    seen: list[Any] = []

    def recorder(name: str) -> ModuleType:
        def step_ended(step: int, metrics: dict[str, float]) -> None:
            seen.append((name, step, metrics))

        def run_ended(run_dir: Path, error: BaseException | None) -> None:
            seen.append((name, run_dir, error))

        return module(coordcore_step_ended=hookimpl(step_ended), coordcore_run_ended=hookimpl(run_ended))

    hooks = found(*(EntryPoint(distribution=name, plugin=recorder(name)) for name in "cab")).hooks(["b", "a"])
    hooks.step_ended(3, {"loss": 1.0})
    hooks.run_ended(Path("runs/x"), None)

    assert seen == [
        ("a", 3, {"loss": 1.0}),
        ("b", 3, {"loss": 1.0}),
        ("a", Path("runs/x"), None),
        ("b", Path("runs/x"), None),
    ]


def test_what_a_hook_raises_stops_the_run_with_the_plugin_s_name() -> None:
    def step_ended(step: int) -> None:
        raise OSError("no route to host")

    plugins = found(EntryPoint(distribution="tracker", plugin=module(coordcore_step_ended=hookimpl(step_ended))))

    with pytest.raises(RunError, match=r"^plugin tracker: coordcore_step_ended raised OSError: no route to host$"):
        plugins.hooks(["tracker"]).step_ended(3, {})


def test_a_hook_cannot_end_a_run_as_if_it_were_done() -> None:
    plugins = found(EntryPoint(distribution="a", plugin=module(coordcore_run_ended=hookimpl(lambda: sys.exit(0)))))

    with pytest.raises(RunError, match=r"^plugin a: coordcore_run_ended raised SystemExit: 0$"):
        plugins.hooks(["a"]).run_ended(Path("runs/x"), None)


def test_a_hook_that_fails_keeps_nobody_else_from_hearing() -> None:
    seen: list[int] = []

    def fails(step: int) -> None:
        raise OSError("no route to host")

    plugins = found(
        EntryPoint(distribution="a", plugin=module(coordcore_step_ended=hookimpl(fails))),
        EntryPoint(distribution="b", plugin=module(coordcore_step_ended=hookimpl(lambda step: seen.append(step)))),
    )

    with pytest.raises(RunError, match="plugin a: "):
        plugins.hooks(["a", "b"]).step_ended(3, {})
    assert seen == [3]


# --- what a plugin does while it is loaded ----------------------------------------------------------------------------


def test_what_a_plugin_prints_while_it_is_loaded_is_kept_from_json(capsys: pytest.CaptureFixture[str]) -> None:
    def loud() -> ModuleType:
        print("hello from\n  strange")
        return offering(kinds.LOSS, component("x"))

    (_, info) = found(EntryPoint(distribution="strange", plugin=loud)).infos

    assert capsys.readouterr().out == ""
    assert (info.status, info.notes) == ("ready", ("printed 'hello from strange', which was left out",))


def test_what_goes_past_print_is_kept_from_json_too(capfd: pytest.CaptureFixture[str]) -> None:
    def loud() -> ModuleType:
        os.write(1, b"raw ")
        subprocess.run([sys.executable, "-c", "print('child')"], check=True)
        return offering(kinds.LOSS, component("x"))

    (_, info) = found(EntryPoint(plugin=loud)).infos

    assert (capfd.readouterr().out, info.notes) == ("", ("printed 'raw child', which was left out",))


def test_an_exception_that_cannot_be_shown_is_told_all_the_same() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def broken() -> ModuleType:
        raise MuteError

    (_, info) = found(EntryPoint(plugin=broken)).infos

    assert (info.status, info.reason) == ("failed", "MuteError (which cannot be shown: RuntimeError)")


def test_environment_and_arguments_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDCORE_BLOCK", "nobody")
    argv, path = sys.argv[:], sys.path[:]

    def restless() -> ModuleType:
        os.environ["COORDCORE_BLOCK"] = "coordcore-train"
        sys.argv[:], sys.path[:] = ["x"], []
        sys.setrecursionlimit(120)
        return offering(kinds.LOSS, component("x"))

    limit = sys.getrecursionlimit()
    (_, info) = found(EntryPoint(plugin=restless)).infos

    assert (os.environ["COORDCORE_BLOCK"], sys.argv, sys.path, sys.getrecursionlimit()) == ("nobody", argv, path, limit)
    assert info.notes == ("changed the environment, sys.argv or sys.path, which was undone",)


def test_a_plugin_that_changes_the_folder_does_not_move_anybody(tmp_path: Path) -> None:
    def restless() -> ModuleType:
        os.chdir(tmp_path.parent)
        return offering(kinds.LOSS, component("x"))

    (_, info) = found(EntryPoint(plugin=restless)).infos

    assert (Path.cwd(), info.notes) == (tmp_path, ("changed the working directory, which was undone",))


def test_importing_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)

    def heavy() -> ModuleType:
        monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
        return offering(kinds.LOSS, component("x"))

    (_, info) = found(EntryPoint(plugin=heavy)).infos

    assert info.notes == ("imports torch, which makes every command slow",)


@pytest.mark.parametrize("error", [SystemExit("bye"), GeneratorExit(), BaseException("odd")])
def test_no_exception_of_a_plugin_gets_out(error: BaseException) -> None:
    def broken() -> ModuleType:
        raise error

    (_, info) = found(EntryPoint(plugin=broken)).infos

    assert (info.status, info.reason) == ("failed", f"{type(error).__name__}: {error}".rstrip())


# --- engines ----------------------------------------------------------------------------------------------------------


def test_an_engine_without_a_check_is_none() -> None:
    (_, info) = found(EntryPoint(plugin=module(coordcore_engine=hookimpl(lambda: 3)))).infos

    assert (info.status, info.reason) == ("failed", "coordcore_engine returned 3, which has no check and no notes()")


def test_an_engine_that_fails_at_its_check_is_a_problem_with_its_name() -> None:
    class Engine:
        def check(self, run: Manifest) -> list[Problem]:
            raise ValueError("no such table")

        notes = check

    other = EntryPoint(distribution="other", plugin=offering(kinds.DATA, component("other")))
    engine = EntryPoint(distribution="made-engine", plugin=module(coordcore_engine=hookimpl(lambda: Engine())))

    assert problems(FOREIGN, found(other, engine)) == [
        "m.toml: the check of plugin made-engine raised ValueError: no such table; tell its authors, or leave it out"
    ]


def test_two_engines_are_one_too_many() -> None:
    class Engine:
        def check(self, run: Manifest) -> list[Problem]:
            return []

        notes = check

    entry_points = [
        EntryPoint(distribution=name, plugin=module(coordcore_engine=hookimpl(lambda: Engine()))) for name in ("a", "b")
    ]

    with pytest.raises(
        ValueError, match=r"^a and b both offer an engine; uninstall one or list it in \[plugins\] block$"
    ):
        _ = found(*entry_points).engine


def test_two_engines_are_a_problem_of_every_manifest() -> None:
    class Engine:
        def check(self, run: Manifest) -> list[Problem]:
            return []

        notes = check

    other = EntryPoint(distribution="other", plugin=offering(kinds.DATA, component("other")))
    engines = [
        EntryPoint(distribution=name, plugin=module(coordcore_engine=hookimpl(lambda: Engine()))) for name in ("a", "b")
    ]

    assert problems(FOREIGN, found(other, *engines)) == [
        "m.toml: plugins.block: a and b both offer an engine; uninstall one or list it in [plugins] block"
    ]
