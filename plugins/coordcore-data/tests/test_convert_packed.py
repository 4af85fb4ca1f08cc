"""Sources that are gzip files or zip archives, hostile ones among them."""

from __future__ import annotations

import gzip
import json
import stat
import zipfile
from pathlib import Path

import pytest
from conversion_support import annotation, coco, records_of, run, write_image, write_json

from coordcore import InputError

COCO = json.dumps(coco([annotation()]))
CVAT = (
    '<annotations><image id="0" name="a.jpg" width="100" height="80">'
    '<box label="cat" xtl="10" ytl="20" xbr="40" ybr="60"/></image></annotations>'
)
RECORD = '{"images": ["a.jpg"], "width": 100, "height": 80, "objects": [{"desc": "cat", "bbox_2d": [10, 20, 40, 60]}]}'
SOURCES = {"coco": ("a.json", COCO), "cvat": ("annotations.xml", CVAT), "records": ("a.jsonl", RECORD)}


@pytest.mark.parametrize("source_format", SOURCES)
def test_a_gzip_file_is_read_as_what_it_holds(tmp_path: Path, source_format: str) -> None:
    name, text = SOURCES[source_format]
    source = tmp_path / f"{name}.gz"
    source.write_bytes(gzip.compress(text.encode()))
    options = {"from_space": "pixel"} if source_format == "records" else {}
    records, _ = records_of(source, source_format, tmp_path, **options)
    assert records[0]["objects"] == [{"desc": "cat", "bbox_2d": [10, 20, 40, 60]}]


@pytest.mark.parametrize("source_format", SOURCES)
def test_the_one_file_of_an_archive_is_read(tmp_path: Path, source_format: str) -> None:
    name, text = SOURCES[source_format]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(f"annotations/{name}", text)
        archive.writestr(f"__MACOSX/annotations/._{name}", "resource fork")
        archive.writestr("images/a.jpg", "no image")
        archive.writestr("empty/", "")
    options = {"from_space": "pixel"} if source_format == "records" else {}
    records, account = records_of(tmp_path / "a.zip", source_format, tmp_path, **options)
    assert records[0]["images"] == ["a.jpg"]
    assert account.notes["read from an archive: image paths are those inside it, unpack it for training"] == 1


def test_a_yolo_archive_with_its_images(tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png", 100, 80)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(image, "set/train/images/a.png")
        archive.writestr("set/train/labels/a.txt", "0 0.25 0.5 0.3 0.5")
        archive.writestr("set/data.yaml", "train: ../train/images\nval: ../valid/images\nnames: [cat]\n")
    records, account = records_of(tmp_path / "a.zip", "yolo", tmp_path)
    assert records[0]["images"] == ["train/images/a.png"]
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([10, 20, 40, 60])
    assert account.notes["split without images: left out"] == 1


def test_the_account_and_messages_name_the_archive_and_not_where_it_was_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b/bad.json", "{")
        archive.writestr("b/good.json", json.dumps({"imagePath": "a", "imageWidth": 9, "imageHeight": 9, "shapes": []}))
    run(tmp_path / "a.zip", "labelme", tmp_path / "out.jsonl")
    account = json.loads((tmp_path / "out.account.json").read_text())
    assert account["examples"]["not JSON"][0].startswith(str(tmp_path / "a.zip" / "b" / "bad.json"))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a.json", "[]")
    with pytest.raises(InputError) as caught:
        run(tmp_path / "b.zip", "coco", tmp_path / "b.jsonl")
    assert str(caught.value).startswith(f"{tmp_path / 'b.zip' / 'a.json'}: ")


@pytest.mark.parametrize("name", ["../out.json", "/tmp/out.json", "a/../../out.json", "C:/out.json", "..\\out.json"])
def test_an_archive_with_a_path_out_of_it_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, COCO)
    with pytest.raises(InputError, match="a path out of the archive: not unpacked"):
        run(tmp_path / "a.zip", "coco", tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.zip"]


def test_an_archive_with_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="a link: not unpacked"):
        run(tmp_path / "a.zip", "coco", tmp_path / "out.jsonl")


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_what_unpacks_to_far_too_much_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("coordcore_data.convert.packed", "coordcore.records.source"):
        monkeypatch.setattr(f"{module}.SMALL", 2**16)
    source = tmp_path / f"a.{kind}"
    if kind == "gz":
        source.write_bytes(gzip.compress(b" " * 2**24))
    else:
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.json", b" " * 2**24)
    with pytest.raises(InputError, match="more than 200 times its size"):
        run(source, "coco", tmp_path / "out.jsonl")


def test_damaged_and_ambiguous_archives_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "a.gz").write_bytes(gzip.compress(COCO.encode())[:-20])
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.json", COCO)
        archive.writestr("b.json", COCO)
    with zipfile.ZipFile(tmp_path / "none.zip", "w"):
        pass
    for name, message in {
        "a.zip": "zip archive that cannot be unpacked",
        "a.gz": "damaged gzip file",
        "two.zip": "this one holds a.json, b.json; unpack it and name the file",
        "none.zip": "this one holds none",
    }.items():
        with pytest.raises(InputError, match=message):
            run(tmp_path / name, "coco", tmp_path / "out.jsonl")


def test_a_file_that_is_not_packed_is_read_as_before(tmp_path: Path) -> None:
    records, account = records_of(write_json(tmp_path / "a.json", coco([annotation()])), "coco", tmp_path)
    assert len(records[0]["objects"]) == 1
    assert account.notes == {}
