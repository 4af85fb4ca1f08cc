"""The parts of the report: what a run folder tells, which images are chosen, which errors are counted."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
from evaluation_support import header, row, truth
from PIL import Image, ImageColor
from report_support import MANIFEST, evaluated, recorded, run_folder

from coordcore import Component, InputError, hookimpl
from coordcore.discovery import discover
from coordcore.hookspecs import GROUP
from coordcore.manifest import load
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_detection.evaluate.evaluation import evaluate
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.predictions import Box, Row
from coordcore_detection.report import charts, coordinates, drawings, offsets, page, quality, training

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


def test_checkpoints_are_shown_by_every_evaluator_that_measures_as_detection() -> None:
    columns = dict.fromkeys(
        ["eval/detection/AP", "eval/mine/AP", "eval/mine/oracle_AP", "eval/mine/text_AP", "eval/percent/AP", "AP"]
    )
    shown = [name for name in columns if training._of_checkpoint(name, "AP", columns)]
    assert shown == ["eval/detection/AP", "eval/mine/AP"]


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

    truths = [attrs.evolve(truth("a", [CAT]), open=missing)]
    (group, *_) = drawings.drawings(evaluate(truths, header(), [row("a", [CAT])]), truths)
    assert group.pictures[0].caption == "a, 100 x 100 px (no image file at a.jpg)"


def test_a_box_far_outside_is_drawn() -> None:
    truths = [truth("a", [CAT])]
    found = evaluate(truths, header(), [row("a", [("cat", (-1e30, 0.0, 1e30, 1e30))])])
    (group, *_) = drawings.drawings(found, truths)
    assert len(group.pictures) == 1


OUTLINES = {"kite": [(20.0, 10.0), (80.0, 30.0), (70.0, 80.0), (10.0, 60.0)], "roof": [(5, 95), (50, 70), (95, 95)]}


def shapes(key: str, labels: Sequence[str], *points: tuple[str, float, float]) -> TruthImage:
    outlines = {index: np.array(OUTLINES[label], dtype=float) for index, label in enumerate(labels)}
    bounds = np.array([[*corners.min(0), *corners.max(0)] for corners in outlines.values()]).reshape(-1, 4)
    return attrs.evolve(
        truth(key, []),
        labels=tuple(labels),
        boxes=bounds,
        crowd=np.zeros(len(labels), dtype=bool),
        outlines=outlines,
        points=points,
        open=lambda: Image.new("RGB", (100, 100), "white"),
    )


def shape(label: str, kind: str, points: Sequence[float], score: float = 0.5) -> Box:
    box = (min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2]))
    return Box(label=label, box=box, bins=(0, 0, 0, 0), score=score, kind=kind, points=list(points))


def drawn(truths: Sequence[TruthImage], *boxes: Box) -> tuple[Any, Any]:
    """The picture of one image, as its pixels, [400, 400, 3], and as it stands on the page."""
    answer = [Row(image=truths[0].key, width=100, height=100, text="", boxes=list(boxes))]
    (group, *_) = drawings.drawings(evaluate(truths, header(), answer), truths)
    pixels = np.asarray(Image.open(io.BytesIO(group.pictures[0].png)).convert("RGB")).astype(int)
    return pixels, group.pictures[0]


def colour_at(pixels: Any, x: float, y: float) -> set[str]:
    """Which of the two colours are within three pixels of a place in the image."""
    scale = len(pixels) / 100
    top, left = round(y * scale) - 3, round(x * scale) - 3
    near = {tuple(value) for value in pixels[max(0, top) : top + 7, max(0, left) : left + 7].reshape(-1, 3).tolist()}
    named = {ImageColor.getrgb(charts.ORANGE): "predicted", ImageColor.getrgb(charts.SKY): "true"}
    return {name for value, name in named.items() if value in near}


def test_quads_and_polygons_are_drawn_along_their_sides() -> None:
    quad, roof = (np.array(OUTLINES[name]) for name in ("kite", "roof"))
    pixels, picture = drawn(
        [shapes("a", ["kite"])], shape("kite", "quad", [*(quad + 3).ravel()]), shape("roof", "poly", [*roof.ravel()])
    )
    for corners, who in ((quad, "true"), (quad + 3, "predicted"), (roof, "predicted")):
        for start, stop in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            seen = [colour_at(pixels, *(start + (stop - start) * part)) for part in np.linspace(0, 1, 12)]
            assert sum(who in colours for colours in seen) > (6 if who == "true" else 10)
    for corner in ((10, 10), (80, 10), (83, 83), (13, 83), (5, 70)):  # of the boxes around them
        assert colour_at(pixels, *corner) == set()
    assert picture.alt == "a with 1 true and 2 predicted objects"
    assert picture.lines[0].startswith("1: kite, score 0.50, IoU 0.8")  # that of the boxes is 0.87


def test_points_are_drawn_and_told() -> None:
    pixels, picture = drawn(
        [shapes("a", [], ("button", 30, 60), ("menu", 70, 20))],
        shape("button", "point", [33, 64], float("nan")),
        shape("menu", "point", [90, 90]),
    )
    assert colour_at(pixels, 33, 64) >= {"predicted"}
    assert colour_at(pixels, 90, 90) == {"predicted"}
    assert colour_at(pixels, 70 + 8 / 4, 20) == {"true"}
    assert colour_at(pixels, 70, 20) == set()  # a ring
    assert list(picture.lines) == [
        "1: button, no score, 5.0 px from button",
        "2: menu, score 0.50, 67.1 px from button",
    ]


def test_points_in_regions_are_told_by_these() -> None:
    truths = [shapes("a", ["kite"])]
    found = evaluate(
        truths, header(), [Row(image="a", width=100, height=100, text="", boxes=[shape("kite", "point", [40, 40])])]
    )
    assert drawings.qualities(found).tolist() == [1.0]
    _, picture = drawn(truths, shape("kite", "point", [40, 40]), shape("kite", "point", [15, 15]))
    assert list(picture.lines[1:]) == ["1: kite, score 0.50, in kite", "2: kite, score 0.50, in nothing true"]


def test_images_of_points_are_ranked_by_those_that_are_found() -> None:
    truths = [shapes(key, [], ("button", 30, 60), ("menu", 70, 20)) for key in "ab"]
    near, far = (shape("button", "point", [30, y]) for y in (61, 90))
    rows = [
        Row(image="a", width=100, height=100, text="", boxes=[near]),
        Row(image="b", width=100, height=100, text="", boxes=[near, far, far, far]),
    ]
    assert drawings.qualities(evaluate(truths, header(), rows)).tolist() == [0.5, 0.25]


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
