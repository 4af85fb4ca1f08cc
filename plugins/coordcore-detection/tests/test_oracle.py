"""The ceiling of each quantisation on real boxes: the table of the documentation."""

from __future__ import annotations

import json

import attrs
import numpy as np
import pytest
from evaluation_support import ANNOTATIONS, header, truth

from coordcore.quantisation import quantisation
from coordcore_detection.evaluate.evaluation import evaluate
from coordcore_detection.evaluate.oracle import quantised
from coordcore_detection.evaluate.truth import TruthImage

TABLE = {  # AP, AP95
    "nearest_999": (0.990, 0.909),
    "qwen_1000": (0.992, 0.935),
    "florence_1000": (0.991, 0.919),
    "outward_999": (0.966, 0.746),
    "floor_999": (0.966, 0.755),
    "rex_reward": (0.905, 0.519),
    "mixed_999_1000": (0.957, 0.721),
}


@pytest.fixture(scope="module")
def coco() -> list[TruthImage]:
    data = json.loads(ANNOTATIONS.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in data["categories"]}
    images = []
    # All scores are equal, so the order of the images decides; COCO's is by id.
    for image in sorted(data["images"], key=lambda item: int(item["id"])):
        found = [annotation for annotation in data["annotations"] if annotation["image_id"] == image["id"]]
        xywh = np.array([item["bbox"] for item in found], dtype=np.float64).reshape(-1, 4)
        images.append(
            TruthImage(
                key=image["file_name"],
                width=image["width"],
                height=image["height"],
                labels=tuple(names[item["category_id"]] for item in found),
                boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
                crowd=np.array([bool(item.get("iscrowd")) for item in found], dtype=bool),
                open=lambda: pytest.fail("no picture is needed"),
            )
        )
    return images


@pytest.mark.parametrize("name", TABLE)
def test_ceiling_on_coco(coco: list[TruthImage], name: str) -> None:
    result = evaluate(coco, header(quantisation=quantisation(name).as_dict()), []).result
    found = result.metrics["oracle_AP"], result.metrics["oracle_AP95"]
    assert found == pytest.approx(TABLE[name], abs=0.003)


def test_boxes_read_from_bins_are_on_the_grid_already() -> None:
    image = attrs.evolve(truth("a", [("cat", (0.05, 0.05, 50.05, 50.05))]), in_bins=True)
    assert quantised(image, quantisation("floor_999")).tolist() == image.boxes.tolist()


def test_a_corner_over_the_edge_is_moved_to_it() -> None:
    image = truth("a", [("cat", (50.0, 50.0, 101.0, 100.0))])
    assert quantised(image, quantisation("nearest_999"))[0, 2:].tolist() == [100.0, 100.0]
