"""What `coordcore data convert` writes, `coordcore eval` reads."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from coco import ANNOTATIONS
from conftest import coordcore
from coordcore.quantisation import QUANTISATIONS
from coordcore_data.convert.conversion import Conversion, convert
from coordcore_detection.evaluate.results import Result, read
from coordcore_detection.evaluate.truth_sources import truth_from_records
from coordcore_detection.predict import prediction_files
from coordcore_detection.predict.predictions import VERSION, Box, Header, Row

DETECTION_TESTS = Path(__file__).parents[2] / "plugins" / "coordcore-detection" / "tests"
_SPEC = importlib.util.spec_from_file_location("lvis_support", DETECTION_TESTS / "lvis_support.py")
assert _SPEC is not None
assert _SPEC.loader is not None
lvis_support = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(lvis_support)


@pytest.mark.parametrize("space", ["pixel", "norm1", "bin"])
def test_evaluation_reads_what_is_converted(tmp_path: Path, space: str) -> None:
    records, spec = tmp_path / "records.jsonl", QUANTISATIONS["nearest_999"]
    written = {"space": space, "quantisation": spec if space == "bin" else None}
    convert(Conversion(source=ANNOTATIONS, output=records, source_format="coco", **written))
    truths = truth_from_records(records, space=space, quantisation=spec, question="?")
    images = json.loads(ANNOTATIONS.read_text())["images"]

    assert [truth.key for truth in truths] == [image["file_name"] for image in images]
    assert (sum(len(truth.boxes) for truth in truths), sum(int(truth.crowd.sum()) for truth in truths)) == (839, 9)


def scored(tmp_path: Path, detections: list[dict[str, Any]], source: Path, source_format: str) -> Result:
    """The evaluation by `coordcore eval` of COCO's results, on what `coordcore data convert` makes of a COCO file."""
    content = json.loads(source.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    records = tmp_path / "records.jsonl"
    convert(Conversion(source=source, output=records, source_format=source_format, space="pixel", purpose="evaluation"))
    by_id = {json.loads(line)["metadata"]["image_id"]: json.loads(line) for line in records.open()}
    boxes: dict[int, list[Box]] = {item["id"]: [] for item in content["images"]}
    for detection in detections:
        x, y, width, height = detection["bbox"]
        box = (x, y, x + width, y + height)
        boxes[detection["image_id"]].append(
            Box(label=names[detection["category_id"]], box=box, bins=(0, 0, 0, 0), score=detection["score"])
        )
    rows = [
        Row(
            image=by_id[image]["images"][0],
            width=by_id[image]["width"],
            height=by_id[image]["height"],
            text="",
            boxes=found,
        )
        for image, found in boxes.items()
    ]
    header = Header(
        predictions=VERSION,
        checkpoint="model",
        quantisation=QUANTISATIONS["nearest_999"].as_dict(),
        decoding={},
        score="min",
    )
    prediction_files.write(tmp_path / "predictions.jsonl", header, rows)
    coordcore("eval", "predictions.jsonl", "records.jsonl", "--space", "pixel", "--output", "out.json", cwd=tmp_path)
    return read(tmp_path / "out.json")


def test_coco_is_measured_as_by_pycocotools_with_the_areas_of_the_masks(tmp_path: Path) -> None:
    detections = json.loads((ANNOTATIONS.parent / "coco_val2014_100_results.json").read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(ANNOTATIONS))
        theirs = COCOeval(truth, truth.loadRes(detections), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    names = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
    names += ["AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"]
    found = scored(tmp_path, detections, ANNOTATIONS, "coco")
    assert [found.metrics[name] for name in names] == pytest.approx(theirs.stats.tolist(), abs=1e-12)
    assert [round(found.metrics[f"AP_{size}"] or 0, 3) for size in ("small", "medium", "large")] == [
        0.586,
        0.519,
        0.501,
    ]
    assert found.contract["area_of"] == "object, where the truth says it; else box"


def test_lvis_is_measured_as_by_lvis_api(tmp_path: Path) -> None:
    """The golden values of coordcore-detection's tests, from the LVIS file on."""
    content, detections = lvis_support.dataset()
    (tmp_path / "lvis.json").write_text(json.dumps(content))
    found = scored(tmp_path, detections, tmp_path / "lvis.json", "lvis")
    golden = json.loads((DETECTION_TESTS / "lvis_golden.json").read_text())
    names = {"APs": "AP_small", "APm": "AP_medium", "APl": "AP_large", "AR@300": "AR300"}
    names |= {"ARs@300": "AR_small", "ARm@300": "AR_medium", "ARl@300": "AR_large"}
    assert {name: found.metrics[names.get(name, name)] for name in golden} == pytest.approx(golden, abs=1e-12)
