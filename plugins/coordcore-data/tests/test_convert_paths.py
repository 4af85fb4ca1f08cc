"""What image paths mean: names without a suffix, in another case, of another machine; where VOC counts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conversion_support import annotation, coco, records_of, write_image, write_json, write_text

VOC = "<annotation><filename>{name}</filename><size>{size}</size>{objects}</annotation>"
SIZE, NO_SIZE = "<width>100</width><height>80</height>", "<width>0</width><height>0</height>"


def voc(tmp_path: Path, file: str, name: str, *boxes: str, size: str = SIZE) -> Path:
    objects = ""
    for box in boxes or ("11 21 40 60",):
        parts = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
        objects += f"<object><name>cat</name><bndbox>{''.join(f'<{k}>{v}</{k}>' for k, v in parts)}</bndbox></object>"
    write_text(tmp_path / "ann" / file, VOC.format(name=name, size=size, objects=objects))
    return tmp_path / "ann"


@pytest.mark.parametrize(
    ("file", "name", "image"),
    [
        ("a.xml", "n078_18", "n078_18.JPEG"),
        ("a.xml", "img3.JPG", "img3.jpg"),
        ("a.xml", "IMG3.jpg", "img3.jpg"),
        ("img2.xml", "other.png", "img2.jpg"),
        ("sub/img4.xml", "other.png", "sub/img4.png"),
        ("a.xml", "img4.png", "sub/img4.png"),
        ("a.xml", "C:\\Users\\me\\set\\img3.jpg", "img3.jpg"),
        ("a.xml", "v1.2", "v1.2.png"),
    ],
)
def test_the_image_file_that_a_name_means(tmp_path: Path, file: str, name: str, image: str) -> None:
    for item in ("n078_18.JPEG", "img3.jpg", "img2.jpg", "sub/img4.png", "v1.2.png"):
        write_image(tmp_path / "img" / item, 100, 80)
    records, account = records_of(voc(tmp_path, file, name), "voc", tmp_path, images=tmp_path / "img", origin=1)
    assert records[0]["images"] == [image]
    assert account.notes == {"image path that names no file in --image-root: taken as the one of that name": 1}


def test_a_name_that_two_files_may_have_is_neither(tmp_path: Path) -> None:
    for item in ("x/a.png", "y/a.png"):
        write_image(tmp_path / "img" / item, 100, 80)
    records, account = records_of(voc(tmp_path, "b.xml", "a.png"), "voc", tmp_path, images=tmp_path / "img", origin=1)
    assert records[0]["images"] == ["a.png"]
    assert account.notes == {"image file not found in --image-root: the path stays as it is": 1}


def test_a_file_that_is_found_by_its_name_must_have_the_size(tmp_path: Path) -> None:
    write_image(tmp_path / "img" / "a.png", 50, 40)
    source = voc(tmp_path, "b.xml", "a.jpg")
    voc(tmp_path, "c.xml", "a.png", size=NO_SIZE)
    records, account = records_of(source, "voc", tmp_path, images=tmp_path / "img", origin=1)
    assert [record["width"] for record in records] == [50]
    assert account.images.dropped == {"size in the source is not that of the image file: resized?": 1}


def test_coco_paths_are_looked_for_in_the_same_way(tmp_path: Path) -> None:
    write_image(tmp_path / "img" / "train" / "A.JPG", 100, 80)
    images = [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 80}]
    source = write_json(tmp_path / "a.json", coco([annotation()], images))
    records, _ = records_of(source, "coco", tmp_path, images=tmp_path / "img")
    assert records[0]["images"] == ["train/A.JPG"]


@pytest.mark.parametrize(
    ("prefix", "path", "written"),
    [
        ("C:\\Users\\me", "C:\\Users\\me\\set\\a.jpg", "set/a.jpg"),
        ("C:/Users/me/", "C:\\Users\\me\\a.jpg", "a.jpg"),
        ("/data", "/data//a.jpg", "a.jpg"),
        ("dat", "data/a.jpg", "data/a.jpg"),
        ("data", "data", "data"),
    ],
)
def test_a_prefix_of_another_machine_is_taken_off(tmp_path: Path, prefix: str, path: str, written: str) -> None:
    images = [{"id": 7, "file_name": path, "width": 100, "height": 80}]
    source = write_json(tmp_path / "a.json", coco([annotation()], images))
    records, account = records_of(source, "coco", tmp_path, strip_prefix=prefix, image_prefix="train")
    assert records[0]["images"] == [f"train/{written}"]
    missed = "image path that does not start with what --strip-prefix says"
    assert account.notes == ({missed: 1} if path == written or written.startswith("data") else {})


def labelme(tmp_path: Path, image: str, **size: Any) -> Path:
    shape = {"label": "cat", "points": [[10, 20], [40, 60]], "shape_type": "rectangle"}
    write_json(tmp_path / "ann" / "deep" / "a.json", {"imagePath": image, "shapes": [shape], **size})
    return tmp_path / "ann"


def test_a_labelme_file_without_a_size_takes_that_of_the_image_beside_it(tmp_path: Path) -> None:
    write_image(tmp_path / "img" / "图片 一.jpg", 100, 80)
    source = labelme(tmp_path, "..\\..\\img\\图片 一.jpg", imageWidth=None, imageHeight=None)
    records, _ = records_of(source, "labelme", tmp_path)
    assert (records[0]["images"], records[0]["width"]) == (["../img/图片 一.jpg"], 100)
    records, _ = records_of(source, "labelme", tmp_path, images=tmp_path / "img")
    assert (records[0]["images"], records[0]["width"]) == (["图片 一.jpg"], 100)


def test_an_absolute_labelme_path_is_not_put_below_the_folder(tmp_path: Path) -> None:
    source = labelme(tmp_path, "C:\\Users\\me\\set\\a.jpg", imageWidth=100, imageHeight=80)
    records, account = records_of(source, "labelme", tmp_path)
    assert records[0]["images"] == ["C:/Users/me/set/a.jpg"]
    assert list(account.notes) == [
        "absolute image path: --strip-prefix takes off what other machines do not have",
    ]


# --- VOC's first pixel ----------------------------------------------------------------------------------------------


def boxes(records: list[Any]) -> list[Any]:
    return [item["bbox_2d"] for record in records for item in record["objects"]]


@pytest.mark.parametrize("proof", ["0 30 14 42", "30 0 40 9", "0.0 30 14 42", "00 30 14 42", " 0 30 14 42 "])
def test_a_corner_at_zero_shows_where_the_whole_source_counts_from(tmp_path: Path, proof: str) -> None:
    voc(tmp_path, "a.xml", "a.png", "11 21 40 60", "1 1 100 80")
    records, account = records_of(voc(tmp_path, "b.xml", "b.png", proof), "voc", tmp_path)
    assert boxes(records)[:2] == [[11, 21, 40, 60], [1, 1, 100, 80]]
    assert boxes(records)[2] == [float(value) for value in proof.split()]
    assert list(account.notes) == [
        "origin 0: a corner at 0 shows it, VOC's first pixel is 1; --origin 1 says otherwise"
    ]


@pytest.mark.parametrize("no_proof", ["1 1 14 42", "10 20 30 40", "-3 5 9 9"])
def test_other_corners_do_not(tmp_path: Path, no_proof: str) -> None:
    voc(tmp_path, "a.xml", "a.png", "11 21 40 60")
    records, _ = records_of(voc(tmp_path, "b.xml", "b.png", no_proof), "voc", tmp_path)
    assert boxes(records)[0] == [10, 20, 40, 60]


@pytest.mark.parametrize(("origin", "box"), [(0, [11, 21, 40, 60]), (1, [10, 20, 40, 60])])
def test_the_origin_can_be_said(tmp_path: Path, origin: int, box: list[float]) -> None:
    voc(tmp_path, "b.xml", "b.png", "0 1 14 42")
    records, _ = records_of(voc(tmp_path, "a.xml", "a.png", "11 21 40 60"), "voc", tmp_path, origin=origin)
    assert boxes(records)[0] == box


def test_corners_in_reverse_order_are_dropped_or_sorted(tmp_path: Path) -> None:
    voc(tmp_path, "a.xml", "a.png")
    source = voc(tmp_path, "b.xml", "b.png", "40 60 11 21")
    records, account = records_of(source, "voc", tmp_path)
    assert [record["images"] for record in records] == [["a.png"]]
    assert account.objects.dropped == {"negative width or height": 1}
    records, account = records_of(source, "voc", tmp_path, reversed_corners="sort", origin=1)
    assert boxes(records) == [[10, 20, 40, 60]] * 2
    assert account.notes == {"corners in reverse order: sorted": 1}
