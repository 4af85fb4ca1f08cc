"""The objects of an image that a reader drops as a whole are counted, read and dropped, whatever the format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conversion_support import run, write_image

GOOD_ODVG = {"filename": "a.jpg", "height": 9, "width": 9, "detection": {"instances": []}}
INSTANCES = [{"bbox": [1, 1, 2, 2], "category": "x"}] * 3
REGIONS = [{"bbox": [1, 1, 2, 2], "phrase": "x"}] * 2
SHAPES = [{"label": "x", "points": [[1, 1], [2, 2]], "shape_type": "rectangle"}] * 3


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_odvg(folder: Path) -> Path:
    detection = {**GOOD_ODVG, "filename": 7, "detection": {"instances": INSTANCES}}
    (folder / "in.jsonl").write_text(lines({**GOOD_ODVG, "detection": {"instances": INSTANCES[:1]}}, detection))
    return folder / "in.jsonl"


def write_grounding(folder: Path) -> Path:
    rows = {"filename": "b.jpg", "width": "wide", "height": 9, "grounding": {"regions": REGIONS + REGIONS[:1]}}
    (folder / "in.jsonl").write_text(lines({**GOOD_ODVG, "detection": {"instances": INSTANCES[:1]}}, rows))
    return folder / "in.jsonl"


def write_swift(folder: Path) -> Path:
    messages = [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "<ref-object><bbox>"}]
    good = {"messages": messages, "images": ["a.jpg"], "objects": {"ref": ["x"], "bbox": [[1, 1, 2, 2]]}}
    bad = {"messages": 7, "images": ["b.jpg"], "objects": {"ref": ["x"] * 3, "bbox": [[1, 1, 2, 2]] * 3}}
    (folder / "in.jsonl").write_text(lines(good, bad))
    return folder / "in.jsonl"


def write_records(folder: Path) -> Path:
    record = {"images": ["a.jpg"], "width": 9, "height": 9, "objects": [{"desc": "x", "bbox_2d": [1, 1, 2, 2]}]}
    (folder / "in.jsonl").write_text(lines(record, {**record, "width": "wide", "objects": record["objects"] * 3}))
    return folder / "in.jsonl"


def write_labelme(folder: Path) -> Path:
    (folder / "in").mkdir()
    good = {"imagePath": "a.jpg", "imageWidth": 9, "imageHeight": 9, "shapes": SHAPES[:1]}
    (folder / "in" / "a.json").write_text(json.dumps(good))
    (folder / "in" / "b.json").write_text(json.dumps({**good, "imagePath": 7, "shapes": SHAPES}))
    return folder / "in"


def write_voc(folder: Path) -> Path:
    (folder / "in").mkdir()
    one = "<object><name>x</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object>"
    text = "<{0}><filename>{1}</filename><size><width>9</width><height>9</height></size>{2}</{0}>"
    (folder / "in" / "a.xml").write_text(text.format("annotation", "a.jpg", one))
    (folder / "in" / "b.xml").write_text(text.format("other", "b.jpg", one * 3))
    return folder / "in"


def write_coco(folder: Path) -> Path:
    images = [
        {"id": 1, "file_name": "a.jpg", "width": 9, "height": 9},
        {"id": 2, "file_name": 7, "width": 9, "height": 9},
    ]
    boxes = [{"id": index, "image_id": min(index, 2), "category_id": 1, "bbox": [1, 1, 2, 2]} for index in (1, 2, 3, 4)]
    document = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "x"}]}
    (folder / "in.json").write_text(json.dumps(document))
    return folder / "in.json"


CASES = [
    ("odvg", write_odvg),
    ("odvg", write_grounding),
    ("swift", write_swift),
    ("records", write_records),
    ("labelme", write_labelme),
    ("voc", write_voc),
    ("coco", write_coco),
]


@pytest.mark.parametrize(("name", "write"), CASES)
def test_the_account_knows_them(tmp_path: Path, name: str, write: Callable[[Path], Path]) -> None:
    write_image(tmp_path / "a.jpg", 9, 9)
    options = {"from_space": "pixel"} if name == "records" else {}
    account = run(write(tmp_path), name, tmp_path / "out.jsonl", **options)
    assert (account.images.read, account.images.written, sum(account.images.dropped.values())) == (2, 1, 1)
    assert (account.objects.read, account.objects.written, sum(account.objects.dropped.values())) == (4, 1, 3)
