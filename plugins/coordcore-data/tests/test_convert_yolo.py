"""YOLO data sets as other tools export them: where images and labels are, names as written, keypoints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conversion_support import records_of, run, write_image, write_text

from coordcore import InputError

LINE = "0 0.25 0.5 0.3 0.5\n"
BOX = [10, 20, 40, 60]


def data_set(root: Path, *places: str, line: str = LINE) -> None:
    """In each place an image a.png of 100 x 80 with its labels."""
    for place in places:
        write_image(root / place / "images" / "a.png", 100, 80)
        write_text(root / place / "labels" / "a.txt", line)


def names(records: list[Any]) -> list[str]:
    return [record["images"][0] for record in records]


@pytest.mark.parametrize(
    "yaml",
    [
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images",
        "train: train/images\nval: valid/images",
        "train: ds/train/images\nval: ds/valid/images\ntest: # optional",
        "path: ../datasets/ds\ntrain: train/images\nval: valid/images",
        "path: .\ntrain: train/images\nvalidation: valid/images",
        "path:\ntrain: [../train/images]\nval: [valid/images]\ntest: null/images",
        "train: ./train/images\nval: valid\\images",
    ],
)
def test_folders_are_found_where_ultralytics_finds_them(tmp_path: Path, yaml: str) -> None:
    data_set(tmp_path / "ds", "train", "valid")
    source = write_text(tmp_path / "ds" / "data.yaml", f"{yaml}\nnc: 1\nnames: [cat]\n")
    records, account = records_of(source, "yolo", tmp_path)
    assert names(records) == ["train/images/a.png", "valid/images/a.png"]
    for record in records:
        assert record["objects"][0]["bbox_2d"] == pytest.approx(BOX)
    assert ("split without images: left out" in account.notes) == ("test: ../" in yaml or "test: null" in yaml)


def test_a_folder_above_the_file_is_not_taken_for_one_beside_it(tmp_path: Path) -> None:
    data_set(tmp_path, "train")
    data_set(tmp_path / "ds", "train")
    source = write_text(tmp_path / "ds" / "data.yaml", "train: ../train/images\nnames: [cat]\n")
    records, _ = records_of(source, "yolo", tmp_path)
    assert names(records) == ["../train/images/a.png"]


def test_a_path_from_where_training_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_set(tmp_path / "datasets" / "ds", "train")
    source = write_text(tmp_path / "configs" / "data.yaml", "path: datasets/ds\ntrain: train/images\nnames: [cat]\n")
    monkeypatch.chdir(tmp_path)
    records, _ = records_of(Path(os.path.relpath(source)), "yolo", tmp_path)
    assert names(records) == ["train/images/a.png"]


@pytest.mark.parametrize(
    "written",
    ["on", "off", "NO", "y", "~", "null", "1.10", "0012", "0x1F", "1e3", "12:30", "2020-01-01", "=", ".inf", "010_000"],
)
@pytest.mark.parametrize("form", ["names: [{}]", "names:\n  0: {}", "names:\n- {}", "names: {{0: {}}}"])
def test_class_names_are_what_is_written(tmp_path: Path, written: str, form: str) -> None:
    data_set(tmp_path, ".")
    source = write_text(tmp_path / "data.yaml", f"train: images\n{form.format(written)}\n")
    records, _ = records_of(source, "yolo", tmp_path)
    assert records[0]["objects"][0]["desc"] == written


def test_a_name_that_is_empty_drops_its_objects(tmp_path: Path) -> None:
    data_set(tmp_path, ".", line="0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n")
    source = write_text(tmp_path / "data.yaml", "train: images\nnames:\n  0:\n  1: cat\n")
    _, account = records_of(source, "yolo", tmp_path)
    assert account.objects.dropped == {"empty label": 1}


def test_a_label_file_of_several_images_is_told(tmp_path: Path) -> None:
    data_set(tmp_path, ".")
    write_image(tmp_path / "images" / "a.jpg", 100, 80)
    source = write_text(tmp_path / "data.yaml", "train: images\nval: images\nnames: [cat]\n")
    records, account = records_of(source, "yolo", tmp_path)
    assert sorted(set(names(records))) == ["images/a.jpg", "images/a.png"]
    what = "label file of several images: each gets its objects"
    assert (account.notes[what], account.examples[what]) == (1, ["a.txt -> images/a.jpg images/a.png"])


# --- keypoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "numbers"), [("[8, 2]", 16), ("[3,3]", 9), ("\n- 1\n- 2", 2)])
def test_keypoints_are_no_polygon(tmp_path: Path, shape: str, numbers: int) -> None:
    data_set(tmp_path, ".", line=f"0 0.25 0.5 0.3 0.5 {' '.join(['0.4'] * numbers)}")
    source = write_text(tmp_path / "data.yaml", f"train: images\nkpt_shape: {shape}\nnames: [cat]\n")
    records, account = records_of(source, "yolo", tmp_path, geometry="poly")
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx(BOX)
    assert account.notes["keypoints: not carried without --keypoints, the box is"] == 1


BOXED = "0 0.5 0.5 0.1 0.1"


def test_a_line_of_another_count_than_the_keypoints_have_is_dropped(tmp_path: Path) -> None:
    data_set(tmp_path, ".", line=f"{BOXED} 0.2 0.2\n\n{LINE}{BOXED} 0.2\n{BOXED} 0.2 0.2 2\n")
    source = write_text(tmp_path / "data.yaml", "train: images\nkpt_shape: [1, 2]\nnames: [cat]\n")
    _, account = records_of(source, "yolo", tmp_path)
    what = "not the 5 + 2 numbers of a line that kpt_shape in data.yaml says"
    assert account.examples[what][1].startswith("a.txt:4 ")
    assert account.objects.dropped == {what: 2, f"{what}; kpt_shape: [1, 3] is of lines with visibility": 1}


def test_pixels_are_told(tmp_path: Path) -> None:
    data_set(tmp_path, ".", line="0 50 40 20 20\n0 10 10 20 10 20 20\n0 0.5 0.5 0.2 0.2\n")
    source = write_text(tmp_path / "data.yaml", "train: images\nnames: [cat]\n")
    records, account = records_of(source, "yolo", tmp_path)
    what = "numbers above 1, which are no fractions: divide pixels by the width and height of the image"
    assert account.objects.dropped == {what: 2}
    assert len(records[0]["objects"]) == 1


@pytest.mark.parametrize("shape", ["17", "[17]", "[17, 4]", "[a, 2]", "[0, 2]", "[17, 3.0]"])
def test_a_shape_of_keypoints_that_is_none_is_an_error(tmp_path: Path, shape: str) -> None:
    data_set(tmp_path, ".")
    source = write_text(tmp_path / "data.yaml", f"train: images\nkpt_shape: {shape}\nnames: [cat]\n")
    with pytest.raises(InputError, match=r"kpt_shape: .* is not"):
        run(source, "yolo", tmp_path / "out.jsonl")


# --- exports of other tools -----------------------------------------------------------------------------------------


def cvat_archive(root: Path, images: Path) -> Path:
    for n in (0, 2):
        write_image(images / f"frame_{n}.PNG", 100, 80)
    write_text(root / "obj_train_data" / "frame_0.txt", LINE)
    write_text(root / "obj_train_data" / "frame_2.txt", "")
    write_text(root / "train.txt", "data/obj_train_data/frame_0.PNG\ndata/obj_train_data/frame_2.PNG\n")
    write_text(root / "obj.names", "cat\n")
    entries = "classes = 1\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"
    return write_text(root / "obj.data", entries)


@pytest.mark.parametrize("named", ["file", "folder"])
def test_cvats_archive_of_yolo(tmp_path: Path, named: str) -> None:
    source = cvat_archive(tmp_path / "z", tmp_path / "z" / "obj_train_data")
    records, account = records_of(source if named == "file" else source.parent, "yolo", tmp_path)
    assert names(records) == ["obj_train_data/frame_0.PNG", "obj_train_data/frame_2.PNG"]
    assert [len(record["objects"]) for record in records] == [1, 0]
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx(BOX)
    assert account.notes["split without images: left out"] == 1


def test_cvats_archive_of_yolo_without_its_images(tmp_path: Path) -> None:
    source = cvat_archive(tmp_path / "z", tmp_path / "images" / "obj_train_data")
    records, _ = records_of(source, "yolo", tmp_path, images=tmp_path / "images")
    assert [len(record["objects"]) for record in records] == [1, 0]
    _, account = records_of(source, "yolo", tmp_path, images=tmp_path / "images", split="source")
    assert account.images.written == 2


def test_cvats_list_of_images_in_ultralytics_form(tmp_path: Path) -> None:
    data_set(tmp_path / "z", ".")
    write_text(tmp_path / "z" / "train.txt", "data/images/a.png\n")
    write_text(tmp_path / "z" / "data.yaml", "path: .\ntrain: train.txt\nnames:\n  0: cat\n")
    records, _ = records_of(tmp_path / "z", "yolo", tmp_path)
    assert names(records) == ["images/a.png"]


def test_label_studios_folder(tmp_path: Path) -> None:
    data_set(tmp_path / "z", ".")
    write_text(tmp_path / "z" / "classes.txt", "cat")
    write_text(tmp_path / "z" / "notes.json", "{}")
    records, _ = records_of(tmp_path / "z", "yolo", tmp_path)
    assert names(records) == ["a.png"]


def test_a_label_file_with_another_case_of_its_name_makes_no_image_empty(tmp_path: Path) -> None:
    data_set(tmp_path, ".")
    write_image(tmp_path / "images" / "b.png", 100, 80)
    write_text(tmp_path / "labels" / "b.TXT", LINE)
    source = write_text(tmp_path / "data.yaml", "train: images\nnames: [cat]\n")
    records, _ = records_of(source, "yolo", tmp_path)
    assert names(records) == ["images/a.png"]


def test_labels_of_another_encoding_are_counted(tmp_path: Path) -> None:
    data_set(tmp_path, ".")
    write_image(tmp_path / "images" / "b.png", 100, 80)
    (tmp_path / "labels" / "b.txt").write_bytes(b"0 0.5 0.5 0.1 0.1 \xff\n\n0 0.5 0.5 0.1 0.1\n")
    source = write_text(tmp_path / "data.yaml", "train: images\nnames: [cat]\n")
    _, account = records_of(source, "yolo", tmp_path)
    assert account.objects.dropped == {"image dropped: not UTF-8": 2}


@pytest.mark.parametrize("line", ["0,0.25,0.5,0.3,0.5", "0, 0.25, 0.5, 0.3, 0.5", "0\t0.25 0.5  0.3 0.5"])
def test_numbers_may_have_commas_or_blanks_between_them(tmp_path: Path, line: str) -> None:
    data_set(tmp_path, ".", line=line)
    source = write_text(tmp_path / "data.yaml", "train: images\nnames: [cat]\n")
    records, _ = records_of(source, "yolo", tmp_path)
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx(BOX)


def test_a_decimal_comma_makes_no_polygon(tmp_path: Path) -> None:
    data_set(tmp_path, ".", line=f"{LINE}0 0,25 0,5 0,3 0,5\n")
    source = write_text(tmp_path / "data.yaml", "train: images\nnames: [cat]\n")
    _, account = records_of(source, "yolo", tmp_path)
    assert account.objects.dropped == {"not `class cx cy w h` or a polygon": 1}


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("y" * 300, r"data\.yaml: names .*y.*which no file can be called: file name too long"),
        ("l.txt", "names no images"),
    ],
)
def test_places_that_are_none(tmp_path: Path, place: str, message: str) -> None:
    source = write_text(tmp_path / "data.yaml", f"train: {place}\nnames: [cat]\n")
    write_text(tmp_path / "l.txt", ".\n/\n./\n..\n")
    with pytest.raises(InputError, match=message):
        records_of(source, "yolo", tmp_path)
