"""The parts of the report: what a run folder tells, which images are chosen, which errors are counted."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
from evaluation_support import header, row, truth
from report_support import MANIFEST, evaluated, recorded, run_folder

from coordcore import Component, InputError, hookimpl
from coordcore.discovery import discover
from coordcore.hookspecs import GROUP
from coordcore.manifest import load
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_detection.evaluate.evaluation import evaluate
from coordcore_detection.report import coordinates, drawings, offsets, page, quality, training

CAT = ("cat", (10.0, 10.0, 50.0, 50.0))
DOG = ("dog", (60.0, 60.0, 90.0, 90.0))


@pytest.fixture
def run(tmp_path: Path) -> training.Run:
    return training.read_run(run_folder(tmp_path / "run"))


# --- the run --------------------------------------------------------------------------------------------------------


def test_a_run_is_found_from_its_evaluation(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    assert {training.find_run(folder / item) for item in ("", "merged", "eval/detection", "eval/detection/step-5")} == {
        folder
    }


def test_a_folder_elsewhere_belongs_to_no_run(tmp_path: Path) -> None:
    run_folder(tmp_path / "run")
    assert training.find_run(tmp_path) is None


@attrs.frozen(kw_only=True)
class Width:
    """A config."""

    width: float = 10.0


def component(name: str, **more: Any) -> Component:
    return Component(name=name, config=Width, build=lambda _config, _context: None, summary="", **more)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed plugin that offers what report_support's manifest names."""
    made = ModuleType("made_up")
    soft = component("soft", units={"far": "bins"}, soft_target=lambda config: config.width)
    vars(made).update(
        coordcore_data_builders=hookimpl(lambda: [component("made_up")]), coordcore_losses=hookimpl(lambda: [soft])
    )
    dist = SimpleNamespace(name="coordcore-made-up", version="1.0", requires=["coordcore>=0.1"])
    entry_point: Any = SimpleNamespace(name="made_up", group=GROUP, dist=dist, load=lambda: made)
    monkeypatch.setattr(training, "load", lambda file: load(file, plugins=discover(entry_points=[entry_point])))


@pytest.mark.usefixtures("plugin")
def test_units_and_soft_target_are_what_the_losses_say(tmp_path: Path) -> None:
    run = training.read_run(run_folder(tmp_path / "run"))
    assert run.soft_target == training.SoftTarget(loss="loss.soft", sigma=10.0)
    assert run.units == {"text_ce/ce": "nats per token", "soft/far": "bins"}


def test_a_run_whose_plugins_are_not_here_says_less(run: training.Run) -> None:
    assert (run.soft_target, run.units, run.name) == (None, {}, "try <b>1<b>")


def test_a_line_that_was_cut_off_is_left_out(run: training.Run) -> None:
    assert run.metrics[-1]["step"] == 30


