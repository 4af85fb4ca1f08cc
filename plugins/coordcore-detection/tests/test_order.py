"""AP does not depend on the order of records: that of pycocotools, image by image in the order of their ids."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_support import ANNOTATIONS, header
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from typer.testing import CliRunner

from coordcore.cli import app
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_detection.evaluate import calibration, results
from coordcore_detection.evaluate.compare import compare
from coordcore_detection.evaluate.evaluation import evaluate
from coordcore_detection.evaluate.gather import image_order
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.evaluate.truth_sources import truth_from_records
from coordcore_detection.predict import prediction_files
from coordcore_detection.predict.predictions import Box, Row

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
NAMES += ("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")
RESULT = "evaluation.json"

PUBLISHED = {"AP": 0.505, "AP50": 0.697, "AP75": 0.573, "AR1": 0.387, "AR10": 0.594, "AR100": 0.595}
"""What pycocotools' demonstration prints of its own detections, of all sizes together."""

Coco = dict[str, Any]


def golden(*, ids: str, levels: int) -> tuple[Coco, list[dict[str, Any]]]:
    """100 images of COCO with 839 boxes, and detections near them under `levels` different scores.

    One image has 130 detections of a label. ids: "int" and "text" give the images other ids than their files' numbers.
    """
    coco: Coco = json.loads(ANNOTATIONS.read_text())
    rng = np.random.default_rng(levels)
    if ids != "file":
        new = rng.permutation(len(coco["images"])) + 1
        named = {image["id"]: int(n) if ids == "int" else f"n{n}" for image, n in zip(coco["images"], new, strict=True)}
        for image in coco["images"]:
            image["id"] = named[image["id"]]
        for annotation in coco["annotations"]:
            annotation["image_id"] = named[annotation["image_id"]]
    categories = [item["id"] for item in coco["categories"]]
    found = []
    for number, annotation in enumerate(coco["annotations"]):
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        for _ in range(130 if number == 0 else rng.integers(0, 4)):
            x, y, w, h = np.array(annotation["bbox"]) + rng.normal(0, 0.06, 4) * np.tile(annotation["bbox"][2:], 2)
            category = annotation["category_id"] if rng.random() < 0.8 else rng.choice(categories)
            box = [float(value) for value in (x, y, max(1.0, w), max(1.0, h))]
            score = float(rng.integers(0, levels + 1) / levels)
            found.append(
                {"image_id": annotation["image_id"], "category_id": int(category), "bbox": box, "score": score}
            )
    return coco, found


def by_pycocotools(coco: Coco, found: list[dict[str, Any]]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(coco)) | {"info": {}}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(found))), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats: list[float] = evaluation.stats.tolist()
    return stats


def records(coco: Coco) -> list[dict[str, Any]]:
    names = {category["id"]: category["name"] for category in coco["categories"]}
    made = []
    for image in coco["images"]:
        objects: dict[bool, list[Any]] = {False: [], True: []}
        for annotation in coco["annotations"]:
            if annotation["image_id"] == image["id"]:
                x, y, w, h = annotation["bbox"]
                item = {"desc": names[annotation["category_id"]], "bbox_2d": [x, y, x + w, y + h]}
                objects[bool(annotation["iscrowd"])].append(item)
        made.append(
            {
                "images": [image["file_name"]],
                "width": image["width"],
                "height": image["height"],
                "objects": objects[False],
                "metadata": {"image_id": image["id"], "crowd": objects[True]},
            }
        )
    return made


def rows(coco: Coco, found: list[dict[str, Any]]) -> list[Row]:
    names = {category["id"]: category["name"] for category in coco["categories"]}
    made = []
    for image in coco["images"]:
        boxes = []
        for item in found:
            if item["image_id"] == image["id"]:
                x, y, w, h = item["bbox"]
                box = (x, y, x + w, y + h)
                boxes.append(Box(label=names[item["category_id"]], box=box, bins=(0, 0, 0, 0), score=item["score"]))
        made.append(Row(image=image["file_name"], width=image["width"], height=image["height"], text="", boxes=boxes))
    return made


def turned(items: Sequence[Any], seed: int) -> list[Any]:
    return [items[index] for index in np.random.default_rng(seed).permutation(len(items))]


def measured(folder: Path, truth: list[dict[str, Any]], predicted: list[Row], *more: str) -> results.Result:
    """What the command writes."""
    folder.mkdir()
    (folder / "val.jsonl").write_text("".join(json.dumps(item) + "\n" for item in truth))
    prediction_files.write(folder / "predictions.jsonl", header(), predicted)
    command = ["eval", str(folder / "predictions.jsonl"), str(folder / "val.jsonl"), "--space", "pixel"]
    done = CliRunner().invoke(app, [*command, "--outside", "clip", "--output", str(folder / RESULT), *more])
    assert done.exit_code == 0, done.output
    return results.read(folder / RESULT)


@pytest.mark.parametrize("levels", [1, 3, 1000])
@pytest.mark.parametrize("ids", ["file", "int", "text"])
def test_the_twelve_numbers_are_those_of_pycocotools_in_any_order(tmp_path: Path, ids: str, levels: int) -> None:
    coco, found = golden(ids=ids, levels=levels)
    expected = by_pycocotools(coco, found)
    truth, predicted = records(coco), rows(coco, found)
    written = set()
    for seed in range(3):
        result = measured(tmp_path / str(seed), turned(truth, seed), turned(predicted, 10 + seed))
        assert [result.metrics[name] for name in NAMES] == pytest.approx(expected, abs=1e-12)
        written.add((tmp_path / str(seed) / RESULT).read_bytes().replace(b"/" + str(seed).encode() + b"/", b"/"))
    assert len(written) == 1


