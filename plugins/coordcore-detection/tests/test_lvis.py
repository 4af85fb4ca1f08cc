"""Federated truth: AP as lvis-api and faster-coco-eval measure it, and what else follows from it."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from evaluation_support import header, row, truth
from lvis_support import HEIGHT, WIDTH, dataset, lvis_api

from coordcore import InputError
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_detection.evaluate import resampling
from coordcore_detection.evaluate.contract import differences
from coordcore_detection.evaluate.evaluation import Evaluated, evaluate
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.evaluate.truth_sources import truth_from_records
from coordcore_detection.predict.predictions import Box, Row

GOLDEN = json.loads((Path(__file__).parent / "lvis_golden.json").read_text())
OURS = {"APs": "AP_small", "APm": "AP_medium", "APl": "AP_large", "AR@300": "AR300"} | {
    f"AR{size[0]}@300": f"AR_{size}" for size in ("small", "medium", "large")
}
"""lvis-api's names of metrics -> ours, where they are not the same."""


def records(path: Path, *, silent: bool = False) -> Path:
    """The data set as `coordcore data convert` writes it. silent: without what makes it LVIS's."""
    content, _ = dataset()
    names = {one["id"]: one for one in content["categories"]}
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for one in content["annotations"]:
        by_image[one["image_id"]].append(one)
    lines = []
    for image in content["images"]:
        found = by_image[image["id"]]
        present = {one["category_id"] for one in found}
        metadata = {
            "image_id": image["id"],
            "absent_categories": [names[one]["name"] for one in image["neg_category_ids"]],
            "incomplete_categories": [names[one]["name"] for one in image["not_exhaustive_category_ids"]],
            "frequencies": {names[one]["name"]: names[one]["frequency"] for one in present},
            "areas": [one["area"] for one in found],
        }
        lines.append(
            {
                "images": [f"{image['id']}.jpg"],
                "width": WIDTH,
                "height": HEIGHT,
                "objects": [
                    {"desc": names[one["category_id"]]["name"], "bbox_2d": corners(one["bbox"])} for one in found
                ],
                "metadata": {"image_id": image["id"]} if silent else metadata,
            }
        )
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def corners(box: list[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]


def answers() -> list[Row]:
    by_image: dict[int, list[Box]] = defaultdict(list)
    for one in dataset()[1]:
        box = tuple(corners(one["bbox"]))
        by_image[one["image_id"]].append(
            Box(label=f"thing {one['category_id']}", box=box, bins=(0, 0, 0, 0), score=one["score"])  # type: ignore[arg-type]
        )
    return [
        Row(image=f"{image}.jpg", width=WIDTH, height=HEIGHT, text="", boxes=boxes) for image, boxes in by_image.items()
    ]


def images(path: Path) -> list[TruthImage]:
    return list(truth_from_records(path, space="pixel", quantisation=DEFAULT_QUANTISATION, question=""))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    return evaluate(images(records(tmp_path_factory.mktemp("lvis") / "val.jsonl")), header(), answers())


def named_as_theirs(metrics: dict[str, float | None]) -> dict[str, float | None]:
    return {name: metrics[OURS.get(name, name)] for name in GOLDEN}


def test_every_metric_is_that_of_lvis_api(measured: Evaluated) -> None:
    assert named_as_theirs(measured.result.metrics) == pytest.approx(GOLDEN, abs=1e-12)


def test_the_golden_values_are_those_of_the_lvis_api_that_is_installed() -> None:
    pytest.importorskip("lvis")
    assert lvis_api(*dataset()) == pytest.approx(GOLDEN, abs=1e-12)


def test_ap_is_that_of_faster_coco_eval(measured: Evaluated) -> None:
    """It takes no limit of an image whatever the labels, so that only 300 of each label are compared."""
    library = pytest.importorskip("faster_coco_eval")
    content, detections = dataset()
    ours = evaluate(
        [one for one in images_of(measured)], header(), measured_rows(measured), max_detections=10_000
    ).result.metrics
    for one in content["annotations"]:
        one["iscrowd"] = 0
    true = library.COCO(content)
    evaluation = library.COCOeval_faster(true, true.loadRes(detections), "bbox", lvis_style=True)
    evaluation.params.maxDets = [300]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    theirs = evaluation.stats_as_dict
    names = {"AP": "AP_all", "AP50": "AP_50", "AP75": "AP_75", "AR10000": "AR_all"} | {
        name: name for name in ("AP_small", "AP_medium", "AP_large", "APr", "APc", "APf")
    }
    assert {name: ours[name] for name in names} == pytest.approx({one: theirs[name] for one, name in names.items()})
