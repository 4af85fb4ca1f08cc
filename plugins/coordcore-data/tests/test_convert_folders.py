"""YOLO and LabelMe: folders of label files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from conversion_support import records_of, run, write_image, write_json, write_text

from coordcore import InputError


def yolo(tmp_path: Path, labels: str | None, yaml: str = "train: images/train\nnames: {0: cat, 1: 'a, dog'}\n") -> Path:
    """A data set of one image a.png of 100 x 80."""
    write_image(tmp_path / "set" / "images" / "train" / "a.png", 100, 80)
    if labels is not None:
        write_text(tmp_path / "set" / "labels" / "train" / "a.txt", labels)
    return write_text(tmp_path / "set" / "data.yaml", yaml)


def test_yolo_centres_become_corners_in_pixels(tmp_path: Path) -> None:
    records, _ = records_of(yolo(tmp_path, "1 0.25 0.5 0.3 0.5\n"), "yolo", tmp_path)
    assert records[0]["images"] == ["images/train/a.png"]
    assert (records[0]["width"], records[0]["height"]) == (100, 80)
    assert records[0]["objects"][0]["desc"] == "a, dog"
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([10, 20, 40, 60])


def test_yolo_polygons(tmp_path: Path) -> None:
    source = yolo(tmp_path, "0 0.1 0.25 0.4 0.25 0.1 0.75\n")
    records, _ = records_of(source, "yolo", tmp_path, geometry="poly")
    assert records[0]["objects"][0]["poly"] == pytest.approx([10, 20, 40, 20, 10, 60])
    records, account = records_of(source, "yolo", tmp_path)
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([10, 20, 40, 60])
    assert account.notes == {"size read from the image file": 1, "polygon: its enclosing box is written": 1}


def test_a_yolo_image_without_labels_is_an_empty_record(tmp_path: Path) -> None:
    write_image(tmp_path / "set" / "images" / "train" / "b.png", 100, 80)
    records, account = records_of(yolo(tmp_path, "0 0.5 0.5 0.1 0.1\n"), "yolo", tmp_path)
    assert [len(record["objects"]) for record in records] == [1, 0]
    assert account.notes["image without a label file: an empty record"] == 1


def test_yolo_images_whose_labels_are_elsewhere_are_not_called_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no label file, nor one for any other image of its folder or list"):
        records_of(yolo(tmp_path, None), "yolo", tmp_path)


def test_a_yolo_image_whose_label_file_may_have_another_name_is_not_called_empty(tmp_path: Path) -> None:
    source = yolo(tmp_path, "0 0.5 0.5 0.1 0.1\n")
    write_image(tmp_path / "set" / "images" / "train" / "b.png", 100, 80)
    write_image(tmp_path / "set" / "images" / "train" / "c.png", 100, 80)
    write_text(source.parent / "labels" / "train" / "b_1.txt", "0 0.5 0.5 0.1 0.1\n")
    write_text(source.parent / "labels" / "train" / "c.txt", "")
    records, account = records_of(source, "yolo", tmp_path)
    assert [record["images"] for record in records] == [["images/train/a.png"], ["images/train/c.png"]]
    reason = (
        "no label file, while label files of its folder or list find no image; write an empty one if nothing is there"
    )
    assert account.images.dropped == {reason: 1, "image file missing": 1}


def test_a_yolo_label_file_without_its_image_is_counted(tmp_path: Path) -> None:
    source = yolo(tmp_path, "0 0.5 0.5 0.1 0.1\n")
    write_text(source.parent / "labels" / "train" / "lone.txt", "0 0.5 0.5 0.1 0.1\n")
    _, account = records_of(source, "yolo", tmp_path)
    assert account.images.dropped == {"image file missing": 1}
    assert account.objects.dropped == {"image dropped: image file missing": 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.1", "not `class cx cy w h` or a polygon"),
        ("cat 0.5 0.5 0.1 0.1", "not `class cx cy w h` or a polygon"),
        ("0 0.5 0.5 0.1 0.1 0.9", "six numbers: a prediction with its confidence, no label"),
        ("0 0.5 0.5 0.1 0.1 0.2 0.3 0.4", "polygon with an odd count of numbers"),
        ("7 0.5 0.5 0.1 0.1", "class without a name"),
        ("0.5 0.5 0.5 0.1 0.1", "class without a name"),
        ("0 0.5 0.5 -0.1 0.1", "negative width or height"),
        ("0 0.5 0.5 0 0.1", "no extent: width or height is 0"),
        ("0 nan 0.5 0.1 0.1", "a coordinate is NaN or infinite"),
        (
            "0 50 50 10 10",
            "numbers above 1, which are no fractions: divide pixels by the width and height of the image",
        ),
        ("0 0.1 0.1 nan 0.1 0.1 0.9", "a coordinate is NaN or infinite"),
    ],
)
def test_each_bad_yolo_line_has_its_reason(tmp_path: Path, line: str, reason: str) -> None:
    records, account = records_of(yolo(tmp_path, f"0 0.5 0.5 0.1 0.1\n\n{line}\n"), "yolo", tmp_path)
    assert len(records[0]["objects"]) == 1
    assert account.objects.dropped == {reason: 1}


def test_a_yolo_folder_with_classes_and_an_image_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "photos" / "b" / "a.jpg", 100, 80)
    write_text(tmp_path / "labels" / "b" / "a.txt", "1 0.5 0.5 0.5 0.5")
    write_text(tmp_path / "labels" / "classes.txt", "cat\ndog\n\n")
    records, _ = records_of(tmp_path / "labels", "yolo", tmp_path, images=tmp_path / "photos")
    assert records[0]["images"] == ["b/a.jpg"]
    assert records[0]["objects"] == [{"desc": "dog", "bbox_2d": [25, 20, 75, 60]}]


def test_yolo_lists_of_images_and_their_own_splits(tmp_path: Path) -> None:
    for name in ("train/a", "val/b"):
        write_image(tmp_path / "images" / f"{name}.png", 10, 10)
        write_text(tmp_path / "labels" / f"{name}.txt", "0 0.5 0.5 1 1")
    write_text(tmp_path / "val.txt", "./images/val/b.png\n")
    source = write_text(tmp_path / "data.yaml", "train: [images/train]\nval: val.txt\nnames: [cat]\n")
    run(source, "yolo", tmp_path / "out.jsonl", split="source")
    assert '"images/train/a.png"' in (tmp_path / "out.train.jsonl").read_text()
    assert '"images/val/b.png"' in (tmp_path / "out.val.jsonl").read_text()


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: images/train\n", "needs class names"),
        ("names: [cat]\n", "names no images"),
        ("train: images/none\nnames: [cat]\n", "no folder or list of images at"),
        ("train: [\n", "not YAML"),
        ("just text", "is no data.yaml"),
    ],
)
def test_a_bad_data_yaml_is_an_error(tmp_path: Path, yaml: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(yolo(tmp_path, "", yaml), "yolo", tmp_path / "out.jsonl")


def test_yolo_labels_without_images_say_what_is_needed(tmp_path: Path) -> None:
    write_text(tmp_path / "labels" / "a.txt", "0 0.5 0.5 1 1")
    with pytest.raises(InputError, match="say where the images are, --image-root DIR"):
        run(tmp_path / "labels", "yolo", tmp_path / "out.jsonl")


# --- LabelMe --------------------------------------------------------------------------------------------------------


def shape(kind: str | None, points: Any, label: Any = "cat") -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}}


def from_labelme(tmp_path: Path, *shapes: Any, **options: Any) -> tuple[list[Any], Any]:
    content = {"imagePath": "..\\photos\\a.jpg", "imageWidth": 100, "imageHeight": 80, "shapes": shapes}
    write_json(tmp_path / "set" / "labels" / "a.json", {**content, "imageData": "AAAA"})
    return records_of(tmp_path / "set", "labelme", tmp_path, **options)


def test_a_labelme_rectangle_may_be_drawn_from_any_corner(tmp_path: Path) -> None:
    records, _ = from_labelme(tmp_path, shape("rectangle", [[40, 20], [10, 60]]))
    assert records[0]["images"] == ["photos/a.jpg"]
    assert records[0]["objects"] == [{"desc": "cat", "bbox_2d": [10, 20, 40, 60]}]


def test_labelme_polygons_points_and_circles(tmp_path: Path) -> None:
    triangle = [[10.5, 20], [40, 20], [10, 60]]
    shapes = shape(None, triangle), shape("point", [[5, 6]]), shape("circle", [[50, 40], [53, 44]])
    records, account = from_labelme(tmp_path, *shapes, geometry="poly")
    assert records[0]["objects"] == [
        {"desc": "cat", "poly": [10.5, 20, 40, 20, 10, 60], "poly_points": 3},
        {"desc": "cat", "bbox_2d": [45, 35, 55, 45]},
    ]
    assert records[0]["metadata"] == {"points": [{"desc": "cat", "points": [5, 6]}]}
    assert account.notes == {"circle: its enclosing box is written": 1}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (shape("line", [[1, 1], [9, 9]]), "line: records have no such geometry"),
        (shape("linestrip", [[1, 1], [9, 9]]), "linestrip: records have no such geometry"),
        (shape("rectangle", [[1, 1]]), "rectangle of 1 points"),
        (shape("rectangle", [[1, 1], [math.nan, 5]]), "a coordinate is NaN or infinite"),
        (shape("polygon", [[1, 1], [9, 9]]), "polygon of fewer than 3 points"),
        (shape("polygon", [[1, 1], [9]]), "shape not readable: points[...]: expected array of length 2, got 1"),
        (shape("rectangle", "here"), "shape not readable: points: expected array, got str"),
        (shape("rectangle", [[1, 1], [5, 5]], label=None), "no label"),
        ("cat", "shape not readable: expected object, got str"),
    ],
)
def test_each_bad_labelme_shape_has_its_reason(tmp_path: Path, item: Any, reason: str) -> None:
    records, account = from_labelme(tmp_path, shape("rectangle", [[40, 20], [10, 60]]), item)
    assert len(records[0]["objects"]) == 1
    assert account.objects.dropped == {reason: 1}


def test_a_labelme_file_that_is_cut_off_is_one_dropped_image(tmp_path: Path) -> None:
    write_text(tmp_path / "set" / "labels" / "b.json", '{"shapes": [')
    write_json(tmp_path / "set" / "labels" / "c.json", {"shapes": []})
    _, account = from_labelme(tmp_path, shape("rectangle", [[40, 20], [10, 60]]))
    assert account.images.dropped == {"not JSON": 1, "no file name, or one that is no valid Unicode": 1}


def test_suffixes_are_read_in_either_case(tmp_path: Path) -> None:
    for name in ("a.json", "B.JSON"):
        content = {"imagePath": f"{name[0]}.png", "imageWidth": 10, "imageHeight": 8, "shapes": []}
        write_json(tmp_path / "set" / name, content)
    records, _ = records_of(tmp_path / "set", "labelme", tmp_path)
    assert [record["images"] for record in records] == [["B.png"], ["a.png"]]


def test_linked_folders_are_read_and_no_loop_is_walked(tmp_path: Path) -> None:
    source = yolo(tmp_path, "0 0.5 0.5 1 1\n")
    images = tmp_path / "set" / "images"
    write_image(tmp_path / "elsewhere" / "b.png", 100, 80)
    (images / "train" / "more").symlink_to(tmp_path / "elsewhere")
    (images / "train" / "loop").symlink_to(images)
    (images / "train" / "gone.png").symlink_to("nowhere")
    records, account = records_of(source, "yolo", tmp_path)
    assert [record["images"] for record in records] == [["images/train/a.png"], ["images/train/more/b.png"]]
    assert account.images.dropped == {"image file missing": 1}
