"""COCO's own file through every command: convert, check, train, predict, eval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coco import ANNOTATIONS, write_coco_records
from conftest import coordcore

PREDICTED = 6

MANIFEST = """
name = "coco"

[model]
base = "{base}"
dtype = "float32"

[vocab]

[data.coord_jsonl]
train = "data/train.jsonl"
validation = "data/val.jsonl"
space = "pixel"
images_within = "drawn"

[template.coord_template]

[surgery.coord_offset]

[loss.text_ce]

[loss.coord_soft_ce_w1]

[train]
steps = 4
batch_size = 4
max_pixels = 65536
max_length = 4096
device = "cpu"
threads = 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A working folder in which everything up to the evaluation has been done."""
    folder = tmp_path_factory.mktemp("coco")
    write_coco_records(folder / "drawn")
    convert = ("data", "convert", str(ANNOTATIONS), "data/boxes.jsonl", "--from", "coco", "--to-space", "pixel")
    split = ("--split", "train=0.8,val=0.2", "--image-prefix", str(folder / "drawn/images"))
    (folder / "converted.txt").write_text(coordcore(*convert, *split, cwd=folder))
    for name in ("train", "val"):
        (folder / f"data/boxes.{name}.jsonl").rename(folder / f"data/{name}.jsonl")
    (folder / "coco.toml").write_text(MANIFEST.format(base=tiny_base))
    coordcore("run", "coco.toml", cwd=folder)
    predict = ("predict", "runs/coco/merged", "data/val.jsonl", "--space", "pixel", "--output", "predictions.jsonl")
    predict = (*predict, "--images-within", "drawn")
    short = ("--limit", str(PREDICTED), "--max-objects", "5", "--max-new-tokens", "200")
    coordcore(*predict, *short, cwd=folder)
    return folder


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_no_box_is_lost_on_the_way_to_records(folder: Path) -> None:
    written = [*records(folder / "data/train.jsonl"), *records(folder / "data/val.jsonl")]
    source = json.loads(ANNOTATIONS.read_text())["annotations"]
    crowd = [region for record in written for region in record.get("metadata", {}).get("crowd", [])]
    assert len(crowd) == sum(item["iscrowd"] for item in source) == 9
    assert sum(len(record["objects"]) for record in written) == len(source) - 9


def test_the_records_are_above_suspicion(folder: Path) -> None:
    found = json.loads(coordcore("data", "check", "data/train.jsonl", "--space", "pixel", "--json", cwd=folder))
    assert found["suspicions"] == []


def test_every_answer_of_an_untrained_model_is_read(folder: Path) -> None:
    _header, *rows = records(folder / "predictions.jsonl")
    assert len(rows) == PREDICTED
    assert [row["unread"] for row in rows if row["stopped"] == "end" and row["unread"]] == []


def test_the_evaluation_stands_beside_its_ceiling(folder: Path) -> None:
    command = ("eval", "predictions.jsonl", "data/val.jsonl", "--space", "pixel", "--limit", str(PREDICTED), "--json")
    found = json.loads(coordcore(*command, cwd=folder))
    assert 0.0 <= found["metrics"]["AP"] < found["metrics"]["oracle_AP"] <= 1.0
