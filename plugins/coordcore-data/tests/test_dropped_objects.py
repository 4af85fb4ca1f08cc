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
    item = "<object><name>x</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object>"
    text = "<{0}><filename>{1}</filename><size><width>9</width><height>9</height></size>{2}</{0}>"
    (folder / "in" / "a.xml").write_text(text.format("annotation", "a.jpg", item))
    (folder / "in" / "b.xml").write_text(text.format("other", "b.jpg", item * 3))
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


def write_yolo(folder: Path) -> Path:
    for name, text in (("a", "0 .5 .5 .2 .2\n"), ("b", "0 .5 .5 .2 .2\n\n0 .1 .1 .1 .1\n0 wide\n")):
        (folder / "in" / "labels").mkdir(parents=True, exist_ok=True)
        (folder / "in" / "labels" / f"{name}.txt").write_text(text)
    (folder / "in" / "images").mkdir()
    write_image(folder / "in" / "images" / "a.jpg", 9, 9)
    (folder / "in" / "data.yaml").write_text("train: images\nnames: [x]\n")
    return folder / "in" / "data.yaml"


def write_yolo_split(folder: Path) -> Path:
    """The images of one split are not there."""
    source = write_yolo(folder)
    for kind in ("images", "labels"):
        (folder / "in" / kind / "train").mkdir()
    (folder / "in" / "images" / "a.jpg").rename(folder / "in" / "images" / "train" / "a.jpg")
    (folder / "in" / "labels" / "a.txt").rename(folder / "in" / "labels" / "train" / "a.txt")
    (folder / "in" / "labels" / "val").mkdir()
    (folder / "in" / "labels" / "b.txt").rename(folder / "in" / "labels" / "val" / "b.txt")
    source.write_text("train: images/train\nval: images/val\nnames: [x]\n")
    return source


def write_cvat(folder: Path) -> Path:
    box = '<box label="x" xtl="1" ytl="1" xbr="2" ybr="2"/>'
    images = f'<image name="a.jpg" width="9" height="9">{box}</image><image name="b.jpg" width="wide">{box * 3}</image>'
    (folder / "in.xml").write_text(f"<annotations>{images}</annotations>")
    return folder / "in.xml"


def write_rows(folder: Path) -> Path:
    row = {"image": "a.jpg", "width": 9, "height": 9, "sentence": "x", "bbox": [1, 1, 2, 2]}
    bad = {**row, "image": "b.jpg", "bbox": [1, 1, 2], "sentence": ["x", "y"]}
    (folder / "in.jsonl").write_text(lines(row, bad, {**bad, "width": "wide", "sentence": "z"}))
    return folder / "in.jsonl"


def write_label_studio(folder: Path) -> Path:
    value = {"x": 10, "y": 10, "width": 20, "height": 20, "rectanglelabels": ["x"]}
    region = {"type": "rectanglelabels", "original_width": 9, "original_height": 9, "value": value}
    two = {**region, "value": {**value, "rectanglelabels": ["x", "y"]}}
    good = {"data": {"image": "a.jpg"}, "annotations": [{"result": [region]}]}
    (folder / "in.json").write_text(json.dumps([good, {"data": 7, "annotations": [{"result": [region, two]}]}]))
    return folder / "in.json"


def write_label_studio_odd(folder: Path) -> Path:
    source = write_label_studio(folder)
    good = json.loads(source.read_text())[0]
    result = good["annotations"][0]["result"]
    source.write_text(json.dumps([good, {**good, "annotations": [{"result": [*result, "x", *result]}]}]))
    return source


def write_label_studio_empty(folder: Path) -> Path:
    """Whether anything is there, the annotations do not agree."""
    source = write_label_studio(folder)
    good = json.loads(source.read_text())[0]
    result = good["annotations"][0]["result"]
    source.write_text(json.dumps([good, {**good, "annotations": [{"result": result * 3}, {"result": []}]}]))
    return source


CASES = [
    ("odvg", write_odvg),
    ("odvg", write_grounding),
    ("swift", write_swift),
    ("records", write_records),
    ("labelme", write_labelme),
    ("voc", write_voc),
    ("coco", write_coco),
    ("yolo", write_yolo),
    ("yolo", write_yolo_split),
    ("cvat", write_cvat),
    ("refcoco", write_rows),
    ("label_studio", write_label_studio),
    ("label_studio", write_label_studio_odd),
    ("label_studio", write_label_studio_empty),
]


@pytest.mark.parametrize(("name", "write"), CASES)
def test_the_account_knows_them(tmp_path: Path, name: str, write: Callable[[Path], Path]) -> None:
    write_image(tmp_path / "a.jpg", 9, 9)
    options = {"from_space": "pixel"} if name in ("records", "refcoco") else {}
    options |= {"boxes": "xyxy"} if name == "refcoco" else {}
    account = run(write(tmp_path), name, tmp_path / "out.jsonl", **options)
    assert (account.images.read, account.images.written, sum(account.images.dropped.values())) == (2, 1, 1)
    assert (account.objects.read, account.objects.written, sum(account.objects.dropped.values())) == (4, 1, 3)


def test_the_account_knows_the_refs_of_refer(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 9, "height": 9} for number in (1, 2)]
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}]
    (tmp_path / "i.json").write_text(
        json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "x"}]})
    )
    good = {"ann_id": 1, "image_id": 1, "sentences": [{"sent": "x"}]}
    lost = {"ann_id": 9, "image_id": 2, "sentences": [{"sent": "x"}, {"sent": "y"}]}
    unreadable = {"ann_id": None, "image_id": 2, "sentences": [{"sent": "z"}] * 3}
    (tmp_path / "in.json").write_text(json.dumps([good, lost, unreadable]))
    account = run(tmp_path / "in.json", "refcoco", tmp_path / "out.jsonl", instances=tmp_path / "i.json")
    assert (account.images.read, account.images.written, sum(account.images.dropped.values())) == (2, 1, 1)
    assert (account.objects.read, account.objects.written, sum(account.objects.dropped.values())) == (6, 1, 5)
