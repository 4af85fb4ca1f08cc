"""The metrics against pycocotools and against cases worked out by hand."""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import attrs
import numpy as np
import pytest
from evaluation_support import random_scene
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from coordcore_detection.evaluate.average_precision import AveragePrecision, average_precision
from coordcore_detection.evaluate.matching import IOU_THRESHOLDS, Bools, Flat, Floats, bits, match
from coordcore_detection.evaluate.metrics import (
    Found,
    Images,
    calibration_bin,
    calibration_table,
    per_image,
    ratios,
    weighted,
)

# --- AP and AR ------------------------------------------------------------------------------------------------------


def ours(truth: Flat, crowd: Bools, predicted: Flat, scores: Floats, *, by_label: bool = True) -> AveragePrecision:
    matches = match(truth, crowd, predicted, scores, by_label=by_label)
    return average_precision(truth, crowd, predicted, scores, matches, by_label=by_label)


def by_pycocotools(truth: Flat, crowd: Bools, predicted: Flat, scores: Floats, *, by_label: bool) -> AveragePrecision:
    if not by_label:  # one label for all; its own useCats = 0 would also sort an image's boxes by label
        truth, predicted = (attrs.evolve(item, label=np.zeros_like(item.label)) for item in (truth, predicted))

    def annotations(side: Flat, key: str, values: Any) -> list[dict[str, Any]]:
        sizes = side.boxes[:, 2:] - side.boxes[:, :2]
        return [
            {
                "id": number + 1,
                "image_id": int(side.image[number]) + 1,
                "category_id": int(side.label[number]) + 1,
                "bbox": [*side.boxes[number, :2].tolist(), *sizes[number].tolist()],
                "area": float(sizes[number].prod() if side.areas is None else side.areas[number]),
                "iscrowd": 0,
                key: values[number],
            }
            for number in range(len(side))
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for found in (annotations(truth, "iscrowd", crowd.astype(int)), annotations(predicted, "score", scores)):
            side = COCO()
            side.dataset = {
                "images": [{"id": number + 1} for number in range(12)],
                "categories": [{"id": int(label) + 1} for label in np.unique(truth.label)],
                "annotations": found,
            }
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = evaluation.stats.tolist()
    names = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
    names += ["AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"]
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    counted = precision[:, :, precision[0, 0] > -1]
    return AveragePrecision(
        metrics=dict(zip(names, stats, strict=True)) | {"AP95": float(counted[-1].mean())},
        by_label={
            label: (float(precision[..., k].mean()), float(precision[0, :, k].mean()))
            for k, label in enumerate(np.unique(truth.label).tolist())
        },
        curve={name: counted[t].mean(1).tolist() for name, t in (("50", 0), ("75", 5), ("95", 9))},
    )


@pytest.mark.parametrize("by_label", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ap_and_ar_are_those_of_pycocotools(seed: int, by_label: bool) -> None:
    scene = random_scene(seed)
    found, expected = ours(*scene, by_label=by_label), by_pycocotools(*scene, by_label=by_label)
    assert found.metrics == pytest.approx(expected.metrics, abs=1e-12)
    assert list(found.by_label) == list(expected.by_label)
    np.testing.assert_allclose(list(found.by_label.values()), list(expected.by_label.values()), atol=1e-12)
    assert found.curve == {name: pytest.approx(values, abs=1e-12) for name, values in expected.curve.items()}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_size_classes_go_by_the_areas_of_the_objects_where_they_are_known(seed: int) -> None:
    truth, *rest = random_scene(seed)
    share = np.random.default_rng(seed).uniform(0.2, 1, len(truth))
    smaller = attrs.evolve(truth, areas=(truth.boxes[:, 2:] - truth.boxes[:, :2]).prod(1) * share)
    found, expected = ours(smaller, *rest), by_pycocotools(smaller, *rest, by_label=True)
    assert found.metrics == pytest.approx(expected.metrics, abs=1e-12)
    differ = {name for name, value in ours(truth, *rest).metrics.items() if value != found.metrics[name]}
    assert differ == {f"{kind}_{size}" for kind in ("AP", "AR") for size in ("small", "medium", "large")}


def test_boxes_on_the_edge_of_a_size_class_belong_to_both() -> None:
    truth = flat([0], [0], [[0, 0, 32, 32]])
    result = ours(truth, np.zeros(1, bool), truth, np.ones(1))
    assert [result.metrics[f"AP_{name}"] for name in ("small", "medium", "large")] == [1.0, 1.0, None]


def test_no_true_box_gives_no_value() -> None:
    truth = flat([], [], [])
    result = ours(truth, np.zeros(0, bool), flat([0], [0], [[0, 0, 9, 9]]), np.ones(1))
    assert set(result.metrics.values()) == {None}


def test_only_crowd_regions_give_no_value() -> None:
    truth = flat([0], [0], [[0, 0, 9, 9]])
    assert ours(truth, np.ones(1, bool), truth, np.ones(1)).metrics["AP"] is None


def test_nothing_predicted_gives_zero() -> None:
    truth = flat([0], [0], [[0, 0, 9, 9]])
    result = ours(truth, np.zeros(1, bool), flat([], [], []), np.zeros(0))
    assert (result.metrics["AP"], result.metrics["AR100"], result.metrics["AP_large"]) == (0.0, 0.0, None)


# --- matching -------------------------------------------------------------------------------------------------------


def flat(image: list[int], label: list[int], boxes: list[list[float]]) -> Flat:
    return Flat(
        image=np.array(image, dtype=np.int64),
        label=np.array(label, dtype=np.int64),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
    )


def test_pairs_are_made_by_iou_and_found_boxes_by_score() -> None:
    truth = flat([0], [0], [[0, 0, 10, 10]])
    predicted = flat([0, 0], [0, 0], [[0, 0, 10, 6], [0, 0, 10, 8]])  # IoU .6, .8
    result = match(truth, np.zeros(1, bool), predicted, np.array([0.9, 0.1]), by_label=True)
    assert (result.pair.tolist(), result.iou.tolist()) == ([-1, 0], [0.0, 0.8])
    assert bits(result.found).sum(1).tolist() == [3, 4]  # .50, .55, .60 to the first; .65 to .80 to the second


def test_labels_part_boxes_unless_they_are_not_looked_at() -> None:
    truth, predicted = flat([0], [0], [[0, 0, 10, 10]]), flat([0], [1], [[0, 0, 10, 10]])
    pairs = [
        match(truth, np.zeros(1, bool), predicted, np.ones(1), by_label=item).pair.tolist() for item in (True, False)
    ]
    assert pairs == [[-1], [0]]


def test_boxes_of_other_images_do_not_match() -> None:
    truth, predicted = flat([0], [0], [[0, 0, 10, 10]]), flat([1], [0], [[0, 0, 10, 10]])
    assert match(truth, np.zeros(1, bool), predicted, np.ones(1), by_label=True).pair.tolist() == [-1]


def test_a_crowd_region_excuses_what_lies_inside() -> None:
    truth = flat([0], [0], [[0, 0, 100, 100]])
    predicted = flat([0, 0], [0, 0], [[0, 0, 10, 10], [95, 0, 105, 10]])
    result = match(truth, np.ones(1, bool), predicted, np.ones(2), by_label=True)
    assert (result.pair.tolist(), result.in_crowd.tolist()) == ([-1, -1], [1.0, 0.5])
    assert bits(result.ignored).sum(1).tolist() == [10, 1]


def test_boxes_past_the_hundredth_are_ignored() -> None:
    truth = flat([0], [0], [[0, 0, 10, 10]])
    predicted = flat([0] * 101, [0] * 101, [[50, 50, 60, 60]] * 100 + [[0, 0, 10, 10]])
    result = match(truth, np.zeros(1, bool), predicted, np.arange(101)[::-1] / 101, by_label=True)
    assert (int(result.found[100]), bits(result.ignored)[100].all(), int(result.pair[100])) == (0, True, 0)


def test_matching_in_small_steps_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = random_scene(4)
    whole = match(*scene, by_label=False)
    monkeypatch.setattr("coordcore_detection.evaluate.matching._PAIRS_AT_ONCE", 10)
    steps = match(*scene, by_label=False)
    assert (steps.pair.tolist(), steps.found.tolist()) == (whole.pair.tolist(), whole.found.tolist())


# --- ratios ---------------------------------------------------------------------------------------------------------


def measured(images: Images, found: Found) -> dict[str, float]:
    sums = weighted(per_image(images, found, found), np.ones((1, len(images.truth))))
    return {name: float(value[0]) for name, value in ratios(sums).items()}


def images(truth: list[int], image: list[int], score: list[float]) -> Images:
    return Images(
        truth=np.array(truth),
        alone=np.array(truth) == 1,
        unread=np.zeros(len(truth), bool),
        unfinished=np.zeros(len(truth), bool),
        image=np.array(image, dtype=np.int64),
        score=np.array(score, dtype=np.float64),
        duplicate=np.zeros(len(image), bool),
    )


def found(iou: list[float], hit: list[bool], in_crowd: list[float] | None = None) -> Found:
    return Found(
        iou=np.array(iou), in_crowd=np.array(in_crowd if in_crowd is not None else [0.0] * len(iou)), hit=np.array(hit)
    )


def test_f1_counts_boxes_over_all_images() -> None:
    values = measured(images([2, 1], [0, 0, 0], [0.5] * 3), found([0.96, 0.62, 0.0], [False, False]))
    # 3 true, 3 predicted boxes; right at .5: 2, at .95: 1; 2 up to .60 (3 thresholds), then 1 (7 thresholds)
    assert values["F1_50"] == pytest.approx(2 / 3)
    assert values["F1_95"] == pytest.approx(1 / 3)
    assert values["F1"] == pytest.approx((3 * 2 / 3 + 7 * 1 / 3) / 10)
    assert (values["precision_50"], values["recall_50"]) == pytest.approx((2 / 3, 2 / 3))
    assert values["mean_iou"] == pytest.approx((0.96 + 0.62) / 3)


def test_a_box_in_a_crowd_region_is_no_mistake() -> None:
    values = measured(images([1], [0, 0], [0.5] * 2), found([1.0, 0.0], [True], [0.0, 1.0]))
    assert (values["precision_50"], values["F1"]) == (1.0, 1.0)


def test_accuracy_is_over_images_with_one_true_box() -> None:
    values = measured(images([1, 1, 2], [], []), found([], [True, False, True]))
    assert values["accuracy_50"] == 0.5


def test_counts_and_rates() -> None:
    values = measured(images([1, 3], [0, 0], [0.5, 0.5]), found([0.0, 0.0], [False, False]))
    assert (values["box_count_error"], values["box_count_bias"], values["duplicate_rate"]) == (2.0, -1.0, 0.0)


def test_calibration_error_by_hand() -> None:
    # Bin of .9: mean score .9, half right; bin of .1: mean .1, none right.
    values = measured(images([4], [0] * 4, [0.9, 0.9, 0.1, 0.1]), found([0.7, 0.0, 0.0, 0.3], [False]))
    assert values["ece"] == pytest.approx((2 * abs(0.9 - 0.5) + 2 * abs(0.1 - 0.0)) / 4)


def test_scores_that_are_none_do_not_enter_the_calibration_error() -> None:
    with_nan = measured(images([1], [0, 0], [math.nan, 1.0]), found([0.0, 1.0], [True]))
    assert with_nan["ece"] == 0.0


def test_calibration_bins_hold_their_lower_edge_and_the_last_one_both() -> None:
    assert calibration_bin(np.array([0.0, 1 / 15, 0.999, 1.0])).tolist() == [0, 1, 14, 14]


def test_calibration_table_leaves_out_empty_bins() -> None:
    sums = per_image(images([1], [0], [0.95]), found([0.8], [True]), found([0.8], [True]))
    (bin_,) = calibration_table(sums["calibration"].sum(0))
    assert (bin_["boxes"], bin_["score"], bin_["right"]) == (1.0, 0.95, 1.0)


def test_nothing_to_divide_by_gives_no_value() -> None:
    values = measured(images([0], [], []), found([], [False]))
    assert {name for name, value in values.items() if math.isnan(value)} >= {"F1", "mean_iou", "ece", "accuracy_50"}


def test_thresholds_are_cocos() -> None:
    assert [round(value, 2) for value in IOU_THRESHOLDS.tolist()] == [
        0.5,
        0.55,
        0.6,
        0.65,
        0.7,
        0.75,
        0.8,
        0.85,
        0.9,
        0.95,
    ]
