"""Real boxes through the JSONL builder: the 839 boxes of 100 COCO images."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from coco import ANNOTATIONS, corners, write_coco_records
from coordcore import BuildContext, Example
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_coord_tokens import CoordJsonl, CoordJsonlConfig

HOW_TO = Path(__file__).parents[2] / "docs/how-to/prepare-records.md"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco_records(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def examples(records: Path) -> list[Example]:
    config = CoordJsonlConfig(train=records, space="pixel")
    context = BuildContext(run_dir=records.parent, seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None)
    return list(CoordJsonl.open(config, context).train())


def source_boxes() -> list[tuple[list[float], list[int]]]:
    """Corners and (width, height, width, height) of every box, in the order of the records."""
    coco = json.loads(ANNOTATIONS.read_text())
    return [
        (corners(annotation["bbox"]), [image["width"], image["height"]] * 2)
        for image in coco["images"]
        for annotation in coco["annotations"]
        if annotation["image_id"] == image["id"]
    ]


def test_every_answer_decodes_to_its_boxes_within_half_a_bin(examples: list[Example]) -> None:
    text = "".join(example.messages[-1]["content"] for example in examples)
    bins = np.array([int(k) for k in re.findall(r"<\|coord_(\d+)\|>", text)]).reshape(-1, 4)
    boxes, sizes = (np.array(part, dtype=float) for part in zip(*source_boxes(), strict=True))
    error = np.abs(DEFAULT_QUANTISATION.decode(bins, sizes) - boxes) / sizes * 999
    assert (bins.shape, bool((error <= 0.5 + 1e-9).all())) == ((839, 4), True)


def test_the_loss_is_given_the_boxes_unrounded(examples: list[Example]) -> None:
    values = np.array([geometry.values for example in examples for geometry in example.geometries])
    boxes, sizes = (np.array(part, dtype=float) for part in zip(*source_boxes(), strict=True))
    np.testing.assert_allclose(values, boxes / sizes * 999, rtol=0, atol=1e-9)


def test_every_image_has_its_real_size(examples: list[Example]) -> None:
    sizes = [(image["width"], image["height"]) for image in json.loads(ANNOTATIONS.read_text())["images"]]
    assert [example.images[0].size for example in examples] == sizes


def test_the_script_of_the_how_to_writes_the_same_records(records: Path, tmp_path: Path) -> None:
    script = re.search(r"```python\n(# coco_to_records\.py\n.*?)```", HOW_TO.read_text(), flags=re.DOTALL)
    assert script is not None
    path = tmp_path / "coco_to_records.py"
    path.write_text(script.group(1))
    runpy.run_path(str(path))["convert"](ANNOTATIONS, "images", tmp_path / "train.jsonl")
    assert (tmp_path / "train.jsonl").read_text() == records.read_text()
