"""COCO's annotations as JSONL records, with drawn stand-ins for the photographs, which are not ours to ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageColor, ImageDraw

ANNOTATIONS = Path(__file__).parents[1] / "data" / "coco_val2014_100_boxes.json"


def write_coco_records(folder: Path, annotations: Path = ANNOTATIONS) -> Path:
    """Write `folder`/train.jsonl, one record per image in the order of the file, boxes in pixels; return its path.

    `folder`/images holds an image of the real size for each: the boxes as filled rectangles, one hue per category,
    larger ones first so that smaller ones stay visible.
    """
    coco = json.loads(annotations.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in coco["categories"]}
    (folder / "images").mkdir(parents=True)
    lines = []
    for image in coco["images"]:
        found = [annotation for annotation in coco["annotations"] if annotation["image_id"] == image["id"]]
        objects = [{"desc": names[item["category_id"]], "bbox_2d": corners(item["bbox"])} for item in found]
        path = f"images/{image['file_name']}"
        record = {"images": [path], "width": image["width"], "height": image["height"], "objects": objects}
        lines.append(json.dumps(record) + "\n")
        _draw(record, {name: key for key, name in names.items()}).save(folder / path)
    records = folder / "train.jsonl"
    records.write_text("".join(lines), encoding="utf-8")
    return records


def corners(xywh: list[float]) -> list[float]:
    """COCO's x, y, width, height as x1, y1, x2, y2."""
    x, y, width, height = xywh
    return [x, y, x + width, y + height]


def _draw(record: dict[str, Any], categories: dict[str, int]) -> Image.Image:
    image = Image.new("RGB", (record["width"], record["height"]), "lightgray")
    draw = ImageDraw.Draw(image)
    boxes = [(item["bbox_2d"], item["desc"]) for item in record["objects"]]
    for (x1, y1, x2, y2), desc in sorted(boxes, key=lambda item: _area(item[0]), reverse=True):
        fill = ImageColor.getrgb(f"hsl({categories[desc] * 47 % 360}, 80%, 50%)")
        # Pillow includes the last pixel; a thin box still gets one.
        draw.rectangle((round(x1), round(y1), max(round(x1), round(x2) - 1), max(round(y1), round(y2) - 1)), fill=fill)
    return image


def _area(box: list[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
