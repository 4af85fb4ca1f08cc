"""The command line: what it prints, the exit codes, and what it never imports."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest
import tomli
import typer
from fakes import EntryPoint, component, found, offering, usual
from typer.testing import CliRunner, Result

import coordcore.cli
import coordcore.plugins
from coordcore import Command, InputError, __version__, hookimpl, kinds, option
from coordcore.cli import app
from coordcore.errors import RunError
from coordcore.plugins import Plugins

PLAIN = '[model]\nbase = "Qwen/Qwen3-VL-2B-Instruct"\n[data.plain_text]\n[loss.text_ce]\n'

HEAVY = ("torch", "transformers", "numpy", "swift", "peft", "huggingface_hub", "pydantic")
"""What takes seconds to import, or would double the time of the commands that need none of it."""


@pytest.fixture(autouse=True)
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, usual())


def install(monkeypatch: pytest.MonkeyPatch, plugins: Plugins) -> None:
    for user in ("coordcore.discovery", "coordcore.manifest.loading"):
        monkeypatch.setattr(f"{user}.discover", lambda **_: plugins)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def replace_module(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    made = ModuleType(name)
    vars(made).update(members)
    monkeypatch.setitem(sys.modules, name, made)


def test_version() -> None:
    result = invoke("--version")

    assert (result.exit_code, result.stdout) == (0, f"coordcore {__version__}\n")


def test_the_module_runs_as_a_program() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "coordcore", "--version"], capture_output=True, text=True, check=True
    )

    assert result.stdout == f"coordcore {__version__}\n"


# --- check ----------------------------------------------------------------------------------------------------------


def test_check_of_a_right_manifest() -> None:
    Path("m.toml").write_text(PLAIN)
    result = invoke("check", "m.toml")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "note: the base checkpoint and [train.swift] were not checked: no engine is installed; "
        "pip install 'coordcore[train]'\n"
        "m.toml: no problems found\n"
    )


def test_check_prints_every_problem_on_a_line_and_counts_them() -> None:
    Path("m.toml").write_text(PLAIN + "[train]\nsteps = 0\nsede = 3\n")
    result = invoke("check", "m.toml", "--set", "train.epochs=-1")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "m.toml:6: train.steps: must be > 0, got 0\n"
        "m.toml:7: train.sede: unknown key; did you mean 'seed'?\n"
        "--set train.epochs=-1: train.epochs: must be > 0, got -1.0\n"
        "3 problems found\n"
    )


def test_check_reports_what_only_the_whole_shows() -> None:
    Path("m.toml").write_text(PLAIN.replace("plain_text]", 'boxes]\ntrain = "x.jsonl"'))
    result = invoke("check", "m.toml")

    assert result.exit_code == 2
    assert result.stderr == (
        "m.toml:3: data.boxes: coord tokens need a loss that supervises them, and no component of this run provides "
        f"'coord-supervision'; add [loss.fuzzy]\nm.toml:4: data.boxes.train: no such file: {Path.cwd()}/x.jsonl\n"
        "2 problems found\n"
    )


def test_a_missing_manifest() -> None:
    result = invoke("check", "none.toml")

    assert (result.exit_code, result.stderr) == (
        2,
        "none.toml: cannot be read: no such file or directory\n1 problem found\n",
    )


def test_a_missing_argument_is_a_usage_error() -> None:
    assert invoke("check").exit_code == 2


# --- run, without an engine -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("run", "`run` comes with coordcore-train; pip install 'coordcore[train]'"),
        ("merge", "`merge` comes with coordcore-train; pip install 'coordcore[train]'"),
        ("predict", "`predict` comes with coordcore-detection; pip install 'coordcore-detection'"),
        ("doctor", "`doctor` comes with coordcore-doctor; pip install 'coordcore-doctor'"),
        ("synonyms", "`synonyms` comes with coordcore-label-embeddings; pip install 'coordcore-label-embeddings'"),
    ],
)
def test_a_command_that_is_not_installed_says_what_to_install(command: str, answer: str) -> None:
    result = invoke(command, "m.toml")

    assert (result.exit_code, result.stderr) == (2, f"coordcore: {answer}\n")


def test_an_engine_that_cannot_be_loaded_is_no_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> ModuleType:
        raise ImportError("libcuda is missing")

    install(monkeypatch, found(EntryPoint(distribution="coordcore-train", plugin=broken)))

    assert invoke("run", "m.toml").stderr == (
        "coordcore: `run` comes with coordcore-train, which is installed and failed: ImportError: libcuda is missing\n"
    )


# --- plugins --------------------------------------------------------------------------------------------------------


def several() -> Plugins:
    def broken() -> ModuleType:
        raise ImportError("a reason that is long enough to be cut off by a narrow terminal " * 3)

    return found(
        EntryPoint(distribution="a", plugin=offering(kinds.LOSS, component("same"), component("mine"))),
        EntryPoint(distribution="b", plugin=offering(kinds.LOSS, component("same"))),
        EntryPoint(distribution="broken", plugin=broken),
        EntryPoint(distribution="old", requires=["coordcore<0.1"]),
    )


REASON = "ImportError: " + " ".join(["a reason that is long enough to be cut off by a narrow terminal"] * 3)


def test_plugins_are_listed_whole_when_not_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, several())
    result = invoke("plugins")

    assert result.exit_code == 0
    assert result.stdout == (
        f"coordcore {__version__} ready: format.coordjson, template.plain, loss.text_ce, optimizer.adamw\n"
        "a 1.0 ready: loss.same, loss.mine\n"
        "b 1.0 ready: loss.same\n"
        f"broken 1.0 failed: {REASON}\n"
        f"old 1.0 incompatible: needs coordcore<0.1, this is {__version__}\n"
        "conflict: loss.same is offered by a and b; uninstall one or list it in [plugins] block\n"
    )


def test_a_narrow_table_still_holds_every_word(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    coordcore.cli._print_table(("plugin", "reason"), [("broken [x]", REASON)])
    words = " ".join(line for line in capsys.readouterr().out.split()).replace(" ", "")

    assert words == f"pluginreasonbroken[x]{REASON}".replace(" ", "")


def test_plugins_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, several())
    document = json.loads(invoke("plugins", "--json").stdout)

    assert document["plugins"][1] == {
        "distribution": "a", "version": "1.0", "entry_point": "made_up", "status": "ready", "reason": "", "notes": [],
        "components": [
            {"kind": "loss", "name": "same", "summary": "same"}, {"kind": "loss", "name": "mine", "summary": "mine"},
        ],
        "commands": [],
    }  # fmt: skip
    assert document["conflicts"] == [{"kind": "loss", "name": "same", "distributions": ["a", "b"]}]


# --- schema ---------------------------------------------------------------------------------------------------------


def test_schema_prints_a_section_to_paste() -> None:
    result = invoke("schema", "loss.fuzzy")

    assert result.exit_code == 0
    assert result.stdout.splitlines()[:8] == [
        "# fuzzy (made-losses 1.0)",
        "[loss.fuzzy]",
        "# width, in bins (a number)",
        "sigma = 2.0",
        "# clip it (true or false)",
        "clip = false",
        "# names (an array, each a string)",
        'names = ["a"]',
    ]
    assert result.stdout.splitlines()[-5:] == [
        "[loss.fuzzy.gate]",
        "# weight of the gate (a number)",
        "weight = 1.0",
        "# step instead of slope (true or false)",
        "hard = false",
    ]


def test_what_schema_prints_is_a_manifest_with_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    from coordcore.manifest import load

    sections = "\n".join(invoke("schema", name).stdout for name in ("train", "tuner", "launch", "loss.fuzzy"))
    Path("m.toml").write_text(f'[model]\nbase = "x"\n[data.plain_text]\n{sections}')
    Path("plain.toml").write_text('name = "m"\n[model]\nbase = "x"\n[data.plain_text]\n[loss.fuzzy]\n')
    plugins = usual()

    assert load("m.toml", (), plugins).manifest == load("plain.toml", (), plugins).manifest


def test_schema_marks_keys_without_a_default() -> None:
    text = invoke("schema", "data.boxes").stdout

    assert "# records to train on (a path)\n# train = ... is required\n" in text
    assert "# records to read (an integer)\n# limit = ... is absent by default\n" in text


def test_schema_of_a_kind_prints_all_its_components() -> None:
    assert list(tomli.loads(invoke("schema", "loss").stdout)["loss"]) == ["fuzzy", "text_ce"]


def test_schema_lists_the_sections() -> None:
    lines = invoke("schema").stdout.splitlines()

    assert lines[:3] == [
        "before any section: extends, drop, manifest_version, name, requires",
        "",
        "[model]             what is trained",
    ]
    assert "[loss.text_ce]      cross-entropy on the supervised text positions (on coord positions too, if asked) " in [
        line.partition("(coordcore ")[0] for line in lines
    ]


def test_schema_as_json() -> None:
    (section,) = json.loads(invoke("schema", "data.boxes", "--json").stdout)

    assert {key: section[key] for key in ("section", "summary", "owner")} == {
        "section": "data.boxes", "summary": "boxes", "owner": "made-boxes 1.0",
    }  # fmt: skip
    assert section["keys"][2] == {
        "key": "mode", "type": "one of 'dense', 'summary'", "required": False, "help": "what is asked for",
        "default": "dense",
    }  # fmt: skip


def test_the_whole_schema_as_json_holds_every_section() -> None:
    sections = json.loads(invoke("schema", "--json").stdout)

    assert [section["section"] for section in sections] == [
        "", "model", "vocab", "coords", "tuner", "train", "launch", "output", "plugins", "data.boxes",
        "data.plain_text", "format.coordjson", "template.plain", "surgery.adapter", "surgery.offset", "loss.fuzzy",
        "loss.text_ce", "optimizer.adamw",
    ]  # fmt: skip


def test_an_unknown_section() -> None:
    result = invoke("schema", "loss.fuzy")

    assert (result.exit_code, result.stderr) == (
        2,
        "coordcore: there is no section 'loss.fuzy'; did you mean 'loss.fuzzy'?\n",
    )


# --- imports --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [("--version",), ("plugins",), ("schema", "train"), ("check", "m.toml"), ("check", "wrong.toml")]
)
def test_a_quick_command_imports_nothing_heavy(command: tuple[str, ...], tmp_path: Path) -> None:
    traps = tmp_path / "traps"
    for name in HEAVY:
        (traps / name).mkdir(parents=True)
        (traps / name / "__init__.py").write_text(f"raise AssertionError('{name} was imported')")
    info = tmp_path / "traps/made_data-1.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\nName: made-data\nVersion: 1.0\nRequires-Dist: coordcore\n"
    )
    info.joinpath("entry_points.txt").write_text("[coordcore.v1]\nx = made_data_plugin\n")
    (traps / "made_data_plugin.py").write_text(
        "import coordcore\nfrom coordcore.builtins import NoConfig\n"
        "@coordcore.hookimpl\n"
        "def coordcore_data_builders():\n"
        "    return [coordcore.Component(name='made_text', config=NoConfig, build=print, summary='')]\n"
    )
    Path("m.toml").write_text(PLAIN.replace("plain_text", "made_text"))
    Path("wrong.toml").write_text(PLAIN + "[train]\nsteps = 0\n")
    result = subprocess.run(
        [sys.executable, "-m", "coordcore", *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(traps)},
    )

    assert "was imported" not in result.stdout + result.stderr
    assert result.returncode == (2 if "wrong.toml" in command else 0)


# --- commands of plugins ----------------------------------------------------------------------------------------------


def commanding(name: str, load: Any) -> ModuleType:
    plugin = ModuleType("commanding")
    plugin.coordcore_commands = hookimpl(lambda: [Command(name=name, load=load, summary="counts things")])
    return plugin


def test_a_plugin_s_command_runs_and_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(words: list[str], loud: bool = False) -> None:
        """Count WORDS."""
        print(len(words), "!" if loud else "")

    install(monkeypatch, found(EntryPoint(plugin=commanding("count", lambda: count))))

    assert invoke("count", "a", "b", "--loud").stdout == "2 !\n"
    assert "counts things" in invoke("--help").stdout
    assert "command count" in invoke("plugins").stdout


def test_a_plugin_s_command_may_have_subcommands(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> typer.Typer:
        app = typer.Typer()

        @app.command()
        def one() -> None:
            print("first")

        @app.command()
        def two() -> None:
            print("second")

        return app

    install(monkeypatch, found(EntryPoint(plugin=commanding("data", load))))

    assert invoke("data", "two").stdout == "second\n"


@pytest.mark.parametrize(("error", "code"), [(InputError("no such thing"), 2), (RunError("it broke"), 1)])
def test_the_errors_of_a_plugin_s_command_have_exit_codes(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fails() -> None:
        raise error

    install(monkeypatch, found(EntryPoint(plugin=commanding("fails", lambda: fails))))
    result = invoke("fails")

    assert (result.exit_code, result.stderr) == (code, f"coordcore: {error}\n")


def test_a_command_that_cannot_be_loaded_breaks_no_help(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> Any:
        raise ImportError("libcuda is missing")

    install(monkeypatch, found(EntryPoint(plugin=commanding("count", load))))
    result = invoke("count", "--all", "a")

    assert "counts things" in invoke("--help").stdout
    assert (result.exit_code, result.stderr) == (
        1,
        "coordcore: the plugin's command `count` (counts things) cannot be loaded: ImportError: libcuda is missing\n",
    )


def test_commands_of_one_name_belong_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [EntryPoint(distribution=name, plugin=commanding("count", lambda: print("never"))) for name in ("a", "b")]
    install(monkeypatch, found(*both))

    assert invoke("count").exit_code == 2
    assert "conflict: command.count is offered by a and b" in invoke("plugins").stdout


def test_a_command_of_coordcore_s_own_name_is_refused() -> None:
    (_, info) = found(EntryPoint(plugin=commanding("check", lambda: None))).infos

    assert (info.status, info.reason) == (
        "failed",
        "offers a command 'check', which is coordcore's own; give it another name",
    )


def test_coordcore_s_own_commands_are_known() -> None:
    from coordcore.builtins import COMMANDS

    assert tuple(command.callback.__name__ for command in app.registered_commands if command.callback) == COMMANDS


def unbuildable() -> Any:
    raise LookupError("no table")


@attrs.frozen(kw_only=True)
class OddDefaults:
    right: int = option(default=3, help="fine")
    raising: tuple[str, ...] = option(factory=unbuildable, help="raises")
    unwritable: Any = option(default=object, help="no JSON")
    unbounded: float = option(default=float("inf"), help="no JSON either")


def test_a_default_that_cannot_be_shown_leaves_the_schema_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = EntryPoint(distribution="made-odd", plugin=offering(kinds.LOSS, component("odd", OddDefaults)))
    monkeypatch.setattr("coordcore.cli._discovered", lambda: usual(odd))

    every = {section["section"]: section for section in json.loads(invoke("schema", "--json").stdout)}
    keys = {key["key"]: key for key in every["loss.odd"]["keys"]}

    assert (every["loss.odd"]["owner"], "train" in every) == ("made-odd 1.0", True)
    assert keys["right"]["default"] == 3
    assert keys["raising"]["fault"] == "its default cannot be shown: LookupError: no table"
    assert keys["unwritable"]["fault"].startswith("its default cannot be shown: TypeError: ")
    assert keys["unbounded"]["fault"].startswith("its default cannot be shown: ValueError: ")
    assert "# raising = ... is its default cannot" not in invoke("schema", "loss.odd").stdout


def test_what_a_plugin_prints_as_python_ends_is_kept_from_json(tmp_path: Path) -> None:
    info = tmp_path / "site/made_loud-1.0.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\nName: made-loud\nVersion: 1.0\nRequires-Dist: coordcore\n"
    )
    info.joinpath("entry_points.txt").write_text("[coordcore.v1]\nx = made_loud\n")
    (tmp_path / "site/made_loud.py").write_text(
        "import atexit\nimport coordcore\natexit.register(print, 'bye')\n"
        "@coordcore.hookimpl\ndef coordcore_commands():\n    return []\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "coordcore", "plugins", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )

    assert [
        plugin["status"] for plugin in json.loads(result.stdout)["plugins"] if plugin["distribution"] == "made-loud"
    ] == ["ready"]
    assert "bye" in result.stderr


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [
        (errno.ENAMETOOLONG, 2, "coordcore: a\\x1b: file name too long; name another path\n"),
        (errno.ELOOP, 2, "coordcore: a\\x1b: too many levels of symbolic links; name another path\n"),
        (errno.EACCES, 2, "coordcore: a\\x1b: permission denied; name another path\n"),
        (errno.ENOSPC, 1, "coordcore: a\\x1b: no space left on device; make room there, and start again\n"),
        (errno.EMFILE, 1, "coordcore: a\\x1b: too many open files; allow more files, as with ulimit -n 1024\n"),
    ],
)
def test_what_the_system_refuses_is_a_message(
    monkeypatch: pytest.MonkeyPatch, number: int, code: int, told: str
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(number, "", "a\x1b")

    monkeypatch.setattr("coordcore.check.load_and_check", refuses)
    result = invoke("check", "m.toml")

    assert (result.exit_code, result.stderr) == (code, told)


def test_another_error_of_the_system_is_a_mistake_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "", "a")

    monkeypatch.setattr("coordcore.check.load_and_check", fails)

    assert isinstance(invoke("check", "m.toml").exception, FileNotFoundError)


def test_no_line_of_a_message_is_endless() -> None:
    lines = str(InputError(f"a: {'x' * 100_000}\nb")).split("\n")

    assert [len(line) < 5_500 for line in lines] == [True, True]
    assert lines[1] == "b"


@pytest.mark.usefixtures("usual_files")
def test_a_note_is_told_cut_and_steers_nothing() -> None:
    Path("m.toml").write_text(f'{PLAIN}[plugins]\nblock = ["{"y" * 100_000}", "\\u001b[2J"]\n')
    result = invoke("check", "m.toml")

    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) < 1_100
    assert "\x1b" not in result.stdout
