"""Datumaro's JSON: its kinds of annotation, groups, rotation as CVAT writes it, subsets."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from conversion_support import SKELETON, read_lines, records_of, run, why_dropped, write_image, write_json, write_zip

from coordcore import InputError

BOX = {
    "id": 0,
    "type": "bbox",
    "attributes": {},
    "group": 0,
    "label_id": 1,
    "bbox": [10.0, 20.0, 30.0, 40.0],
    "z_order": 0,
}


def shape(kind: str, *points: float, label_id: int | None = 0, **more: Any) -> dict[str, Any]:
    found = {"id": 1, "type": kind, "attributes": {}, "group": 0, "label_id": label_id, "points": list(points)}
    return found | {"z_order": 0} | more


def item(*annotations: Any, name: str = "img1", **more: Any) -> dict[str, Any]:
    image = {"path": f"{name}.jpg", "size": [80, 100]}
    return {"id": name, "annotations": list(annotations), "attr": {"frame": 0}, "image": image} | more


def dataset(*items: Any, labels: Any = ("cat", "dog")) -> dict[str, Any]:
    return {
        "info": {},
        "categories": {
            "label": {
                "labels": [{"name": name, "parent": "", "attributes": []} for name in labels],
                "attributes": ["occluded"],
            },
            "points": {"items": []},
        },
        "items": list(items),
    }


def convert(tmp_path: Path, *items: Any, labels: Any = ("cat", "dog"), **options: Any) -> tuple[list[Any], Any]:
    source = write_json(tmp_path / "default.json", dataset(*items, labels=labels))
    return records_of(source, "datumaro", tmp_path, **options)


def test_each_kind(tmp_path: Path) -> None:
    records, account = convert(
        tmp_path,
        item(
            BOX,
            shape("polygon", 10, 10, 60, 10, 35, 70),
            shape("ellipse", 40, 30, 60, 50),
            shape("points", 7, 8, 9, 10, visibility=[2, 2]),
            shape("polygon", 0, 0, 50, 0, 50, 40, attributes={"is_crowd": True}),
        ),
        item(name="img2"),
    )
    assert records == [
        {
            "images": ["img1.jpg"],
            "width": 100,
            "height": 80,
            "objects": [
                {"desc": "dog", "bbox_2d": [10, 20, 40, 60]},
                {"desc": "cat", "bbox_2d": [10, 10, 60, 70]},
                {"desc": "cat", "bbox_2d": [40, 30, 60, 50]},
            ],
            "metadata": {
                "crowd": [{"desc": "cat", "bbox_2d": [0, 0, 50, 40]}],
                "points": [{"desc": "cat", "points": [7, 8, 9, 10]}],
            },
        },
        {"images": ["img2.jpg"], "width": 100, "height": 80, "objects": []},
    ]
    assert why_dropped(account) == []


def test_a_box_turns_clockwise_about_its_centre(tmp_path: Path) -> None:
    turned = BOX | {"attributes": {"occluded": False, "rotation": 90.0}}
    records, _ = convert(tmp_path, item(turned), geometry="poly")
    # 30 x 40 about (25, 40): the top left corner goes to the top right of the turned box.
    assert records[0]["objects"][0]["poly"] == pytest.approx([45, 25, 45, 55, 5, 55, 5, 25])
    records, _ = convert(tmp_path, item(BOX | {"attributes": {"rotation": 30}}))
    half_width, half_height = 15, 20
    sin, cos = 0.5, math.sqrt(3) / 2
    across, down = half_width * cos + half_height * sin, half_width * sin + half_height * cos
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([25 - across, 40 - down, 25 + across, 40 + down])


def test_points_of_visibility_0_are_absent(tmp_path: Path) -> None:
    given = item(
        shape("points", 10, 20, 0, 0, 30, 40, visibility=[2, 0, 1]),
        shape("points", 0, 0, visibility=[0]),
        shape("points", 5, 6, 7, 8, visibility=[2]),
        shape("points", 5, 6, visibility=[7]),
        shape("points", 50, 60),
    )
    records, account = convert(tmp_path, given, geometry="point")
    assert [thing["point"] for thing in records[0]["objects"]] == [[10, 20], [30, 40], [50, 60]]
    assert account.notes["point that is absent (visibility 0): left out"] == 1
    assert account.objects.dropped == {
        "points that are all absent (visibility 0)": 1,
        "visibility that is not 0, 1 or 2 of each point": 2,
    }
    records, _ = convert(tmp_path, item(BOX, shape("points", 10, 20, 0, 0, visibility=[2, 0])))
    assert records[0]["metadata"]["points"] == [{"desc": "cat", "points": [10, 20]}]


def test_a_turned_box_with_its_corners_in_the_wrong_order_is_dropped(tmp_path: Path) -> None:
    wrong = BOX | {"bbox": [40, 60, -30, -40], "attributes": {"rotation": 30}}
    records, account = convert(tmp_path, item(BOX, wrong), reversed_corners="sort")
    assert len(records[0]["objects"]) == 1
    assert why_dropped(account) == ["negative width or height"]


def test_shapes_of_one_group_and_label_are_one_object(tmp_path: Path) -> None:
    parts = shape("polygon", 10, 10, 20, 10, 20, 20, group=3), shape("polygon", 60, 60, 70, 60, 70, 70, group=3)
    box = BOX | {"label_id": 0, "group": 3, "bbox": [9, 9, 62, 62]}
    other = shape("polygon", 0, 0, 5, 0, 5, 5, group=3, label_id=1)
    records, account = convert(tmp_path, item(*parts), item(*parts, box, other, name="img2"))
    assert [record["objects"] for record in records] == [
        [{"desc": "cat", "bbox_2d": [10, 10, 70, 70]}],
        [{"desc": "cat", "bbox_2d": [9, 9, 71, 71]}, {"desc": "dog", "bbox_2d": [0, 0, 5, 5]}],
    ]
    assert account.objects.read == 3


def test_a_mask_is_the_box_around_its_pixels(tmp_path: Path) -> None:
    # Down the columns: 2 columns of 80, then rows 5 to 14 of the third, and of the fourth.
    mask = {"id": 1, "type": "mask", "label_id": 0, "rle": {"counts": [165, 10, 70, 10], "size": [80, 100]}}
    part = shape("polygon", 10, 10, 20, 10, 20, 20, group=2)
    records, account = convert(tmp_path, item(mask), item(mask | {"group": 2}, part, name="img2"))
    assert [record["objects"] for record in records] == [
        [{"desc": "cat", "bbox_2d": [2, 5, 4, 15]}],
        [{"desc": "cat", "bbox_2d": [2, 5, 20, 20]}],
    ]
    assert account.notes["RLE mask: its enclosing box is written"] == 1


def test_boxes_of_one_group_stay_apart(tmp_path: Path) -> None:
    records, _ = convert(tmp_path, item(BOX | {"group": 1}, BOX | {"group": 1, "bbox": [0, 0, 9, 9]}))
    assert len(records[0]["objects"]) == 2


def test_shapes_are_cut_before_they_are_enclosed(tmp_path: Path) -> None:
    records, _ = convert(tmp_path, item(shape("polygon", 120, 0, 80, 40, 120, 80), shape("ellipse", -16, 30, 4, 50)))
    assert records[0]["objects"][0]["bbox_2d"] == [80, 20, 100, 60]
    assert records[0]["objects"][1]["bbox_2d"] == pytest.approx([0, 32, 4, 48], abs=0.01)


def test_subsets_of_an_archive(tmp_path: Path) -> None:
    files = {
        "annotations/train.json": json.dumps(dataset(item(BOX))),
        "annotations/val.json": json.dumps(dataset(item(BOX, name="img2"), labels=("x", "y"))),
    }
    run(write_zip(tmp_path / "a.zip", files), "datumaro", tmp_path / "out.jsonl", split="source")
    labels = [read_lines(tmp_path / f"out.{name}.jsonl")[0]["objects"][0]["desc"] for name in ("train", "val")]
    assert labels == ["dog", "y"]


def test_an_item_without_a_path_is_found_by_its_id(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "default" / "img1.png", 100, 80)
    given = item(BOX, image={"path": ""})
    records, account = convert(tmp_path, given, images=tmp_path / "images")
    assert (records[0]["images"], records[0]["width"]) == (["default/img1.png"], 100)
    assert account.notes["item without the path of its image: its id is taken"] == 1


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (shape("polyline", 1, 2, 3, 4), "polyline: records have no such geometry"),
        ({"type": "mask", "label_id": 0, "rle": {"counts": "", "size": [80, 100]}}, "RLE mask of no pixel"),
        ({"type": "mask", "label_id": 0}, "RLE mask that cannot be read"),
        ({"type": "mask", "label_id": 0, "rle": {"counts": [9, 9], "size": [8, 10]}}, "RLE mask of another size"),
        ({"type": "skeleton", "label_id": 0, "elements": []}, SKELETON),
        ({"type": "label", "label_id": 0}, "label of the whole image: what is where is not said"),
        ({"type": "caption", "caption": "a cat"}, "caption of the whole image: what is where is not said"),
        (BOX | {"label_id": 7}, "label_id without a name"),
        (BOX | {"label_id": -1}, "label_id without a name"),
        (BOX | {"label_id": None}, "no label"),
        (BOX | {"bbox": [1, 2, 3]}, "bbox: expected array of length 4"),
        (BOX | {"bbox": None}, "bbox without its numbers"),
        (BOX | {"bbox": [10, 20, 0, 40]}, "no extent"),
        (BOX | {"bbox": [10, 20, -3, 40]}, "negative width or height"),
        (BOX | {"bbox": [500, 20, 3, 40]}, "lies outside the image"),
        (shape("polygon", 1, 2, 3), "polygon without pairs of numbers"),
        (shape("ellipse", 1, 2, 3, 4, 5, 6), "ellipse without pairs of numbers"),
        (shape("polygon", 1, 2, 3, 4, float("nan"), 6), "a coordinate is NaN or infinite"),
        ({"label_id": 0}, "object missing required field type"),
        (7, "expected object, got int"),
    ],
)
def test_an_image_that_lost_its_object_is_no_record(tmp_path: Path, bad: Any, reason: str) -> None:
    records, account = convert(tmp_path, item(bad), item(BOX, name="img2"))
    assert [record["images"] for record in records] == [["img2.jpg"]]
    images, objects = why_dropped(account)
    assert (images, objects.startswith(reason)) == ("all of its objects were dropped", True)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"id": "a"}, "item without a list of annotations"),
        ({"annotations": [BOX]}, "object missing required field id"),
        (item(BOX, annotations={}), "annotations: expected array"),
        (item(BOX, image={"path": "a.jpg", "size": [80]}), "image.size: expected array of length 2"),
        (item(BOX, image={"path": "a.jpg"}), "no size in the source"),
        (item(BOX, image={"path": "a.jpg", "size": [0.5, 100]}), "width and height must be whole numbers"),
        (item(BOX, point_cloud={"path": "a.pcd"}), "item that is no image"),
        (item(BOX, video_frame={"video_path": "a.mp4", "frame_index": 3}), "item that is no image"),
        (item(shape("points", 7, 8)), "only points"),
        (7, "expected object, got int"),
    ],
)
def test_items_that_are_dropped(tmp_path: Path, bad: Any, reason: str) -> None:
    given = bad | {"image": {"size": [80, 100]}} if bad == {"id": "a"} else bad
    records, account = convert(tmp_path, item(BOX, name="img2"), given)
    assert (len(records), [key.startswith(reason) for key in account.images.dropped]) == (1, [True])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [], "annotations": [], "categories": []}, "no list of items.*\n.*looks like a COCO file"),
        ({"items": {}, "categories": {}}, "no list of items"),
        ({"items": [], "categories": {"label": {"labels": [{}]}}}, "categories: label.labels.*missing required field"),
        ([], "no list of items"),
        (dataset(), "no image is left to write"),
    ],
)
def test_refusals(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(write_json(tmp_path / "a.json", content), "datumaro", tmp_path / "out.jsonl")


def test_a_folder_without_annotations(tmp_path: Path) -> None:
    write_image(tmp_path / "set" / "a.jpg", 4, 4)
    with pytest.raises(InputError, match=r"holds no annotations/\*.json"):
        run(tmp_path / "set", "datumaro", tmp_path / "out.jsonl")
