"""The commands run, expand and merge: what they pass on, and their exit codes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fakes import EntryPoint, usual
from typer.testing import CliRunner, Result

import coordcore_train.plugin
from coordcore import InputError
from coordcore.cli import app
from coordcore.errors import RunError

PLAIN = '[model]\nbase = "Qwen/Qwen3-VL-2B-Instruct"\n[data.plain_text]\n[loss.text_ce]\n'


@pytest.fixture(autouse=True)
def _plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / ".hub"))
    plugins = usual(EntryPoint(distribution="coordcore-train", plugin=coordcore_train.plugin))
    for user in ("coordcore.discovery", "coordcore.manifest.loading"):
        monkeypatch.setattr(f"{user}.discover", lambda **_: plugins)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def replace_module(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    made = ModuleType(name)
    vars(made).update(members)
    monkeypatch.setitem(sys.modules, name, made)


# --- run ------------------------------------------------------------------------------------------------------------


def test_run_hands_the_loaded_manifest_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("m.toml").write_text(PLAIN)
    calls: list[Any] = []
    replace_module(
        monkeypatch,
        "coordcore_train.run.session",
        run=lambda loaded, **options: calls.append((loaded.manifest, options)),
    )
    result = invoke("run", "m.toml", "--set", "train.steps=3", "--output", "out", "--overwrite")

    assert result.exit_code == 0
    ((manifest, options),) = calls
    assert (manifest.name, manifest.train.steps) == ("m", 3)
    assert options == {"output": Path("out"), "overwrite": True}


def test_run_does_not_start_the_engine_on_a_wrong_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("m.toml").write_text(PLAIN + "[train]\nsteps = 0\n")
    replace_module(monkeypatch, "coordcore_train.run.session")
    result = invoke("run", "m.toml")

    assert (result.exit_code, result.stderr) == (2, "m.toml:6: train.steps: must be > 0, got 0\n1 problem found\n")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("output.dir: x exists; choose another"), 2, "coordcore: output.dir: x exists; choose another\n"),
        (RunError("step 3: loss.fuzzy became NaN"), 1, "coordcore: step 3: loss.fuzzy became NaN\n"),
        (KeyboardInterrupt(), 130, "coordcore: interrupted\n"),
    ],
)
def test_the_engine_decides_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    def run(_loaded: Any, **_options: Any) -> None:
        raise error

    Path("m.toml").write_text(PLAIN)
    replace_module(monkeypatch, "coordcore_train.run.session", run=run)
    result = invoke("run", "m.toml")

    assert (result.exit_code, result.stderr) == (code, message)


def test_a_bug_is_not_dressed_up_as_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_loaded: Any, **_options: Any) -> None:
        raise ZeroDivisionError("a bug")

    Path("m.toml").write_text(PLAIN)
    replace_module(monkeypatch, "coordcore_train.run.session", run=run)
    result = invoke("run", "m.toml")

    assert (result.exit_code, repr(result.exception)) == (1, "ZeroDivisionError('a bug')")


# --- expand and merge -----------------------------------------------------------------------------------------------


def test_expand_passes_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Report:
        output, rows_before, rows_after = "out", 10, 1024

    def expand(*places: Path, **options: Any) -> type[Report]:
        calls.append((places, options))
        return Report

    Path("base").mkdir()
    replace_module(monkeypatch, "coordcore_train.checkpoint.expand", expand=expand)
    options = (
        "--output",
        "out",
        "--initialiser",
        "smooth",
        "--seed",
        "3",
        "--quantisation",
        "qwen_1000",
        "--overwrite",
    )
    result = invoke("expand", "base", *options)

    assert (result.exit_code, result.stdout) == (0, "out: 1000 coord tokens, 10 -> 1024 rows\n")
    ((places, given),) = calls
    assert places == (Path.cwd() / "base", Path("out"))
    assert str(given.pop("quantisation")) == "qwen_1000 (version 1)"
    assert str(given.pop("coords")) == "<|coord_0|> to <|coord_999|>"
    assert given == {"initialiser": "smooth", "seed": 3, "overwrite": True}


@pytest.mark.parametrize(
    ("base", "quantisation", "message"),
    [
        ("none", "nearest_999", "no such folder: {cwd}/none"),
        ("Qwen/x", "nearest_999", "Qwen/x is not in the local hub cache; fetch it with: hf download Qwen/x"),
        ("base", "near", "--quantisation: unknown quantisation 'near'; "),
    ],
)
def test_expand_of_what_is_not_there(base: str, quantisation: str, message: str) -> None:
    Path("base").mkdir()
    result = invoke("expand", base, "--output", "out", "--quantisation", quantisation)

    assert result.exit_code == 2
    assert result.stderr.startswith("coordcore: " + message.replace("{cwd}", str(Path.cwd())))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokens", "<{}{}>"], "--tokens <{}{}>: must be a pattern like <|coord_{}|> or <loc{:04}>, or rex_omni"),
        (["--tokens", "PaliGemma"], "--tokens PaliGemma: must be a pattern like"),
        (["--bins", "1"], "--tokens <|coord_{}|> --bins 1: 'bins' must be >= 2"),
        (["--bins", "40000"], "--tokens <|coord_{}|> --bins 40000: 'bins' must be < 32768"),
        (["--tokens", "paligemma", "--bins", "10"], "--quantisation: 'paligemma_1024' has 1024 bins, and coords.bins"),
        (["--bins", "256", "--quantisation", "nearest_999"], "--quantisation: 'nearest_999' has 1000 bins"),
        (
            ["--tokens", "<loc{:04}>", "--bins", "1024"],
            "--tokens: '<loc{:04}>' are the tokens of paligemma, which has y first and paligemma_1024; "
            'write tokens = "paligemma", or say coords.order, "xy" or "yx"',
        ),
        (["--tokens", "paligemma", "--order", "xy"], "--tokens: paligemma has y first; leave coords.order out, or"),
    ],
)
def test_expand_reads_its_tokens_as_a_manifest_does(options: list[str], message: str) -> None:
    Path("base").mkdir()
    result = invoke("expand", "base", "--output", "out", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("coordcore: " + message)


def test_expand_by_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class Report:
        output, rows_before, rows_after = "out", 10, 1088

    def expand(*_places: Path, **options: Any) -> type[Report]:
        given.update(options)
        return Report

    Path("base").mkdir()
    replace_module(monkeypatch, "coordcore_train.checkpoint.expand", expand=expand)
    result = invoke("expand", "base", "--output", "out", "--tokens", "paligemma")
    assert (result.exit_code, result.stdout) == (0, "out: 1024 coord tokens, 10 -> 1088 rows\n")
    assert (str(given["coords"]), given["quantisation"].name) == ("<loc0000> to <loc1023>, y first", "paligemma_1024")


def test_merge_passes_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def merge_run(*places: Path, **options: Any) -> str:
        calls.append((places, options))
        return "out: merged from runs/x/checkpoints/checkpoint-3"

    replace_module(monkeypatch, "coordcore_train.checkpoint.merge.run", merge_run=merge_run)
    replace_module(monkeypatch, "coordcore_train.run.quiet", quiet=lambda: None)
    replace_module(monkeypatch, "coordcore_train.run.session")
    result = invoke("merge", "runs/x", "--output", "out", "--compare-logits")

    assert (result.exit_code, result.stdout) == (0, "out: merged from runs/x/checkpoints/checkpoint-3\n")
    assert calls == [((Path("runs/x"), Path("out")), {"checkpoint": None, "compare_logits": True})]


def test_help_keeps_square_brackets() -> None:
    assert "as in [model] base" in invoke("expand", "--help").output
