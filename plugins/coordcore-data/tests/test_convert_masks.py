"""A mask without a box gives its own: COCO's run lengths, as pycocotools does, LabelMe's pictures; REFER's refs."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversion_support import annotation, coco, records_of, run, write_json
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as pycocotools

from coordcore_data.convert.mask import rle_box
from coordcore_data.convert.text import UnreadableError

EMPTY = "all of its objects were dropped"


def runs(mask: np.ndarray) -> list[int]:
    """COCO's plain counts."""
    found, value = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            found.append(0)
            value = pixel
        found[-1] += 1
    return found


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """Of 1 to 40 pixels each way: a blob, noise, or a frame."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["blob", "noise", "frame"]))
    mask = np.zeros((height, width), np.uint8)
    if kind == "noise":
        mask = (rng.random((height, width)) < rng.choice([0.01, 0.5, 0.99])).astype(np.uint8)
    else:
        top, left = rng.integers(0, height), rng.integers(0, width)
        mask[top : rng.integers(top, height) + 1, left : rng.integers(left, width) + 1] = 1
        if kind == "frame":
            mask = 1 - mask
    return mask


@given(masks())
def test_the_box_is_that_of_pycocotools(mask: np.ndarray) -> None:
    packed = pycocotools.encode(np.asfortranarray(mask))
    size = {"size": [*mask.shape]}
    forms = [size | {"counts": packed["counts"].decode()}, size | {"counts": runs(mask)}]
    if not mask.any():
        for form in forms:
            with pytest.raises(UnreadableError, match="RLE mask of no pixel"):
                rle_box(form, None, None)
        return
    x, y, width, height = pycocotools.toBbox(packed).tolist()
    assert [rle_box(form, mask.shape[1], mask.shape[0]) for form in forms] == [(x, y, x + width, y + height)] * 2


def test_a_mask_larger_than_any_picture_costs_nothing() -> None:
    side = 2**20
    counts = [side * side - 1, 1]
    assert rle_box({"size": [side, side], "counts": counts}, side, side) == (side - 1, side - 1, side, side)


def converted(tmp_path: Path, **changes: Any) -> tuple[list[Any], Any]:
    content = coco([annotation(id=1), annotation(id=2) | {"bbox": None} | changes])
    return records_of(write_json(tmp_path / "a.json", content), "coco", tmp_path)


@pytest.mark.parametrize("more", [{}, {"bbox": []}, {"iscrowd": None}, {"image_id": "7"}])
@pytest.mark.parametrize("counts", [[0, 10, 7990], [0, 10], [0.0, 10.0, 7990.0], ["0", "10", "7990"], "0:fi7"])
def test_an_annotation_of_a_mask_alone_gets_its_box(tmp_path: Path, counts: Any, more: dict[str, Any]) -> None:
    # Case 16: ten pixels down the first column.
    records, account = converted(tmp_path, segmentation={"counts": counts, "size": [80, 100]}, **more)
    assert records[0]["objects"][1] == {"desc": "cat", "bbox_2d": [0, 0, 1, 10]}
    assert account.notes["RLE mask: its enclosing box is written"] == 1


def test_a_crowd_of_a_mask_alone_is_carried_with_its_box(tmp_path: Path) -> None:
    records, _ = converted(tmp_path, segmentation={"counts": [81, 3], "size": [80, 100]}, iscrowd=1)
    assert [region["bbox_2d"] for region in records[0]["metadata"]["crowd"]] == [[1, 1, 2, 4]]


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ({"counts": [0, 10], "size": [100, 80]}, "RLE mask of another size than its image"),
        ({"counts": [0, 10], "size": [40, 50]}, "RLE mask of another size than its image"),
        ({"counts": [0, 8001], "size": [80, 100]}, "RLE mask that cannot be read"),
        ({"counts": [10, -5, 20], "size": [80, 100]}, "RLE mask that cannot be read"),
        ({"counts": [0.5, 10], "size": [80, 100]}, "RLE mask that cannot be read"),
        ({"counts": [True, 10], "size": [80, 100]}, "RLE mask that cannot be read"),
        ({"counts": [float("nan"), 10], "size": [80, 100]}, "RLE mask that cannot be read"),
        ({"counts": {"a": 1}, "size": [80, 100]}, "RLE mask that cannot be read"),
        ({"counts": "0 10", "size": [80, 100]}, "RLE mask that cannot be read"),
        ({"counts": "0:fi", "size": [80, 100]}, "RLE mask that cannot be read"),
        ({"counts": "o" * 50, "size": [80, 100]}, "RLE mask that cannot be read"),
        ({"counts": [0, 10]}, "RLE mask that cannot be read"),
        ({"size": [80, 100]}, "RLE mask that cannot be read"),
        ({"counts": [0, 1], "size": [0, 100]}, "RLE mask that cannot be read"),
        ({"counts": [0, 10], "size": [10**400, 1]}, "RLE mask that cannot be read"),
        ({"counts": [8000], "size": [80, 100]}, "RLE mask of no pixel"),
        ({"counts": [5, 0, 7995], "size": [80, 100]}, "RLE mask of no pixel"),
    ],
)
def test_a_mask_that_gives_none_is_dropped_under_its_reason(tmp_path: Path, mask: Any, reason: str) -> None:
    records, account = converted(tmp_path, segmentation=mask)
    assert len(records[0]["objects"]) == 1
    assert account.objects.dropped == {reason: 1}


# --- LabelMe --------------------------------------------------------------------------------------------------------


def picture(width: int, height: int) -> str:
    file = io.BytesIO()
    Image.new("1", (width, height), 1).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("mask", "box"),
    [
        (picture(31, 41), [10, 20, 41, 61]),  # LabelMe's own: the second point is the last pixel
        (picture(30, 40), [10, 20, 40, 60]),
        (picture(3, 4), [10, 20, 40, 60]),
        ("no picture", [10, 20, 40, 60]),
        (7, [10, 20, 40, 60]),
        (None, [10, 20, 40, 60]),
    ],
)
def test_the_picture_of_a_labelme_mask_says_whether_its_last_pixel_counts(tmp_path: Path, mask: Any, box: Any) -> None:
    shape = {"label": "cat", "points": [[10, 20], [40, 60]], "shape_type": "mask", "mask": mask}
    content = {"imagePath": "a.jpg", "imageWidth": 100, "imageHeight": 80, "shapes": [shape]}
    records, _ = records_of(write_json(tmp_path / "ann" / "a.json", content).parent, "labelme", tmp_path)
    assert records[0]["objects"] == [{"desc": "cat", "bbox_2d": box}]


# --- REFER's refs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"bbox": ["10", "20", "30", "40"]},
        {"id": "5", "image_id": "7"},
        {"bbox": None, "segmentation": [[10, 20, 40, 20, 40, 60, 10, 60]]},
        {"bbox": [], "segmentation": [[10, 20, 20, 20, 20, 60], [30, 20, 40, 20, 40, 60]]},
        {"bbox": None, "segmentation": {"counts": [10 * 80 + 20, *[40, 40] * 30], "size": [80, 100]}},
    ],
)
def test_a_ref_takes_its_box_as_coco_gives_it(tmp_path: Path, changes: dict[str, Any]) -> None:
    instances = coco([{"id": 5, "image_id": 7, "category_id": 1, "bbox": [10, 20, 30, 40]} | changes])
    refs = [{"ann_id": 5, "image_id": 7, "split": "val", "sentences": [{"sent": "left cat"}]}]
    source, output = write_json(tmp_path / "refs.json", refs), tmp_path / "out.jsonl"
    run(source, "refcoco", output, instances=write_json(tmp_path / "instances.json", instances))
    assert '"objects":[{"desc":"left cat","bbox_2d":[10.0,20.0,40.0,60.0]}]' in output.read_text()


def test_the_image_of_a_ref_may_be_one_of_lvis(tmp_path: Path) -> None:
    image = {
        "id": 7,
        "coco_url": "http://images.cocodataset.org/train2017/000000000007.jpg",
        "width": 100,
        "height": 80,
    }
    instances = coco([{"id": 5, "image_id": 7, "category_id": 1, "bbox": [10, 20, 30, 40]}], [image])
    refs = [{"ann_id": 5, "image_id": 7, "sentences": [{"sent": "left cat"}]}]
    source, output = write_json(tmp_path / "refs.json", refs), tmp_path / "out.jsonl"
    run(source, "refcoco", output, instances=write_json(tmp_path / "instances.json", instances))
    assert '"images":["train2017/000000000007.jpg"]' in output.read_text()


def test_a_ref_without_a_box_is_dropped_and_others_are_not(tmp_path: Path) -> None:
    box = {"image_id": 7, "category_id": 1}
    broken = [box | {"id": 6, "bbox": None}, box | {"id": 7, "bbox": ["x", 1, 2, 3]}, "no annotation"]
    instances = coco([box | {"id": 5, "bbox": [10, 20, 30, 40]}, *broken])
    refs = [{"ann_id": n, "image_id": 7, "sentences": [{"sent": "a"}, {"sent": "b"}]} for n in (5, 6, 7)]
    source, output = write_json(tmp_path / "refs.json", refs), tmp_path / "out.jsonl"
    account = run(source, "refcoco", output, instances=write_json(tmp_path / "instances.json", instances))
    assert account.objects.written == 2
    assert account.objects.dropped == {
        "neither a bbox nor a polygon that can be read": 2,
        "ref to an image or box that the instances lack": 2,
    }


# --- numbers as text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "source_format", "content", "options"),
    [
        (
            "a.jsonl",
            "odvg",
            {
                "filename": "a.jpg",
                "width": "100",
                "height": "80",
                "detection": {"instances": [{"bbox": ["10", "20", "40", "60"], "label": 0, "category": "cat"}]},
            },
            {},
        ),
        (
            "b.jsonl",
            "odvg",
            {
                "filename": "a.jpg",
                "width": 100,
                "height": 80,
                "grounding": {"caption": "a cat", "regions": [{"bbox": ["10", "20", "40", "60"], "phrase": "cat"}]},
            },
            {},
        ),
        (
            "c.jsonl",
            "refcoco",
            {"image": "a.jpg", "width": "100", "height": "80", "expression": "cat", "bbox": ["10", "20", "40", "60"]},
            {"boxes": "xyxy", "from_space": "pixel"},
        ),
        (
            "d.jsonl",
            "swift",
            {
                "messages": [
                    {"role": "user", "content": "<image>Find <ref-object>"},
                    {"role": "assistant", "content": "<bbox>"},
                ],
                "images": ["a.jpg"],
                "objects": {"ref": ["cat"], "bbox": [["10", "20", "40", "60"]]},
            },
            {},
        ),
        (
            "e.json",
            "label_studio",
            [
                {
                    "data": {"image": "a.jpg"},
                    "annotations": [
                        {
                            "result": [
                                {
                                    "type": "rectanglelabels",
                                    "original_width": "100",
                                    "original_height": "80",
                                    "value": {
                                        "x": "10",
                                        "y": "25",
                                        "width": "30",
                                        "height": "50",
                                        "rectanglelabels": ["cat"],
                                    },
                                }
                            ]
                        }
                    ],
                }
            ],
            {},
        ),
    ],
)
def test_numbers_written_as_text_are_read(
    tmp_path: Path, name: str, source_format: str, content: Any, options: dict[str, Any]
) -> None:
    Image.new("RGB", (100, 80)).save(tmp_path / "a.jpg")
    records, _ = records_of(write_json(tmp_path / name, content), source_format, tmp_path, **options)
    assert [record["objects"] for record in records] == [[{"desc": "cat", "bbox_2d": [10, 20, 40, 60]}]]
