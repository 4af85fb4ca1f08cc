"""The script as it runs where there is a GPU, here on the CPU at small sizes; and what becomes of its JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import carry  # noqa: E402 - found by the line above
import goals  # noqa: E402
import ground  # noqa: E402
import report  # noqa: E402
from names import SECTIONS  # noqa: E402

NOT_ON_THE_CPU = {"no synchronisation", "figures objective kernels"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HERE / "run.py"), *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What every section but ms-swift's gave, and what was printed."""
    out = tmp_path_factory.mktemp("gpu") / "result.json"
    names = [argument for name in SECTIONS if name != "ms-swift" for argument in ("--only", name)]
    finished = run("--device", "cpu", "--small", "--out", str(out), *names)
    assert finished.returncode == 0, finished.stdout + finished.stderr + out.with_suffix(".log").read_text()
    return json.loads(out.read_text()), finished.stdout


def test_every_section_passes_or_says_why_not(done: tuple[dict[str, Any], str]) -> None:
    result, printed = done
    found = {item["name"]: item["status"] for item in result["sections"]}
    expected = {name: "not applicable" if name in NOT_ON_THE_CPU else "ok" for name in SECTIONS if name != "ms-swift"}
    assert found == expected
    assert (result["device"], result["small"], result["machine"]["card"]) == ("cpu", True, None)
    assert "small: these figures mean nothing" in printed


def test_every_comparison_and_every_figure_is_there(done: tuple[dict[str, Any], str]) -> None:
    sections = {item["name"]: item for item in done[0]["sections"]}
    compared = {name: len(item["checks"]) for name, item in sections.items() if "checks" in item}
    assert sorted(compared) == sorted(
        ["objective terms", "soft-ce-w1 kernel", "objective in the forward", "expand, merge and predict",
         "DDP of one rank", "FSDP2 of one rank", "packing", "torch.compile"]
    )  # fmt: skip
    # Nine terms in three dtypes: the loss and two gradients, and a third one of a trained head.
    assert compared["objective terms"] == 9 * 3 * (3 + 4)
    titles = [row["title"] for row in report.rows_of(done[0])]
    assert len(titles) == 2 + 5 + 1 + 3 + 1
    for row in report.rows_of(done[0]):
        assert [name for name, variant in row["variants"].items() if "error" in variant] == []
        assert all(variant["ms"] > 0 for variant in row["variants"].values())


