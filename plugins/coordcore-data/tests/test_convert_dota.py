"""DOTA's text files: four corners, difficult, headers, where the images are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conversion_support import read_lines, records_of, run, why_dropped, write_image, write_text, write_zip

from coordcore import InputError

HEADER = "imagesource:GoogleEarth\ngsd:0.146343590398\n"
PLANE = "40.0 10.0 60.0 30.0 40.0 50.0 20.0 30.0 plane 0"
SHIP = "10.0 60.0 30.0 60.0 30.0 70.0 10.0 70.0 ship 1"


def convert(tmp_path: Path, text: str, **options: Any) -> tuple[list[Any], Any]:
    """P0001 holds `text`, P0002 a plane."""
    for name, content in (("P0001", text), ("P0002", PLANE)):
        write_text(tmp_path / "train" / "labelTxt" / f"{name}.txt", content)
        write_image(tmp_path / "train" / "images" / f"{name}.png", 100, 80)
    return records_of(tmp_path / "train", "dota", tmp_path, **options)


def test_boxes_and_difficult(tmp_path: Path) -> None:
    records, account = convert(tmp_path, f"{HEADER}{PLANE}\n{SHIP}\n")
    assert records[0] == {
        "images": ["images/P0001.png"],
        "width": 100,
        "height": 80,
        "objects": [{"desc": "plane", "bbox_2d": [20, 10, 60, 50]}, {"desc": "ship", "bbox_2d": [10, 60, 30, 70]}],
        "metadata": {"difficult": [1]},
    }
    assert account.notes["rotated box: its enclosing box is written"] == 3


def test_quads_start_at_their_first_corner(tmp_path: Path) -> None:
    records, _ = convert(tmp_path, PLANE, geometry="poly")
    assert records[0]["objects"] == [{"desc": "plane", "poly": [40, 10, 60, 30, 40, 50, 20, 30], "poly_points": 4}]


def test_a_quad_is_cut_before_it_is_enclosed(tmp_path: Path) -> None:
    records, _ = convert(tmp_path, "100 0 140 40 100 80 60 40 plane 0\n80 40 120 0 160 40 120 80 ship 0")
    # The first keeps its left half; the second its left corner, of which the edge cuts off 20 above and below.
    assert [item["bbox_2d"] for item in records[0]["objects"]] == [[60, 0, 100, 80], [80, 20, 100, 60]]


@pytest.mark.parametrize("text", ["", HEADER, "\n\n"])
def test_a_file_without_objects_is_empty(tmp_path: Path, text: str) -> None:
    records, _ = convert(tmp_path, text)
    assert [len(record["objects"]) for record in records] == [0, 1]


def test_lines_without_difficult(tmp_path: Path) -> None:
    records, _ = convert(tmp_path, PLANE.removesuffix(" 0"))
    assert len(records[0]["objects"]) == 1


def test_commas_may_stand_between(tmp_path: Path) -> None:
    records, account = convert(tmp_path, f"{PLANE.replace(' ', ',')}\n{SHIP.replace(' ', ', ')}\n")
    assert [item["desc"] for item in records[0]["objects"]] == ["plane", "ship"]
    assert records[0]["metadata"] == {"difficult": [1]}
    assert not account.objects.dropped


def test_splits_and_archives(tmp_path: Path) -> None:
    picture = write_image(tmp_path / "p.png", 100, 80)
    files: dict[str, Any] = {}
    for split in ("train", "val"):
        files |= {f"dota/{split}/labelTxt/P1.txt": PLANE, f"dota/{split}/images/P1.png": picture}
    run(write_zip(tmp_path / "a.zip", files), "dota", tmp_path / "out.jsonl", split="source")
    paths = [read_lines(tmp_path / f"out.{split}.jsonl")[0]["images"] for split in ("train", "val")]
    assert paths == [["dota/train/images/P1.png"], ["dota/val/images/P1.png"]]


def test_images_of_another_folder(tmp_path: Path) -> None:
    write_text(tmp_path / "labels" / "P1.txt", PLANE)
    write_image(tmp_path / "pictures" / "sub" / "P1.TIF", 100, 80)
    records, _ = records_of(tmp_path / "labels", "dota", tmp_path, images=tmp_path / "pictures")
    assert records[0]["images"] == ["sub/P1.TIF"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("1 2 3 4 5 6 7 plane 0", "corners that are no numbers"),
        ("1 2 3 4 5 6 7 8", "not `x1 y1 x2 y2"),
        ("0 0.5 0.5 0.1 0.1", "not `x1 y1 x2 y2"),
        ("1 2 3 4 5 6 7 8 plane 0 9", "not `x1 y1 x2 y2"),
        ("1,5 2 3 4 5 6 7 8 plane 0", "corners that are no numbers"),
        ("1_0 2 3 4 5 6 7 8 plane 0", "corners that are no numbers"),
        ("1 2 3 4 5 6 7 8 plane yes", "difficult is not 0, 1 or 2"),
        ("nan 2 3 4 5 6 7 8 plane 0", "a coordinate is NaN"),
        ("500 10 520 10 520 30 500 30 plane 0", "lies outside the image"),
        ("10 10 20 10 30 10 40 10 plane 0", "no extent"),
        ("10 10 20 10 20 20 10 20 <|im_end|> 0", "label holds a control token"),
    ],
)
def test_an_image_that_lost_its_object_is_no_record(tmp_path: Path, bad: str, reason: str) -> None:
    records, account = convert(tmp_path, HEADER + bad)
    assert [record["images"] for record in records] == [["images/P0002.png"]]
    images, objects = why_dropped(account)
    assert (images, objects.startswith(reason)) == ("all of its objects were dropped", True)


def test_label_files_without_an_image_or_text_are_dropped(tmp_path: Path) -> None:
    write_text(tmp_path / "train" / "labelTxt" / "P0003.txt", f"{PLANE}\n{SHIP}")
    write_text(tmp_path / "train" / "labelTxt" / "P0004.txt", PLANE)
    write_image(tmp_path / "train" / "images" / "P0004.png", 100, 80)
    (tmp_path / "train" / "labelTxt" / "P0004.txt").write_bytes(b"\xff\xfe plane")
    records, account = convert(tmp_path, SHIP)
    assert len(records) == 2
    assert account.images.dropped == {"label file without an image": 1, "not UTF-8": 1}
    assert account.objects.read == 5


@pytest.mark.parametrize("root", [None, "pictures", "below"])
def test_a_label_file_of_several_images_is_dropped(tmp_path: Path, root: str | None) -> None:
    write_text(tmp_path / "labelTxt" / "P1.txt", f"{PLANE}\n{SHIP}")
    write_text(tmp_path / "labelTxt" / "P2.txt", PLANE)
    folder = tmp_path / {None: "images", "pictures": "pictures", "below": "below/sub"}[root]
    for name, width in (("P1.png", 640), ("P1.tif", 100), ("P2.png", 640)):
        write_image(folder / name, width, 480)
    where = {} if root is None else {"images": tmp_path / root}
    records, account = records_of(tmp_path / "labelTxt", "dota", tmp_path, **where)
    assert [Path(record["images"][0]).name for record in records] == ["P2.png"]
    assert (account.images.dropped, account.objects.read) == (
        {"label file that may be of several images; keep one": 1},
        3,
    )
    assert account.examples["label file that may be of several images; keep one"] == ["P1.txt -> P1.png and P1.tif"]


def test_refusals(tmp_path: Path) -> None:
    write_text(tmp_path / "labelTxt" / "P1.txt", PLANE)
    with pytest.raises(InputError, match="no image for any of its 1 label files in folders named images"):
        run(tmp_path / "labelTxt", "dota", tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="no such file or folder"):
        run(tmp_path / "no", "dota", tmp_path / "out.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.txt files"):
        run(tmp_path / "empty", "dota", tmp_path / "out.jsonl")
