"""Open Images: boxes in fractions, machine ids and their names, crowds, rows in any order."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from conversion_support import records_of, run, why_dropped, write_image, write_text, write_zip

from coordcore import InputError

HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
NAMES = '/m/011k07,Tortoise\n/m/01g317,Person\n/m/0h8,"Carnivore, large"\n'
FLAGS = "0,0,0,0,0"


def row(
    image: str = "000a1249af2bc5f0",
    label: str = "/m/011k07",
    box: str = "0.1,0.5,0.25,0.75",
    flags: str = FLAGS,
) -> str:
    return f"{image},xclick,{label},1,{box},{flags}"


def write(folder: Path, *rows: str, names: str | None = NAMES, header: str = HEADER) -> Path:
    if names is not None:
        write_text(folder / "class-descriptions-boxable.csv", names)
    return write_text(folder / "validation-annotations-bbox.csv", "\n".join([header, *rows]) + "\n")


def convert(tmp_path: Path, *rows: str, **options: Any) -> tuple[list[Any], Any]:
    for name in ("000a1249af2bc5f0", "b"):
        write_image(tmp_path / "pictures" / f"{name}.jpg", 100, 80)
    given = {key: options.pop(key) for key in ("names", "header") if key in options}
    return records_of(write(tmp_path, *rows, **given), "openimages", tmp_path, images=tmp_path / "pictures", **options)


def test_boxes_and_crowds(tmp_path: Path) -> None:
    records, account = convert(
        tmp_path, row(), row(label="/m/0h8", box="0,1,0,0.5"), row(label="/m/01g317", flags="1,0,1,0,0")
    )
    assert records == [
        {
            "images": ["000a1249af2bc5f0.jpg"],
            "width": 100,
            "height": 80,
            "objects": [
                {"desc": "Tortoise", "bbox_2d": pytest.approx([10, 20, 50, 60])},
                {"desc": "Carnivore, large", "bbox_2d": pytest.approx([0, 0, 100, 40])},
            ],
            "metadata": {"crowd": [{"desc": "Person", "bbox_2d": pytest.approx([10, 20, 50, 60])}]},
        }
    ]
    assert why_dropped(account) == []


def test_rows_of_an_image_need_not_stand_together(tmp_path: Path) -> None:
    records, account = convert(tmp_path, row(), row("b"), row(label="/m/01g317"))
    assert [(record["images"], len(record["objects"])) for record in records] == [
        (["b.jpg"], 1),
        (["000a1249af2bc5f0.jpg"], 2),
    ]
    assert (account.images.read, account.objects.read) == (2, 3)


def test_the_names_of_version_7_given_as_a_file(tmp_path: Path) -> None:
    classes = write_text(tmp_path / "elsewhere" / "n.csv", "LabelName,DisplayName\n" + NAMES)
    records, _ = convert(tmp_path, row(), names=None, classes=classes)
    assert records[0]["objects"][0]["desc"] == "Tortoise"


def test_labels_that_are_no_machine_ids_are_their_own_names(tmp_path: Path) -> None:
    records, _ = convert(tmp_path, row(label="0012"), names=None)
    assert records[0]["objects"][0]["desc"] == "0012"


def test_crowds_alone_are_no_record_for_training(tmp_path: Path) -> None:
    records, account = convert(tmp_path, row(flags="0,0,1,0,0"), row("b"))
    assert ([record["images"] for record in records], why_dropped(account)) == (
        [["b.jpg"]],
        ["only crowd regions; --purpose evaluation keeps the image"],
    )
    records, _ = convert(tmp_path, row(flags="0,0,1,0,0"), purpose="evaluation")
    assert records[0]["objects"] == []


def test_gzip(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", 100, 80)
    plain = write(tmp_path, row("a"))
    (tmp_path / "boxes.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    records, _ = records_of(tmp_path / "boxes.csv.gz", "openimages", tmp_path, images=tmp_path)
    assert len(records[0]["objects"]) == 1


def test_an_archive_as_cvat_exports_it(tmp_path: Path) -> None:
    picture = write_image(tmp_path / "a.jpg", 100, 80)
    files = {
        "annotations/class-descriptions.csv": NAMES,
        "annotations/train-annotations-bbox.csv": f"{HEADER}\n{row('a')}\n",
        "annotations/test-annotations-bbox.csv": f"{HEADER}\n{row('b')}\n",
        "annotations/train-images-with-rotation.csv": "ImageID\n",
        "images/a.jpg": picture,
        "images/b.jpg": picture,
    }
    source = write_zip(tmp_path / "a.zip", files)
    run(source, "openimages", tmp_path / "out.jsonl", split="source")
    assert sorted(path.name for path in tmp_path.glob("out.*.jsonl")) == ["out.test.jsonl", "out.train.jsonl"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(box="0.1,0.5,0.25"), "not the 13 fields that the first line names"),
        (row(box="left,0.5,0.25,0.75"), "XMin, XMax, YMin, YMax are not four numbers"),
        (row(box="0.1,0.5,0.25,0.75,0.9"), "not the 13 fields that the first line names"),
        (row(box='"0,1","0,5","0,25","0,75"'), "XMin, XMax, YMin, YMax are not four numbers"),
        (row(box=",,,"), "XMin, XMax, YMin, YMax are not four numbers"),
        (row(box="0.5,0.1,0.25,0.75"), "negative width or height"),
        (row(box="0.5,0.5,0.25,0.75"), "no extent"),
        (row(box="10,50,25,75"), "lies outside the image"),
        (row(box="nan,0.5,0.25,0.75"), "a coordinate is NaN"),
        (row(label="/m/unknown"), "LabelName without a name in the file of class names"),
        (row(label=""), "LabelName without a name in the file of class names"),
        ("000a1249af2bc5f0,xclick", "not the 13 fields that the first line names"),
    ],
)
def test_an_image_that_lost_its_box_is_no_record(tmp_path: Path, bad: str, reason: str) -> None:
    records, account = convert(tmp_path, bad, row("b"))
    assert [record["images"] for record in records] == [["b.jpg"]]
    images, objects = why_dropped(account)
    assert (images, objects.startswith(reason)) == ("all of its objects were dropped", True)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            [row()],
            {"names": None},
            r"validation-annotations-bbox.csv:2: LabelName: /m/011k07 is a machine id.*--classes",
        ),
        ([row()], {"header": "ImageID,LabelName,Confidence"}, "its first line has no XMin, XMax, YMin, YMax"),
        ([row()], {"header": "ImageID,XMin,XMax,YMin,YMax"}, "its first line has no LabelName"),
        ([row()], {"names": "/m/011k07\n"}, r"class-descriptions-boxable.csv:1: .* is no machine id and its name"),
        ([row()], {"names": "/m/011k07,a\n/m/011k07,b\n"}, r"boxable.csv:2: /m/011k07 is 'a' before, and now 'b'"),
        ([row()], {"names": "\n"}, "holds no class names"),
        (['a,"b'], {}, r"bbox.csv:\d: not CSV: "),
        (['a,"b"c,d'], {}, r"bbox.csv:2: not CSV: "),
        ([row("no")], {}, "no image is left to write"),
        ([], {}, "no image is left to write"),
    ],
)
def test_refusals(tmp_path: Path, rows: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(tmp_path, *rows, **options)


def test_bytes_that_are_no_text_and_folders_without_boxes(tmp_path: Path) -> None:
    source = tmp_path / "a-annotations-bbox.csv"
    source.write_bytes(f"{HEADER}\n".encode() + b"\xff\xfe\xfd")
    with pytest.raises(InputError, match="not UTF-8"):
        run(source, "openimages", tmp_path / "out.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \*-annotations-bbox.csv"):
        run(tmp_path / "empty", "openimages", tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="no such file or folder"):
        run(tmp_path / "no.csv", "openimages", tmp_path / "out.jsonl")