def test_small_sizes_meet_no_goal_and_are_no_page(done: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    assert {goal["met"] for goal in done[0]["goals"]} == {None}
    assert len(done[0]["goals"]) == 4 * 3 + 2 + 1
    with pytest.raises(ValueError, match="say nothing of a GPU"):
        report.write(done[0], tmp_path / "page.md")


def test_the_page_gets_goals_and_figures_between_its_marks(done: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    # As if a card had given them: only the writing is looked at.
    result = {**done[0], "device": "cuda", "small": False, "machine": {"card": "a card", "torch": "2", "cuda": "13"}}
    result["goals"] = goals.judge(result)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write(result, page)
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\na card, CUDA 13, torch 2, ")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text
    assert text.count("| goal | at most | measured | met |") == 1
    assert text.count("| variant | ms (least..greatest) | of the first | host | peak |") == 12
    report.write(result, page)
    assert page.read_text() == text

    page.write_text("no marks\n")
    with pytest.raises(ValueError, match="has no <!-- gpu: written by"):
        report.write(result, page)


def test_the_documentation_has_a_place_for_it() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    assert text.count(report.BEGIN) == text.count(report.END) == 1


def section(**found: Any) -> dict[str, Any]:
    return {"small": False, "sections": [{"status": "ok", **found}]}


@pytest.mark.parametrize(("ms", "peak", "met"), [(10.9, 255, [True, True, True]), (11.5, 300, [False, False, False])])
def test_a_goal_is_judged_by_its_figures(ms: float, peak: float, met: list[bool]) -> None:
    variants = {
        "ours": {"ms": ms, "peak_mb": peak},
        "the two matrix products": {"ms": 10.0},
        "Liger fused linear CE, plain CE": {"ms": 11.0},
    }
    judged = goals.judge(section(name="figures objective 1 2", variants=variants, floor={}))
    assert [item["met"] for item in judged] == met


def test_what_a_peer_could_not_do_is_no_goal_missed() -> None:
    variants = {"ours": {"ms": 1.0, "peak_mb": 1.0}, "the two matrix products": {"ms": 1.0}}
    judged = goals.judge(section(name="figures objective 1 2", variants=variants, floor={}))
    assert [(item["measured"], item["met"]) for item in judged] == [(1.0, True), (None, None), (1.0, True)]


# --- isolation --------------------------------------------------------------------------------------------------------


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`sections(code, name=seconds, ...)`: the results of those functions of a module with that code."""
    import run as script

    def results(code: str, **seconds: float) -> dict[str, tuple[str, str]]:
        (tmp_path / "made.py").write_text(code)
        monkeypatch.setattr(script, "SECTIONS", {name: ("made", name, limit) for name, limit in seconds.items()})
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(sys, "path", list(sys.path))
        options = script.argparse.Namespace(device="cpu", small=True, seconds=60.0)
        with script.surroundings(ground.WHEELS), (tmp_path / "log").open("w") as log:
            _, found = script.run(list(seconds), options, log)
        return {item["name"]: (item["status"], item.get("reason", "")) for item in found}

    return results


def test_a_section_that_raises_hangs_or_dies_costs_itself_alone(sections: Any) -> None:
    found = sections(
        "import os, threading\n"
        "def raises(setting): raise KeyError('lost')\n"
        "def hangs(setting): threading.Event().wait()\n"
        "def dies(setting): os._exit(9)\n"
        "def passes(setting): return {'checks': []}\n",
        raises=20, hangs=0.1, dies=20, passes=20,
    )  # fmt: skip
    assert found == {
        "raises": ("failed", "KeyError: 'lost'"),
        "hangs": ("timeout", "took longer than it may"),
        "dies": ("crashed", "its process ended with status 9; see the log"),
        "passes": ("ok", ""),
    }


def test_a_comparison_that_is_off_fails_its_section(sections: Any) -> None:
    code = "from setting import check\ndef off(setting): return {'checks': [check('a', float('nan'), 1.0)]}\n"
    assert sections(code, off=20) == {"off": ("failed", "")}


# --- what is carried --------------------------------------------------------------------------------------------------


def test_what_a_machine_has_is_not_carried() -> None:
    packages = dict.fromkeys((*ground.NEEDED, *ground.WANTED), "1")
    assert carry.wanted({"packages": packages}) == []
    assert carry.wanted({"packages": {**packages, "typer": None}}) == [
        "typer", "click", "shellingham", "typing-extensions",
    ]  # fmt: skip
    everything = carry.wanted(None)
    assert {"attrs", "msgspec", "liger-kernel", "cut-cross-entropy"} <= set(everything)
    assert not set(everything) & set(carry.NOT_CARRIED)


def test_wheels_are_asked_for_that_fit_the_machine() -> None:
    asked = carry.command(["typer", "attrs"], "3.12", Path("into"), ["pip"])
    assert asked[:2] == ["pip", "download"]
    assert asked[-4:] == ["-d", "into", "typer<0.29", "attrs"]
    assert asked[asked.index("--python-version") + 1] == "3.12"


def test_only_what_is_missing_is_unpacked(tmp_path: Path) -> None:
    import zipfile

    for name in ("pytest-99.0-py3-none-any.whl", "Never_Heard.of-1.0-py3-none-any.whl"):
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            wheel.writestr(f"{name.split('-')[0]}.py", "")
    assert ground.unpack(tmp_path, tmp_path / "into") == ["never-heard-of"]
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["Never_Heard.of.py"]


def test_an_unknown_section_is_refused_with_the_names_there_are() -> None:
    refused = run("--only", "speed", "--out", "nowhere.json")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("no section is called 'speed'; there are: floor, objective terms, ")
