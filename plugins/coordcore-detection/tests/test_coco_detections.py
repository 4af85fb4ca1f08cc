"""COCO results evaluated: the same AP as pycocotools', and as the predictions that they were written from."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from evaluation_support import header
from test_order import NAMES, by_pycocotools, golden, records, rows
from typer.testing import CliRunner, Result

from coordcore.cli import app
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_detection.evaluate import results
from coordcore_detection.evaluate.truth_sources import truth_from_records
from coordcore_detection.predict import coco_detections, prediction_files
from coordcore_detection.predict.boxes import mark_duplicates

FIELDS = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 30], "score": 0.9}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def record(image: str, *labels: str, **metadata: Any) -> dict[str, Any]:
    objects = [{"desc": label, "bbox_2d": [10, 10, 50, 40]} for label in labels]
    return {"images": [image], "width": 100, "height": 100, "objects": objects, "metadata": metadata}


def write(path: str, items: list[Any]) -> None:
    Path(path).write_text("".join(json.dumps(item) + "\n" for item in items))


def run(predictions: str, *more: str) -> Result:
    return CliRunner().invoke(
        app, ["eval", predictions, "val.jsonl", "--space", "pixel", "--outside", "clip", *more, "--overwrite"]
    )


def measured(found: Any, truth: list[dict[str, Any]], *more: str) -> tuple[results.Result, str]:
    """What the command writes of detections, and what it says on the way."""
    Path("r.json").write_text(json.dumps(found))
    write("val.jsonl", truth)
    done = run("r.json", "--output", "e.json", *more)
    assert done.exit_code == 0, done.output
    return results.read(Path("e.json")), done.stderr


def refused(found: Any, truth: list[dict[str, Any]], *more: str) -> str:
    Path("r.json").write_text(found if isinstance(found, str) else json.dumps(found))
    write("val.jsonl", truth)
    done = run("r.json", *more)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return done.stderr


@pytest.mark.parametrize("levels", [1, 3, 1000])
@pytest.mark.parametrize("ids", ["file", "text"])
def test_the_twelve_numbers_are_those_of_pycocotools(ids: str, levels: int) -> None:
    coco, found = golden(ids=ids, levels=levels)
    Path("coco.json").write_text(json.dumps(coco))
    result, said = measured(found, records(coco), "--categories", "coco.json")
    assert [result.metrics[name] for name in NAMES] == pytest.approx(by_pycocotools(coco, found), abs=1e-9)
    assert (result.contract["score"], result.contract["decoding"]["categories"]) == ("score", "coco.json")
    assert f"r.json: {len(found)} boxes on " in said


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("more", [(), ("--limit", "40"), ("--categories", "coco.json")])
def test_what_eval_wrote_measures_as_the_predictions_did(ids: bool, more: tuple[str, ...]) -> None:
    coco, found = golden(ids="int", levels=1000)
    truth = records(coco)
    if not ids:
        for item in truth:
            del item["metadata"]["image_id"]
    Path("coco.json").write_text(json.dumps(coco))
    write("val.jsonl", truth)
    predicted = rows(coco, found)
    for row in predicted:
        mark_duplicates(row.boxes)
    prediction_files.write(Path("p.jsonl"), header(), predicted)
    assert run("p.jsonl", "--output", "p.json", "--coco-results", "r.json", *more).exit_code == 0
    written = json.loads(Path("r.json").read_text())
    result, said = measured(written, truth, *more)
    expected = results.read(Path("p.json")).metrics
    assert {name: expected[name] for name in NAMES} == {
        name: pytest.approx(result.metrics[name], abs=1e-9) for name in NAMES
    }
    if more[:1] == ("--categories",):  # else boxes of labels that no record has are not in the file, nor in AP
        assert result.metrics.keys() == expected.keys()
        for name, value in expected.items():
            assert result.metrics[name] == pytest.approx(value, abs=1e-9), name
    assert ("image ids were taken for 1, 2, ..." in said) is not ids
    assert ("category ids were taken for 1, 2, ..." in said) is ("--categories" not in more)


def test_images_without_a_detection_are_answered_with_nothing() -> None:
    truth = [record("a.png", "cat", image_id=1), record("b.png", image_id=2), record("c.png", "dog", image_id=3)]
    result, said = measured([FIELDS], truth)
    assert (result.counts["missing_images"], result.metrics["AP"]) == (0, 0.5)
    assert "r.json: 1 boxes on 1 images; 2 images without any are answered with nothing;" in said


def test_lines_images_elsewhere_and_boxes_that_masks_go_with() -> None:
    truth = [record("a.png", "cat", image_id=1)]
    write("val.jsonl", truth)
    write("r.jsonl", [FIELDS | {"segmentation": {"size": [100, 100], "counts": "a"}}, FIELDS | {"image_id": 9}])
    done = run("r.jsonl", "--json")
    found = json.loads(done.stdout)
    assert (found["metrics"]["AP"], found["counts"]["unknown_images"]) == (1.0, 1)
    assert "1 predicted images are not in the ground truth: left out ('9')" in found["notes"]


def test_ids_of_other_tools_may_be_names() -> None:
    truth = [record("x/dog.png", "cat"), record("x/eel.png", "cat")]
    result, told = measured([FIELDS | {"image_id": "eel"}, FIELDS | {"image_id": "dog"}], truth)
    assert result.metrics["AP"] == 1.0
    assert "image ids were taken for names of images" in told


def test_a_number_that_may_be_a_place_or_a_name_is_refused() -> None:
    truth = [record("x/2.png", "cat"), record("x/1.png", "cat")]
    said = refused([FIELDS], truth)
    assert (
        "r.json: [0]: image_id: 1 is the number of 'x/2.png', counting the records, and the name of 'x/1.png'" in said
    )
    assert measured([FIELDS], truth[::-1])[0].counts["predicted_boxes"] == 1
    assert measured([FIELDS], [record("x/1.png", "cat"), record("y/1.png", "cat")])[0].counts["predicted_boxes"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"bbox": [10, 10, -4, 30]},
            "r.json: [1]: bbox: [10, 10, -4, 30] has a negative size; COCO's boxes are [x, y,",
        ),
        ({"bbox": [10, 10, 40]}, "r.json: [1]: bbox: must be [x, y, width, height] in pixels, got [10, 10, 40]"),
        ({"bbox": [10, 10, 40, float("nan")]}, "r.json: [1]: bbox: must be [x, y, width, height] in pixels, got [10, "),
        ({"bbox": [1e308, 10, 1e308, 1]}, "has an end that is no number"),
        ({"bbox": None}, "r.json: [1]: bbox: must be [x, y, width, height] in pixels, got null"),
        ({"score": float("nan")}, "r.json: [1]: score: must be a finite number, got NaN; AP ranks detections by it"),
        ({"score": "0.5"}, 'r.json: [1]: score: must be a finite number, got "0.5"'),
        ({"score": ...}, "r.json: [1]: score: must be a finite number, and there is none; AP ranks detections by it"),
        ({"category_id": 3}, "r.json: [1]: category_id: 3 is none of 1, 2, by which the labels of the records are"),
        ({"category_id": 0}, "r.json: [1]: category_id: 0 is none of 1, 2"),
        ({"category_id": "cat"}, 'r.json: [1]: category_id: must be a whole number, got "cat"'),
        ({"category_id": 1.5}, "r.json: [1]: category_id: must be a whole number, got 1.5"),
        ({"category_id": ...}, "r.json: [1]: is no detection of COCO's results format as those before it"),
        ({"image_id": None}, "r.json: [1]: image_id: must be an image's id, got null"),
        (
            {"bbox": ..., "segmentation": {"counts": "a"}},
            "r.json: [1]: holds segmentation and no bbox; eval measures boxes of COCO results: write the box around",
        ),
        ({"bbox": [], "keypoints": [1, 2, 2]}, "r.json: [1]: holds keypoints and no bbox"),
    ],
)
def test_what_is_no_detection_is_told_with_its_place(change: dict[str, Any], message: str) -> None:
    wrong = {key: value for key, value in (FIELDS | change).items() if value is not ...}
    assert message in refused([FIELDS, wrong], [record("a.png", "cat", "dog", image_id=1)])


@pytest.mark.parametrize(
    ("found", "truth", "message"),
    [
        ("[]", [record("a.png", "cat")], "r.json: holds no answers, and does not say to which images"),
        (
            [FIELDS | {"image_id": 7}],
            [record("a.png", "cat", image_id=1)],
            "r.json: [0]: image_id: 7 is the id of no record, and neither is any other; evaluate against the records",
        ),
        (
            [FIELDS, FIELDS | {"image_id": 7}],
            [record("a.png", "cat"), record("b.png", "cat")],
            "r.json: [1]: image_id: 7 is the id of no record: none has a metadata.image_id, or not one each, so that 1 "
            "to 2 count them in their order; give them the ids of their images",
        ),
        (
            [FIELDS],
            [record("a.png", "cat", image_id=1), record("a.png", "dog", image_id=1)],
            "r.json: [0]: image_id: 1 is of 2 records, 'a.png' and 'a.png#2', and COCO results do not say which",
        ),
        ([{"image_id": 1, "category_id": 1, "segmentation": {}}], [record("a.png", "cat")], "holds segmentation and"),
    ],
)
def test_what_cannot_be_joined_is_told(found: Any, truth: list[dict[str, Any]], message: str) -> None:
    assert message in refused(found, truth)


def test_options_that_do_not_fit() -> None:
    truth = [record("a.png", "cat", image_id=1)]
    Path("c.json").write_text('{"categories": [{"id": 5, "name": "cat"}]}')
    assert "category_id: 1 is none of the ids of --categories: 5; name" in refused(
        [FIELDS], truth, "--categories", "c.json"
    )
    assert "--numbers: r.json is a COCO results file, which" in refused([FIELDS], truth, "--numbers", "pixel")
    assert measured([FIELDS | {"category_id": 5}], truth, "--categories", "c.json")[0].metrics["AP"] == 1.0


def test_a_hundred_thousand_detections_take_seconds() -> None:
    truth = [record(f"{n}.png", "cat", "dog", image_id=n) for n in range(2_000)]
    found = [FIELDS | {"image_id": n % 2_000, "category_id": 1 + n % 2, "score": n / 1e5} for n in range(100_000)]
    write("val.jsonl", truth)
    start = time.process_time()
    detections = coco_detections.read([(f"r.json: [{n}]", item) for n, item in enumerate(found)])
    images = truth_from_records(Path("val.jsonl"), space="pixel", quantisation=DEFAULT_QUANTISATION, question="")
    given, _ = coco_detections.rows(detections, images, None)
    assert time.process_time() - start < 20
    assert (len(given), sum(len(row.boxes) for row in given)) == (2_000, 100_000)