def test_a_manifest_that_is_none_is_named(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    (folder / "manifest.resolved.toml").write_text(MANIFEST + "\n[")
    with pytest.raises(InputError, match=r"manifest\.resolved\.toml: cannot be read"):
        training.read_run(folder)


def test_each_part_of_the_loss_has_a_plot(run: training.Run) -> None:
    assert [plot.name for plot in training.loss_plots(run)] == [
        "training-loss",
        "training-text_ce-ce",
        "training-soft-ce",
        "training-soft-far",
        "training-grad_norm",
    ]


def test_values_that_are_not_finite_are_gaps(run: training.Run) -> None:
    rows = [{"step": 1, "loss": 3.0, "grad_norm": float("inf")}, {"step": 2, "loss": 2.0, "grad_norm": 1.0}]
    assert [plot.name for plot in training.loss_plots(attrs.evolve(run, metrics=rows))] == [
        "training-loss",
        "training-grad_norm",
    ]


def test_a_run_without_metrics_has_no_plots(run: training.Run) -> None:
    assert training.plots(attrs.evolve(run, metrics=[])) == []


def test_offsets_are_found_by_their_shape(tmp_path: Path) -> None:
    found = offsets.plots(run_folder(tmp_path / "run"))
    assert [plot.name for plot in found or ()] == ["offset-norms-embed_offset", "offset-norms-head_offset"]
    assert {plot.caption for plot in found or ()} == {"checkpoint-30: 8 numbers in each row"}


def test_a_checkpoint_without_offsets_has_no_plot(tmp_path: Path) -> None:
    assert offsets.plots(run_folder(tmp_path / "run", offsets=())) == []


def test_offsets_in_bfloat16_are_read(tmp_path: Path) -> None:
    rows = np.arange(-4000, 4000, dtype=np.float32).reshape(1000, 8) // 64  # each fits in 8 bits
    data = (rows.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = {"offset": {"dtype": "BF16", "shape": [1000, 8], "data_offsets": [0, len(data)]}}
    raw = json.dumps(header).encode()
    (tmp_path / "adapter.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    (stored,) = offsets._tables(tmp_path, 1000)
    assert offsets._matrix(stored).tolist() == rows.tolist()


# --- images ---------------------------------------------------------------------------------------------------------


def test_quality_is_shared_over_the_larger_count() -> None:
    truths = [truth("a", [CAT]), truth("b", [CAT, DOG]), truth("c", [CAT]), truth("d", [])]
    rows = [row("a", [CAT]), row("b", [CAT]), row("c", [CAT, DOG, DOG]), row("d", [])]
    found = drawings.qualities(evaluate(truths, header(), rows))
    assert found.tolist() == pytest.approx([1.0, 0.5, 1 / 3, float("nan")], nan_ok=True)


def test_no_image_is_shown_twice() -> None:
    quality_of = np.array([0.1, 0.9, float("nan"), 0.5, 0.7, 0.3, 0.2])
    found = drawings.chosen(quality_of)
    assert (found["Best images"].tolist(), found["Worst images"].tolist()) == ([1, 4], [0, 6])
    assert sorted(found["Random images"].tolist()) == [3, 5]


def test_the_random_images_are_the_same_each_time() -> None:
    quality_of = np.linspace(0, 1, 100)
    first, second = (drawings.chosen(quality_of)["Random images"].tolist() for _ in range(2))
    assert (len(first), first) == (4, second)


def test_a_picture_tells_what_became_of_each_box() -> None:
    lynx = ("lynx", (60.0, 60.0, 90.0, 90.0))
    truths = [truth("a", [CAT, DOG])]
    rows = [row("a", [lynx, CAT, ("cat", (0.0, 90.0, 5.0, 99.0))], [0.9, float("nan"), 0.2])]
    (group, *_) = drawings.drawings(evaluate(truths, header(), rows), truths)
    assert list(group.pictures[0].lines) == [
        "1: lynx, score 0.90, IoU 1.00 with dog",
        "3: cat, score 0.20, on no true box",
        "2: cat, no score, IoU 1.00",
        "missed: dog",
    ]


def test_an_image_that_cannot_be_opened_is_grey_and_says_so() -> None:
    def missing() -> None:
        raise InputError("no image file at a.jpg")

    truths = [attrs.evolve(truth("a", [CAT]), open=missing)]  # type: ignore[arg-type]
    (group, *_) = drawings.drawings(evaluate(truths, header(), [row("a", [CAT])]), truths)
    assert group.pictures[0].caption == "a, 100 x 100 px (no image file at a.jpg)"


def test_a_box_far_outside_is_drawn() -> None:
    truths = [truth("a", [CAT])]
    found = evaluate(truths, header(), [row("a", [("cat", (-1e30, 0.0, 1e30, 1e30))])])
    (group, *_) = drawings.drawings(found, truths)
    assert len(group.pictures) == 1


# --- errors ---------------------------------------------------------------------------------------------------------


def test_groups_of_sizes_are_of_equal_count_and_rising() -> None:
    sides = np.random.default_rng(0).uniform(5, 200, 100)
    groups = quality.size_groups(sides)
    assert [len(group) for group in groups] == [10] * 10
    assert all(sides[a].max() <= sides[b].min() for a, b in pairwise(groups))


def test_few_boxes_are_one_group() -> None:
    assert [group.tolist() for group in quality.size_groups(np.array([3.0, 1.0]))] == [[1, 0]]


# --- distributions --------------------------------------------------------------------------------------------------


def test_the_soft_target_is_a_gaussian_that_sums_to_one() -> None:
    target = coordinates.soft_target(400.0, 2.0, 1000)
    assert target.sum() == pytest.approx(1.0)
    assert target[400] == pytest.approx(0.1995, abs=1e-4)


def test_the_best_and_the_worst_recorded_box_are_shown() -> None:
    truths, rows, found = evaluated(6)
    groups = coordinates.distribution_groups(recorded(rows), found, truths, DEFAULT_QUANTISATION, 10.0)
    assert [len(group.pictures) for group in groups] == [4, 4]
    ious = [float(group.title.rpartition(" ")[2]) for group in groups]
    assert ious[0] >= ious[1]


def test_a_box_of_an_unknown_image_is_left_out() -> None:
    truths, rows, found = evaluated(6)
    strange = [attrs.evolve(item, image="elsewhere.jpg") for item in recorded(rows)]
    assert coordinates.distribution_groups(strange, found, truths, DEFAULT_QUANTISATION, None) == []


# --- the page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "expected"), [(80, "a" * 80), (81, "a" * 79 + "…")])
def test_a_long_label_is_cut(length: int, expected: str) -> None:
    assert page.short("a" * length) == expected