@pytest.mark.parametrize("levels", [None, 3])
def test_pycocotools_own_detections_give_its_published_numbers(tmp_path: Path, levels: int | None) -> None:
    coco: Coco = json.loads(ANNOTATIONS.read_text())
    found = json.loads(ANNOTATIONS.with_name("coco_val2014_100_results.json").read_text())
    for annotation in coco["annotations"]:
        annotation["area"] = (
            annotation["bbox"][2] * annotation["bbox"][3]
        )  # records have boxes, not the masks whose areas these are
    for item in found if levels else []:
        item["score"] = round(item["score"] * levels) / levels
    expected = by_pycocotools(coco, found)
    for seed in range(3):
        truth, predicted = turned(records(coco), seed), turned(rows(coco, found), 10 + seed)
        result = measured(tmp_path / str(seed), truth, predicted)
        assert [result.metrics[name] for name in NAMES] == pytest.approx(expected, abs=1e-12)
        shown = {name: round(float(result.metrics[name] or 0.0), 3) for name in PUBLISHED}
        assert (shown == PUBLISHED) is (levels is None)


def test_without_ids_the_numbers_in_file_names_decide(tmp_path: Path) -> None:
    coco, found = golden(ids="int", levels=2)
    for image in coco["images"]:
        image["file_name"] = f"images/{image['id']}.jpg"
    truth = [{key: value for key, value in record.items() if key != "metadata"} for record in records(coco)]
    coco["annotations"] = [annotation for annotation in coco["annotations"] if not annotation["iscrowd"]]
    result = measured(tmp_path / "a", turned(truth, 0), turned(rows(coco, found), 1))
    assert [result.metrics[name] for name in NAMES] == pytest.approx(by_pycocotools(coco, found), abs=1e-12)
    assert result.contract["truth"]["image_order"] == "key"


def test_more_detections_than_a_hundred_are_those_of_pycocotools(tmp_path: Path) -> None:
    coco, found = golden(ids="file", levels=3)
    truth, predicted = records(coco), rows(coco, found)
    few, many = (measured(tmp_path / n, truth, predicted, "--max-detections", n) for n in ("5", "300"))
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = coco | {"info": {}}
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(found), "bbox")
        evaluation.params.maxDets = [1, 5, 300]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][..., 0, -1], evaluation.eval["recall"][..., 0, :]
    assert many.metrics["AP"] == pytest.approx(precision[precision > -1].mean(), abs=1e-12)
    assert many.metrics["AR300"] == pytest.approx(recall[..., 2][recall[..., 2] > -1].mean(), abs=1e-12)
    assert few.metrics["AR5"] == pytest.approx(recall[..., 1][recall[..., 1] > -1].mean(), abs=1e-12)
    assert (few.contract["max_detections"], many.contract["max_detections"]) == ([1, 5], [1, 10, 300])


def test_compare_shows_what_eval_wrote(tmp_path: Path) -> None:
    coco, found = golden(ids="int", levels=1)
    truth, predicted = records(coco), rows(coco, found)
    a = measured(tmp_path / "a", turned(truth, 1), predicted)
    b = measured(tmp_path / "b", turned(truth, 2), turned(predicted, 3))
    for line in compare(a, b, resamples=2).lines:
        assert (line.a, line.b) == (a.metrics[line.metric], b.metrics[line.metric])
        assert line.difference in (0.0, None)


def test_a_calibration_whose_scores_are_tied_is_the_same_in_any_order(tmp_path: Path) -> None:
    coco, found = golden(ids="int", levels=1000)
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records(coco)))
    truth: list[TruthImage] = list(
        truth_from_records(
            tmp_path / "val.jsonl", space="pixel", quantisation=DEFAULT_QUANTISATION, question="", outside="clip"
        )
    )
    predicted = rows(coco, found)
    for item in predicted:
        for box in item.boxes:
            box.scores = {"min": box.score}
    written = set()
    for seed in range(3):
        mixed = turned(predicted, seed)
        fitted = calibration.fit_to_predictions(turned(truth, seed), header(), mixed, method="isotonic", score="min")
        for item in mixed:
            for box in item.boxes:
                box.score = fitted.apply(box.scores["min"])
        assert len({box.score for item in mixed for box in item.boxes}) < 500
        result = evaluate(turned(truth, 5 + seed), header(), turned(mixed, 9 + seed)).result
        written.add((json.dumps(fitted.as_dict()), results.as_json(result)))
    assert len(written) == 1


@pytest.mark.parametrize(
    ("images", "expected", "name"),
    [
        ([("b", 10), ("a", 9)], "ab", "image_id"),
        ([("b", 10), ("a", 9.5)], "ab", "image_id"),
        ([("b", "10"), ("a", "9")], "ba", "image_id"),
        ([("b", "10"), ("a", 9)], "ba", "image_id"),
        ([("b", 7), ("a", 7)], "ab", "image_id"),
        ([("10.jpg", 1), ("9.jpg", None)], ["9.jpg", "10.jpg"], "key"),
        ([("x/9/b", None), ("x/10/a", None)], ["x/9/b", "x/10/a"], "key"),
        ([("01", None), ("1", None)], ["01", "1"], "key"),
        ([("9" * 5000, None), ("猫", None), ("8" * 5000, None)], ["8" * 5000, "9" * 5000, "猫"], "key"),
    ],
)
def test_the_order_of_images(images: list[tuple[str, Any]], expected: Sequence[str], name: str) -> None:
    for given in (images, images[::-1]):
        places, called = image_order(given)
        assert ([given[index][0] for index in places], called) == (list(expected), name)
