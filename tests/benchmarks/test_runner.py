"""The runner's own logic, the agreement of what it compares, and one quick run from the command line to the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import loss_case
import measure
import objective_case
import pytest
import render
import torch
from cases import CASES, select
from measure import Case, PeakRSS, Reach, Sample, Setting, Spread, alternate, judge, ratio, updated

torch.set_num_threads(1)
QUICK = Setting(quick=True)


def test_every_round_starts_with_another_variant_after_one_that_does_not_count() -> None:
    order: list[str] = []
    taken = alternate({name: lambda name=name: order.append(name) for name in "abc"}, rounds=4)
    # The fourth round goes backwards: by then each has followed another one.
    assert "".join(order) == "bac" + "abc" + "bca" + "cab" + "cba"
    assert {name: len(samples) for name, samples in taken.items()} == {"a": 4, "b": 4, "c": 4}


def test_a_variant_that_measured_itself_is_believed() -> None:
    sample = Sample(seconds=7.0, megabytes=3.0)
    assert alternate({"own": lambda: sample}, rounds=1) == {"own": [sample]}


def test_a_ratio_is_taken_round_by_round() -> None:
    # The machine was twice as slow in the second round, and five times in the third.
    assert ratio([1.0, 2.0, 5.0], [2.0, 4.0, 10.0]) == Spread(median=0.5, low=0.5, high=0.5)


def test_the_spread_of_four_and_more_rounds_are_the_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 3.0, 100.0]) == Spread(median=3.0, low=2.0, high=5.0)


def test_peak_memory_counts_what_was_freed_again() -> None:
    with PeakRSS() as peak:
        del (block := bytearray(100_000_000))[:]
        del block
    assert peak.megabytes == pytest.approx(100, abs=5)


def test_peak_memory_leaves_out_what_was_there() -> None:
    data = bytearray(100_000_000)
    with PeakRSS() as peak:
        data[::4096] = bytes(len(range(0, len(data), 4096)))
    assert peak.megabytes < 5


def row(name: str = "a", at: int = 0, **variants: tuple[float, float]) -> dict[str, Any]:
    """A row as `measure` returns it, one round each: variant -> (seconds, megabytes)."""
    written = {key: {"seconds": [time], "megabytes": size} for key, (time, size) in variants.items()}
    said = {"case": name, "device": "cpu", "sweep": "size" if at else None, "at": at, "variants": written}
    return {**said, "date": f"2026-11-2{len(name)}", "took": 90}


def test_the_conditions_are_those_of_every_row_of_the_page() -> None:
    environment = {"cpu": "a CPU", "gpu": None, "threads": 2, "versions": {"python": "3.11"}}
    said = render.conditions({"environment": environment, "rows": [row("a"), row("bbb"), row("cc")]})
    assert said == "2026-11-21 to 2026-11-23, a CPU, 2 threads; python 3.11; all rows together took 4 minutes."


@pytest.mark.parametrize(
    ("reach", "measured", "met"),
    [
        (Reach(what="time", against="peer", at_most=0.5, text=""), 0.25, True),
        (Reach(what="time", against="peer", at_most=0.2, text=""), 0.25, False),
        (Reach(what="memory", at_most=64, text=""), 60.0, True),
        (Reach(what="memory", against="peer", at_most=16, text=""), 20.0, False),
    ],
)
def test_a_figure_is_judged(reach: Reach, measured: float, met: bool) -> None:
    item = row(ours=(1.0, 60.0), peer=(4.0, 40.0))
    judged = judge(reach, item, [item])
    assert judged is not None
    assert (judged["measured"], judged["met"]) == (measured, met)


def test_growth_is_measured_from_where_the_sweep_starts() -> None:
    rows = [row(at=at, ours=(1.0, size)) for at, size in ((512, 70.0), (256, 50.0), (1024, 75.0))]
    growth = Reach(what="growth", at_most=32, text="")
    judged = [judge(growth, item, rows) for item in rows]
    assert [item and item["measured"] for item in judged] == [20.0, None, 25.0]


def test_rows_are_selected_by_the_start_of_their_names() -> None:
    assert [case.name for case in select(["builder-check", "vocabulary-3"])] == [
        "vocabulary-32768",
        "builder-check-pixel",
        "builder-check-bin",
    ]
    assert [case.name for case in select(["objective"])] == ["objective"]
    assert select([]) == list(CASES)
    with pytest.raises(ValueError, match="no row is called 'hard'"):
        select(["hard"])


def test_no_two_rows_share_a_name() -> None:
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(
    ("build", "same"),
    [
        (loss_case.variants, ["ours", "the reference functions"]),
        (objective_case.whole, ["ours", "full logits", "suffix logits"]),
        (objective_case.trainable, ["ours", "full logits", "suffix logits"]),
        (objective_case.whole, ["transformers, plain CE", "torch linear_cross_entropy, chunks of 64, plain CE"]),
    ],
)
def test_what_is_compared_computes_the_same_loss(build: Any, same: list[str]) -> None:
    variants = build(QUICK)
    losses = [float(variants[name]()) for name in same]
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-4)


SLOW = ("step", "packing", "answers", "answers-processes")


@pytest.mark.parametrize("case", [case for case in CASES if case.name not in SLOW], ids=lambda case: case.name)
def test_every_row_runs(case: Case) -> None:
    """But those whose processes take as long to start as all of this."""
    measured = alternate(case.build(QUICK), rounds=1)
    assert [len(samples) for samples in measured.values()] == [1] * len(measured)


def test_a_quick_run_writes_figures_that_render_as_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = tmp_path / "bench.json"
    only = ["--only", "soft-ce-w1", "--only", "supervised-256", "--only", "supervised-8192"]
    command = [sys.executable, str(Path(measure.__file__).with_name("run.py")), "--quick", "--json", str(figures)]
    done = subprocess.run([*command, *only], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text())
    assert [row["case"] for row in found["rows"]] == ["soft-ce-w1", "supervised-256", "supervised-8192"]
    assert "the reference functions" in done.stdout
    assert [row["reaches"] for row in found["rows"]] == [[], [], []]

    page, plot = tmp_path / "performance.md", tmp_path / "performance.png"
    page.write_text("before\n<!-- measured: rows -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(render, "PAGE", page)
    monkeypatch.setattr(render, "PLOT", plot)
    with pytest.raises(ValueError, match="measured with --quick"):
        render.render(found)
    render.render({**found, "quick": False})
    text = page.read_text()
    assert text.startswith("before\n<!-- measured: rows -->\n| row and variants |")
    assert text.endswith("\n<!-- end -->\nafter\n")
    assert text.count("| F.cross_entropy |") == 1
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("options", [["--quick", "--docs"], ["--only", "soft-ce-w1", "--docs"]])
def test_a_part_or_tiny_sizes_do_not_become_the_page(options: list[str]) -> None:
    command = [sys.executable, str(Path(measure.__file__).with_name("run.py")), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("--docs shows a whole run at full size")


def test_an_update_replaces_a_row_where_it_stands_and_keeps_the_others() -> None:
    earlier = [row("a", ours=(1.0, 1.0)), row("b", ours=(1.0, 1.0))]
    fresh = [row("c", ours=(2.0, 2.0)), row("a", ours=(2.0, 2.0))]
    assert updated(earlier, fresh) == [fresh[1], earlier[1], fresh[0]]


def test_an_unknown_row_is_refused_with_the_names_there_are() -> None:
    command = [sys.executable, str(Path(measure.__file__).with_name("run.py")), "--only", "hard"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("no row is called 'hard'; there are: soft-ce-w1, soft-ce-w1-one-thread, objective, ")
