"""An empty record says that nothing is there: it is written only where the source says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conversion_support import (
    annotation,
    coco,
    records_of,
    run,
    write_image,
    write_json,
    write_lines,
    write_text,
)

from coordcore import InputError

LOST = "all of its objects were dropped"
IMAGES = [{"id": n, "file_name": f"{n}.jpg", "width": 100, "height": 80} for n in (7, 8, 9)]


def names(records: list[Any]) -> list[str]:
    return [record["images"][0] for record in records]


def from_coco(tmp_path: Path, *annotations: Any, **options: Any) -> tuple[list[Any], Any]:
    """Image 7 has a good box, 8 what is given, 9 nothing at all."""
    given = [{"id": n, "image_id": 8, "category_id": 1} | item for n, item in enumerate(annotations, 2)]
    source = write_json(tmp_path / "a.json", coco([annotation(), *given], IMAGES))
    return records_of(source, "coco", tmp_path, **options)


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ({"bbox": [1, 2, "left", 4]}, LOST),
        ({"bbox": {"x": 1}}, LOST),
        ({"bbox": []}, LOST),
        ({"bbox": [200, 10, 5, 5]}, LOST),
        ({"bbox": [10, 10, -5, -5]}, LOST),
        ({"bbox": [10, 10, 5, 5], "category_id": 99}, LOST),
        ({"bbox": [10, 10, 5, 5], "category_id": None}, LOST),
        ({"keypoints": [1, 2, 2], "num_keypoints": 1}, LOST),
        ({"bbox": None, "segmentation": {"counts": [8000], "size": [80, 100]}}, LOST),
        ({"bbox": [10, 10, 5, 5], "iscrowd": 1}, "only crowd regions; --purpose evaluation keeps the image"),
    ],
)
def test_a_coco_image_that_lost_its_objects_is_no_record(tmp_path: Path, lost: Any, reason: str) -> None:
    records, account = from_coco(tmp_path, lost)
    assert names(records) == ["7.jpg", "9.jpg"]
    assert account.images.dropped == {reason: 1}
    assert account.notes["image without objects: an empty record"] == 1


def test_an_image_of_crowds_alone_stays_for_evaluation(tmp_path: Path) -> None:
    records, account = from_coco(tmp_path, {"bbox": [10, 10, 5, 5], "iscrowd": 1}, purpose="evaluation")
    assert records[1]["objects"] == []
    assert records[1]["metadata"]["crowd"] == [{"desc": "cat", "bbox_2d": [10, 10, 15, 15]}]
    assert account.objects.carried == {"crowd": 1}


def test_crowds_that_are_left_out_leave_no_empty_image_for_evaluation_either(tmp_path: Path) -> None:
    records, _ = from_coco(tmp_path, {"bbox": [10, 10, 5, 5], "iscrowd": 1}, purpose="evaluation", crowd="drop")
    assert names(records) == ["7.jpg", "9.jpg"]


def test_a_written_coco_file_keeps_an_image_of_crowds(tmp_path: Path) -> None:
    crowd = annotation(id=2, image_id=8, iscrowd=1)
    source = write_json(tmp_path / "a.json", coco([annotation(), crowd], IMAGES))
    run(source, "coco", tmp_path / "b.json", to="coco")
    assert [image["id"] for image in json.loads((tmp_path / "b.json").read_text())["images"]] == [7, 8, 9]


# --- which image an annotation is of --------------------------------------------------------------------------------


@pytest.mark.parametrize("image_id", [None, True, [8], "8.jpg", "", 8.5])
def test_an_annotation_of_nobody_knows_which_image_leaves_none_empty(tmp_path: Path, image_id: Any) -> None:
    records, account = from_coco(tmp_path, {"image_id": image_id, "bbox": [1, 2, 3, 4]})
    assert names(records) == ["7.jpg"]
    assert account.images.dropped == {"no annotation, in a file with annotations whose image_id is that of no image": 2}


def test_an_annotation_of_an_image_that_was_taken_out_of_the_file_leaves_the_others(tmp_path: Path) -> None:
    records, account = from_coco(tmp_path, {"image_id": 10, "bbox": [1, 2, 3, 4]})
    assert names(records) == ["7.jpg", "8.jpg", "9.jpg"]
    assert account.objects.dropped == {"annotation of an image that is not listed": 1}


@pytest.mark.parametrize("ids", [("7", 7), (7, "7"), (7.0, "7"), ("7", 7.0), ("000007", 7), (7, " 7 "), ("7.0", 7)])
@pytest.mark.parametrize("key", ["image", "category"])
def test_ids_of_two_types_are_joined_as_text(tmp_path: Path, ids: tuple[Any, Any], key: str) -> None:
    images = [{"id": ids[0] if key == "image" else 7, "file_name": "a.jpg", "width": 100, "height": 80}]
    categories = [{"id": ids[0] if key == "category" else 1, "name": "cat"}]
    given = annotation(**{f"{key}_id": ids[1]})
    source = write_json(tmp_path / "a.json", coco([given], images, categories))
    records, _ = records_of(source, "coco", tmp_path)
    assert records[0]["objects"] == [{"desc": "cat", "bbox_2d": [10, 20, 40, 60]}]


def test_an_id_that_may_be_either_of_two_is_neither(tmp_path: Path) -> None:
    images = [{"id": item, "file_name": f"{item}.jpg", "width": 100, "height": 80} for item in ("07", "007", "8")]
    source = write_json(tmp_path / "a.json", coco([annotation(image_id=7), annotation(id=2, image_id="8")], images))
    records, account = records_of(source, "coco", tmp_path)
    assert names(records) == ["8.jpg"]
    assert account.objects.dropped == {"annotation of an image that is not listed": 1}


def test_a_file_whose_annotations_find_no_image_is_refused(tmp_path: Path) -> None:
    source = write_json(tmp_path / "a.json", coco([annotation(image_id="a"), annotation(id=2, image_id=70)], IMAGES))
    with pytest.raises(InputError, match="no annotation finds an image: there is an image_id 70, and an image has the"):
        run(source, "coco", tmp_path / "b.jsonl")
    assert not (tmp_path / "b.jsonl").exists()


def test_no_lvis_image_is_empty(tmp_path: Path) -> None:
    images = [image | {"neg_category_ids": [1], "not_exhaustive_category_ids": []} for image in IMAGES]
    source = write_json(tmp_path / "a.json", coco([annotation()], images))
    records, _ = records_of(source, "lvis", tmp_path)
    assert names(records) == ["7.jpg"]
    records, _ = records_of(source, "lvis", tmp_path, purpose="evaluation")
    assert records[1]["metadata"] == {"image_id": 8, "absent_categories": ["cat"]}


# --- other sources --------------------------------------------------------------------------------------------------


def test_a_labelme_image_of_points_or_lines_alone_is_no_record(tmp_path: Path) -> None:
    shapes: dict[str, list[Any]] = {
        "box": [{"label": "a", "points": [[1, 2], [9, 9]], "shape_type": "rectangle"}],
        "empty": [],
        "point": [{"label": "a", "points": [[1, 2]], "shape_type": "point"}],
        "line": [{"label": "a", "points": [[1, 2], [9, 9]], "shape_type": "line"}],
        "odd": [{"label": "a", "points": [[1, 2], [9, 9]], "shape_type": "\ud800"}, {}],
    }
    for name, given in shapes.items():
        content = {"imagePath": f"{name}.jpg", "imageWidth": 100, "imageHeight": 80, "shapes": given}
        write_json(tmp_path / "set" / f"{name}.json", content)
    records, account = records_of(tmp_path / "set", "labelme", tmp_path)
    assert names(records) == ["box.jpg", "empty.jpg"]
    only_points = "only points: a record without a box would say that nothing is there"
    assert account.images.dropped == {only_points: 1, LOST: 2}
    assert account.objects.dropped == {
        f"image dropped: {only_points}": 1,
        "line: records have no such geometry": 1,
        "shape_type that is no name": 1,
        "shape not readable: object missing required field points": 1,
    }


def test_a_yolo_image_whose_lines_are_all_wrong_is_no_record(tmp_path: Path) -> None:
    for name, text in {"a": "0 0.5 0.5 0.1 0.1", "b": "\n", "c": "0 0.5 0.5 0.1 0.1 0.9", "d": "9 0.5 0.5 1 1"}.items():
        write_image(tmp_path / "images" / f"{name}.png", 100, 80)
        write_text(tmp_path / "labels" / f"{name}.txt", text)
    source = write_text(tmp_path / "data.yaml", "train: images\nnames: [cat]\n")
    records, account = records_of(source, "yolo", tmp_path)
    assert names(records) == ["images/a.png", "images/b.png"]
    assert account.images.dropped == {LOST: 2}


@pytest.mark.parametrize("around", ["<objects>{}</objects>", "{}"])
def test_voc_objects_that_stand_elsewhere_are_read_and_no_image_is_called_empty(tmp_path: Path, around: str) -> None:
    box = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>40</xmax><ymax>60</ymax></bndbox>"
    for name, inside in {
        "a": f"<object><name>cat</name>{box}</object>",
        "b": f"<Object>{box}</Object>",
        "c": "",
    }.items():
        size = "<size><width>100</width><height>80</height></size>"
        text = f"<annotation><filename>{name}.jpg</filename>{size}{around.format(inside)}</annotation>"
        write_text(tmp_path / "voc" / f"{name}.xml", text)
    records, account = records_of(tmp_path / "voc", "voc", tmp_path)
    assert [(record["images"], len(record["objects"])) for record in records] == [(["a.jpg"], 1), (["c.jpg"], 0)]
    assert account.images.dropped == {LOST: 1}


def test_records_of_crowds_alone_do_not_become_empty_ones(tmp_path: Path) -> None:
    rows = [{"images": [f"{n}.jpg"], "width": 100, "height": 80, "objects": []} for n in range(4)]
    rows[1]["metadata"] = {"crowd": [{"desc": "cat", "bbox_2d": [1, 2, 3, 4]}]}
    rows[2]["metadata"] = {"points": [{"desc": "cat", "points": [1, 2]}]}
    rows[3]["objects"] = [{"desc": "cat", "bbox_2d": [1, 2, 3]}]
    source = write_lines(tmp_path / "a.jsonl", *rows)
    records, _ = records_of(source, "records", tmp_path, from_space="pixel")
    assert names(records) == ["0.jpg"]
    records, _ = records_of(source, "records", tmp_path, from_space="pixel", purpose="evaluation")
    assert names(records) == ["0.jpg", "1.jpg"]


# --- the account ----------------------------------------------------------------------------------------------------


def test_the_objects_of_a_file_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    shape = {"label": "cat", "points": [[1, 2], [50, 60]], "shape_type": "rectangle"}
    write_json(tmp_path / "lm" / "0.json", {"imagePath": [], "imageHeight": 80, "imageWidth": 100, "shapes": [shape]})
    write_json(tmp_path / "lm" / "1.json", {"imagePath": "b", "imageHeight": 80, "imageWidth": 100, "shapes": [shape]})
    text = '{"imagePath": "\u6e2c.jpg", "imageHeight": 80, "imageWidth": 100, "shapes": [{}, {}]}'
    (tmp_path / "lm" / "2.json").write_bytes(text.encode("gbk"))
    _, account = records_of(tmp_path / "lm", "labelme", tmp_path)
    assert (account.objects.read, account.objects.written) == (4, 1)
    assert account.objects.dropped == {
        "image dropped: imagePath: expected str | null, got array": 1,
        "image dropped: not UTF-8": 2,
    }


def test_the_objects_of_a_record_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    good = {"images": ["a.jpg"], "width": 100, "height": 80, "objects": [{"desc": "cat", "bbox_2d": [1, 2, 3, 4]}]}
    source = write_lines(tmp_path / "a.jsonl", good, good | {"width": "wide"}, good | {"images": []})
    _, account = records_of(source, "records", tmp_path, from_space="pixel")
    assert (account.objects.read, account.objects.written) == (3, 1)
