"""YOLO 1.1 as CVAT exports it, and YOLO's pose labels, from archives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conversion_support import read_lines, records_of, run, why_dropped, write_image, write_zip

from coordcore import InputError

OBJ_DATA = "classes = 3\nnames = data/obj.names\ntrain = data/train.txt\nvalid = data/valid.txt\nbackup = backup/\n"
CAT, PLANE = "0 0.25 0.5 0.3 0.5\n", "2 0.5 0.5 0.2 0.25\n"


def archive(path: Path, labels: str = CAT, images: Path | None = None, **changes: str | None) -> Path:
    """image1 of train holds `labels`, image2 of valid a plane. images: put into the archive."""
    files: dict[str, Any] = {
        "obj.data": OBJ_DATA,
        "obj.names": "cat\ndog\nairplane\n",
        "train.txt": "data/obj_train_data/image1.jpg\n",
        "valid.txt": "data/obj_valid_data/image2.jpg\n",
        "obj_train_data/image1.txt": labels,
        "obj_valid_data/image2.txt": PLANE,
    }
    files |= {name.replace("__", "/").replace("_dot_", "."): text for name, text in changes.items()}
    if images is not None:
        files |= {"obj_train_data/image1.jpg": images, "obj_valid_data/image2.jpg": images}
    return write_zip(path, {name: text for name, text in files.items() if text is not None})


def picture(tmp_path: Path) -> Path:
    return write_image(tmp_path / "picture.jpg", 100, 80)


def test_an_archive_with_images_and_its_subsets(tmp_path: Path) -> None:
    source = archive(tmp_path / "a.zip", images=picture(tmp_path))
    records, _ = records_of(source, "yolo", tmp_path)
    assert [(record["images"], record["objects"]) for record in records] == [
        (["obj_train_data/image1.jpg"], [{"desc": "cat", "bbox_2d": pytest.approx([10, 20, 40, 60])}]),
        (["obj_valid_data/image2.jpg"], [{"desc": "airplane", "bbox_2d": pytest.approx([40, 30, 60, 50])}]),
    ]
    run(source, "yolo", tmp_path / "s.jsonl", split="source")
    assert read_lines(tmp_path / "s.valid.jsonl")[0]["objects"][0]["desc"] == "airplane"


def test_lists_of_windows(tmp_path: Path) -> None:
    changes = {"obj_dot_data": OBJ_DATA.replace("/", "\\"), "train_dot_txt": "data\\obj_train_data\\image1.jpg\n"}
    records, _ = records_of(archive(tmp_path / "a.zip", images=picture(tmp_path), **changes), "yolo", tmp_path)
    assert [record["objects"][0]["desc"] for record in records] == ["cat", "airplane"]


@pytest.mark.parametrize("place", ["obj_train_data", ".", "deeper/pictures"])
def test_an_archive_without_images_and_a_folder_of_them(tmp_path: Path, place: str) -> None:
    for name in ("image1.jpg", "image2.jpg"):
        write_image(tmp_path / "images" / place / name, 100, 80)
    records, _ = records_of(archive(tmp_path / "a.zip"), "yolo", tmp_path, images=tmp_path / "images")
    assert {Path(record["images"][0]).name: [item["desc"] for item in record["objects"]] for record in records} == {
        "image1.jpg": ["cat"],
        "image2.jpg": ["airplane"],
    }
    assert all((tmp_path / "images" / record["images"][0]).is_file() for record in records)


def test_lists_of_another_machine_and_the_labels_of_each_subset(tmp_path: Path) -> None:
    """Images of one name in two subsets keep their own labels."""
    lists = {"train_dot_txt": "/home/me/yolo/obj_train_data/a.jpg\n", "valid_dot_txt": "data\\obj_valid_data\\a.jpg\n"}
    labels = {"obj_train_data__a_dot_txt": CAT, "obj_valid_data__a_dot_txt": PLANE}
    for subset in ("train", "valid"):
        write_image(tmp_path / "images" / f"obj_{subset}_data" / "a.jpg", 100, 80)
    source = archive(tmp_path / "a.zip", **lists, **labels)
    records, _ = records_of(source, "yolo", tmp_path, images=tmp_path / "images")
    assert {record["images"][0]: record["objects"][0]["desc"] for record in records} == {
        "obj_train_data/a.jpg": "cat",
        "obj_valid_data/a.jpg": "airplane",
    }


def test_pose_labels_keep_their_boxes(tmp_path: Path) -> None:
    files = {
        "data.yaml": "path: ./\ntrain: train.txt\nkpt_shape: [2, 3]\nnames:\n  0: person\n",
        "train.txt": "images/train/image1.jpg\n",
        "images/train/image1.jpg": picture(tmp_path),
        "labels/train/image1.txt": "0 0.25 0.5 0.3 0.5 0.2 0.4 2 0.3 0.6 0\n",
    }
    records, account = records_of(write_zip(tmp_path / "a.zip", files), "yolo", tmp_path)
    assert records[0]["objects"] == [{"desc": "person", "bbox_2d": pytest.approx([10, 20, 40, 60])}]
    assert account.notes["keypoints: not carried without --keypoints, the box is"] == 1


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("0 0.25 0.5 0.3\n", "not `class cx cy w h`"),
        ("cat 0.25 0.5 0.3 0.5\n", "not `class cx cy w h`"),
        ("0 0,25 0,5 0,3 0,5\n", "not `class cx cy w h`"),
        ("0 0.25 0.5 0.3 0.5 0.9\n", "six numbers: a prediction"),
        ("3 0.25 0.5 0.3 0.5\n", "class without a name"),
        ("-1 0.25 0.5 0.3 0.5\n", "class without a name"),
        ("0.5 0.25 0.5 0.3 0.5\n", "class without a name"),
        ("0 0.25 0.5 0 0.5\n", "no extent"),
        ("0 0.25 0.5 -0.3 0.5\n", "negative width or height"),
        ("0 25 50 30 50\n", "numbers above 1, which are no fractions"),
        ("0 nan 0.5 0.3 0.5\n", "a coordinate is NaN"),
    ],
)
def test_an_image_that_lost_its_box_is_no_record(tmp_path: Path, labels: str, reason: str) -> None:
    records, account = records_of(archive(tmp_path / "a.zip", labels, picture(tmp_path)), "yolo", tmp_path)
    assert [record["images"] for record in records] == [["obj_valid_data/image2.jpg"]]
    images, objects = why_dropped(account)
    assert (images, objects.startswith(reason)) == ("all of its objects were dropped", True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obj_dot_names": None}, "obj.data: names: no file with the class names; give it with --classes FILE"),
        ({"obj_dot_names": "\n"}, "obj.names: needs class names"),
        (
            {"train_dot_txt": None, "valid_dot_txt": None},
            r"obj.data: names no images: no file at train: data/train\.txt, valid: data/valid\.txt$",
        ),
        ({"train_dot_txt": "", "valid_dot_txt": "/\n"}, "obj.data: names no images: no list of images, or nothing"),
        ({"train_dot_txt": "", "valid_dot_txt": None}, r"names no images: no file at valid: data/valid\.txt$"),
        ({"obj_dot_data": ""}, "obj.data: names no images: no list of images, or nothing in them$"),
    ],
)
def test_refusals(tmp_path: Path, changes: dict[str, str | None], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(archive(tmp_path / "a.zip", **changes), "yolo", tmp_path / "out.jsonl")
