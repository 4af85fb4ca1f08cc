"""What other people's files hold that no format foresees: read as it is meant, or dropped and counted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conversion_support import annotation, coco, records_of, run, write_image, write_json, write_lines, write_text

from coordcore import InputError
from coordcore_data.check.result import check_data

VOC = """<annotation{space}><filename>{name}</filename><size><width>100</width><height>80</height></size><object>
<name>cat</name>{more}<bndbox>{box}</bndbox></object></annotation>"""
BOX = "<xmin>11</xmin><ymin>21</ymin><xmax>40</xmax><ymax>60</ymax>"


def voc(box: str = BOX, space: str = "", name: str = "a.jpg", more: str = "") -> str:
    return VOC.format(box=box, space=space, name=name, more=more)


def from_voc(tmp_path: Path, text: str, **options: Any) -> tuple[list[Any], Any]:
    write_text(tmp_path / "voc" / "a.xml", text)
    return records_of(tmp_path / "voc", "voc", tmp_path, **options)


def boxes(records: list[Any]) -> list[Any]:
    return [item["bbox_2d"] for record in records for item in record["objects"]]


# --- COCO -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("listed", "given"), [("007", "7"), ("img 7", " img 7 "), ("7.0", "007")])
def test_ids_that_differ_as_texts_leave_no_false_empty_record(tmp_path: Path, listed: str, given: str) -> None:
    images = [{"id": listed, "file_name": "a.jpg", "width": 100, "height": 80}]
    source = write_json(tmp_path / "a.json", coco([annotation(image_id=given)], images))
    assert boxes(records_of(source, "coco", tmp_path)[0]) == [[10, 20, 40, 60]]


def test_an_lvis_image_without_its_lists_is_not_empty_either(tmp_path: Path) -> None:
    url = "http://images.cocodataset.org/train2017/{}.jpg"
    images = [{"id": n, "coco_url": url.format(n), "width": 100, "height": 80} for n in (7, 8)]
    source = write_json(tmp_path / "a.json", coco([annotation()], images))
    records, account = records_of(source, "lvis", tmp_path)
    assert [record["images"] for record in records] == [["train2017/7.jpg"]]
    assert account.images.dropped.keys() == {
        "no annotation, but only some categories were looked for (LVIS); --purpose evaluation keeps the image"
    }


@pytest.mark.parametrize(
    "segmentation",
    [
        [["10", "20", "40", "20", "40", "60"]],
        ["10", "20", "40", "20", "40", "60"],
        [[[10, 20], [40, 20], [40, 60]]],
    ],
)
def test_a_segmentation_in_place_of_a_bbox(tmp_path: Path, segmentation: Any) -> None:
    source = write_json(tmp_path / "a.json", coco([annotation(bbox=None, segmentation=segmentation)]))
    assert boxes(records_of(source, "coco", tmp_path)[0]) == [[10, 20, 40, 60]]


@pytest.mark.parametrize("segmentation", [[[0.0, 0.0, 0.0, None]], [[[1, 2], [3, None], [5, 6]]], [["1", None]], [{}]])
def test_a_segmentation_that_holds_no_numbers(tmp_path: Path, segmentation: Any) -> None:
    source = write_json(tmp_path / "a.json", coco([annotation(bbox=None, segmentation=segmentation)]))
    with pytest.raises(InputError, match="1  neither a bbox nor a polygon that can be read"):
        records_of(source, "coco", tmp_path)


def test_underscores_make_no_number(tmp_path: Path) -> None:
    source = write_json(tmp_path / "a.json", coco([annotation(), annotation(id=2, bbox=["1_0", "20", "30", "40"])]))
    records, account = records_of(source, "coco", tmp_path)
    assert len(boxes(records)) == 1
    assert account.objects.dropped == {"annotation not readable: bbox[...]: expected float, got str": 1}


# --- VOC ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        voc(space=' xmlns="http://example.org/voc"'),
        voc(BOX.replace("xmin", "Xmin")),
        voc().replace("annotation", "Annotation"),
    ],
)
def test_voc_tags_in_a_namespace_or_other_letters(tmp_path: Path, text: str) -> None:
    assert boxes(from_voc(tmp_path, text)[0]) == [[10, 20, 40, 60]]


def test_a_second_bndbox_is_an_object_too(tmp_path: Path) -> None:
    records, account = from_voc(tmp_path, voc(more=f"<bndbox>{BOX.replace('11', '1')}</bndbox>"), origin=1)
    assert boxes(records) == [[0, 20, 40, 60], [10, 20, 40, 60]]
    assert account.objects.read == 2
    assert account.notes == {"object with several bndbox: an object each": 1}


@pytest.mark.parametrize("first", ["<xmin>+0</xmin>", "<xmin >0</xmin >", '<xmin a="b">0</xmin>', "<Xmin>-0</Xmin>"])
def test_a_corner_at_0_however_it_is_written(tmp_path: Path, first: str) -> None:
    records, _ = from_voc(tmp_path, voc(BOX.replace("<xmin>11</xmin>", first)))
    assert boxes(records) == [[0, 21, 40, 60]]


def test_a_corner_at_0_written_second(tmp_path: Path) -> None:
    box = "<xmin>40</xmin><ymin>60</ymin><xmax>0</xmax><ymax>21</ymax>"
    assert boxes(from_voc(tmp_path, voc(box), reversed_corners="sort")[0]) == [[0, 21, 40, 60]]


@pytest.mark.parametrize(("mark", "marked"), [("1", [0]), ("true", [0]), ("0.0", None), ("Unspecified", None)])
def test_difficult_is_a_number_or_a_word(tmp_path: Path, mark: str, marked: Any) -> None:
    records, _ = from_voc(tmp_path, voc(more=f"<difficult>{mark}</difficult>"))
    assert records[0].get("metadata", {}).get("difficult") == marked


def test_xml_in_the_encoding_that_it_declares(tmp_path: Path) -> None:
    (tmp_path / "voc").mkdir()
    text = '<?xml version="1.0" encoding="gbk"?>' + voc().replace("cat", "猫")
    (tmp_path / "voc" / "a.xml").write_bytes(text.encode("gbk"))
    records, _ = records_of(tmp_path / "voc", "voc", tmp_path)
    assert records[0]["objects"][0]["desc"] == "猫"


# --- YOLO -----------------------------------------------------------------------------------------------------------


def yolo(tmp_path: Path, yaml: str, line: str = "0 .5 .5 .2 .2") -> Path:
    write_image(tmp_path / "ds" / "images" / "a.jpg", 100, 80)
    write_text(tmp_path / "ds" / "labels" / "a.txt", line)
    return write_text(tmp_path / "ds" / "data.yaml", yaml)


@pytest.mark.parametrize(
    "yaml",
    [
        "train: images\nnames: {00: cat}\n",
        "train: images\nnames: {'0.0': cat}\n",
        "valid: images\nnames: [cat]\n",
        "train: images\nnames: [cat]\nkpt_shape:\n",
        "train: images\nnames: [cat]\nkpt_shape: null\n",
    ],
)
def test_spellings_of_data_yaml(tmp_path: Path, yaml: str) -> None:
    assert boxes(records_of(yolo(tmp_path, yaml), "yolo", tmp_path)[0]) == [[40, 32, 60, 48]]


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("path: [a]\ntrain: images\nnames: [cat]\n", r"data.yaml: path: \['a'\] is not the path of a folder"),
        ("train: images\nnames: {0: cat, 00: dog}\n", "data.yaml: class 0 has two names, 'cat' and 'dog'; keep one"),
        (
            "train: images\nnames: {0: cat, 0: dog}\n",
            "data.yaml: '0' stands there twice, with 'cat' and 'dog'; keep the right one",
        ),
        (
            "train: images\nnames: [cat]\nnames: [dog]\n",
            "data.yaml: 'names' stands there twice, with 'a sequence in line 2' and 'a sequence in line 3'; keep",
        ),
    ],
)
def test_what_data_yaml_cannot_mean(tmp_path: Path, yaml: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(yolo(tmp_path, yaml), "yolo", tmp_path / "out.jsonl")


def test_a_number_with_two_names_in_json_is_refused(tmp_path: Path) -> None:
    classes = write_text(tmp_path / "classes.json", '{"0": "cat", "0": "dog"}')
    message = "classes.json: '0' stands there twice, with 'cat' and 'dog'; keep the right one"
    with pytest.raises(InputError, match=message):
        run(yolo(tmp_path, "train: images\nnames: [cat]\n"), "yolo", tmp_path / "out.jsonl", classes=classes)
    write_text(classes, '{"0": "cat", "0": "cat"}')
    records, _ = records_of(yolo(tmp_path, "train: images\n"), "yolo", tmp_path, classes=classes)
    assert records[0]["objects"][0]["desc"] == "cat"


def test_nc_that_is_not_the_number_of_names_is_told(tmp_path: Path) -> None:
    _, account = records_of(yolo(tmp_path, "train: images\nnames: [cat]\nnc: 80\n"), "yolo", tmp_path)
    assert account.notes["nc in data.yaml is not the number of its names"] == 1


@pytest.mark.parametrize("entry", ["\ufeffimages/a.jpg", "/old/place/images/a.jpg", "../images/a.jpg", "images\\a.jpg"])
def test_entries_of_an_image_list(tmp_path: Path, entry: str) -> None:
    source = yolo(tmp_path, "train: train.txt\nnames: [cat]\n")
    write_text(source.parent / "train.txt", f"{entry}\r\n")
    records, _ = records_of(source, "yolo", tmp_path)
    assert records[0]["images"] == ["images/a.jpg"]


def test_an_entry_that_is_too_long_for_a_path_is_a_missing_image(tmp_path: Path) -> None:
    source = yolo(tmp_path, "train: train.txt\nnames: [cat]\n")
    write_text(source.parent / "train.txt", f"images/a.jpg\n{'x' * 5000}.jpg\n")
    records, account = records_of(source, "yolo", tmp_path)
    assert len(records) == 1
    assert sum(account.images.dropped.values()) == 1


def test_files_that_macos_leaves_are_no_labels(tmp_path: Path) -> None:
    source = yolo(tmp_path, "train: images\nnames: [cat]\n")
    write_text(source.parent / "labels" / "._a.txt", "\x05\x16")
    write_text(source.parent / "images" / "._a.jpg", "\x05\x16")
    _, account = records_of(source, "yolo", tmp_path)
    assert (account.images.read, account.objects.read) == (1, 1)


# --- LabelMe, paths, files ------------------------------------------------------------------------------------------


def labelme(tmp_path: Path, **changes: Any) -> Path:
    shape = {"label": "cat", "points": [["10", "20"], ["40", "60"]], "shape_type": "rectangle"}
    content = {"shapes": [shape], "imagePath": "a.jpg", "imageWidth": "100", "imageHeight": "80"} | changes
    write_json(tmp_path / "ann" / "a.json", content)
    return tmp_path / "ann"


def test_labelme_numbers_written_as_text(tmp_path: Path) -> None:
    records, _ = records_of(labelme(tmp_path), "labelme", tmp_path)
    assert (records[0]["width"], boxes(records)) == (100, [[10, 20, 40, 60]])


@pytest.mark.parametrize("name", [None, ""])
def test_without_a_file_name_the_annotation_files_own_counts(tmp_path: Path, name: str | None) -> None:
    write_image(tmp_path / "img" / "a.jpg", 100, 80)
    source = labelme(tmp_path, imagePath=name)
    assert records_of(source, "labelme", tmp_path, images=tmp_path / "img")[0][0]["images"] == ["a.jpg"]
    with pytest.raises(InputError, match="no file name"):
        run(source, "labelme", tmp_path / "b.jsonl")


@pytest.mark.parametrize(
    ("written", "stored"),
    [("a%20b.jpg", "a b.jpg"), ("\u00e9.jpg", "e\u0301.jpg"), ("file:///home/me/a%20b.jpg", "a b.jpg")],
)
def test_a_name_that_is_the_same_but_for_its_spelling(tmp_path: Path, written: str, stored: str) -> None:
    write_image(tmp_path / "img" / stored, 100, 80)
    records, _ = from_voc(tmp_path, voc(name=written), images=tmp_path / "img")
    assert records[0]["images"] == [stored]


@pytest.mark.parametrize("path", ["file:///C:/set/a.jpg", "C:\\set\\a.jpg", "././C:/set/a.jpg"])
def test_what_is_stripped_may_be_a_url(tmp_path: Path, path: str) -> None:
    images = [{"id": 7, "file_name": path, "width": 100, "height": 80}]
    source = write_json(tmp_path / "a.json", coco([annotation()], images))
    records, _ = records_of(source, "coco", tmp_path, strip_prefix="C:\\set")
    assert records[0]["images"] == ["a.jpg"]


def test_a_path_too_long_for_the_system_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    _, account = from_voc(tmp_path, voc(name=f"{'x' * 5000}.jpg"), images=tmp_path / "img", origin=1)
    assert account.notes == {"image file not found in --image-root: the path stays as it is": 1}


def test_a_pipe_is_no_image_and_no_source(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    os.mkfifo(tmp_path / "img" / "a.jpg")
    with pytest.raises(InputError, match="image file cannot be read"):
        from_voc(tmp_path, voc(), images=tmp_path / "img", check_sizes=True)
    with pytest.raises(InputError, match="is a pipe or a device"):
        run(tmp_path / "img" / "a.jpg", "coco", tmp_path / "out.jsonl")


def test_what_is_shown_holds_no_commands_for_the_terminal(tmp_path: Path) -> None:
    row = {
        "images": ["a.png"],
        "width": 64,
        "height": 48,
        "objects": [{"desc": "a\u001b[31m", "bbox_2d": [1, 2, 3, 4]}],
    }
    source = write_lines(tmp_path / "a.jsonl", row, row | {"objects": [{"de\u009bsc": 1}]})
    assert all(line.isprintable() for line in check_data(source).lines())


# --- without an end --------------------------------------------------------------------------------------------------

CVAT = '<annotations><image id="0" name="a" width="9" height="9"><box {}label="x" xtl="1" ytl="1" xbr="3" ybr="3"/>{}'


@pytest.mark.parametrize("text", [CVAT.format(f'q="{"y" * 5_000_000}" ', ""), CVAT.format("", "y" * 5_000_000)])
def test_a_tag_or_text_without_end_is_refused(tmp_path: Path, text: str) -> None:
    source = write_text(tmp_path / "a.xml", f"{text}</image></annotations>")
    with pytest.raises(InputError, match=r"a\.xml: a tag or text of more than 4 MiB; no export has one"):
        records_of(source, "cvat", tmp_path)


def test_many_tags_are_read(tmp_path: Path) -> None:
    box = '<box label="x" xtl="1" ytl="1" xbr="3" ybr="3"/>'
    source = write_text(tmp_path / "a.xml", f"{CVAT.format('', box * 100_000)}</image></annotations>")
    assert len(records_of(source, "cvat", tmp_path)[0]) == 1


def test_an_image_with_megabytes_of_xml_is_dropped(tmp_path: Path) -> None:
    write_text(tmp_path / "voc" / "b.xml", voc(more=f"<x>{'y' * 2**24}</x>", name="b.jpg"))
    records, account = from_voc(tmp_path, voc())
    assert [record["images"] for record in records] == [["a.jpg"]]
    assert account.images.dropped.keys() == {"more than 16 MiB of XML about one image"}


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordcore.records.source.LONGEST", 1000)
    record = {"images": ["a.jpg"], "width": 9, "height": 9, "objects": [], "summary": "x" * 2000}
    source = write_lines(tmp_path / "a.jsonl", {**record, "summary": ""}, record)
    for read in (check_data, lambda path: records_of(path, "records", tmp_path, from_space="pixel")):
        with pytest.raises(InputError, match=r"a\.jsonl:2: longer than 0 MiB"):
            read(source)


def test_names_of_a_source_are_told_cut(tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.xml", f"<{'y' * 100_000}/>")
    with pytest.raises(InputError) as caught:
        records_of(source, "cvat", tmp_path)
    assert str(caught.value).startswith(f"{source}: <{'y' * 60}... (100000 characters)> is not CVAT's")


def test_what_is_suspicious_is_told_cut(tmp_path: Path) -> None:
    good = {"images": ["a.jpg"], "width": 9, "height": 9, "objects": []}
    name = "y" * 100_000
    records = [
        {**good, name: 1},
        {**good, "images": [name]},
        *({**good, "metadata": {"quantisation": n}} for n in "ab"),
    ]
    records.append({**good, "metadata": {"quantisation": name}})
    checked = check_data(write_lines(tmp_path / "a.jsonl", *records), images=tmp_path)
    assert max(len(line) for line in checked.lines()) < 1000


def test_the_reasons_of_an_account_are_told_cut(tmp_path: Path) -> None:
    record = {"images": ["a.jpg"], "width": 9, "height": 9, "objects": [], "y" * 100_000: 1}
    account = records_of(write_lines(tmp_path / "a.jsonl", record), "records", tmp_path, from_space="pixel")[1]
    assert max(map(len, account.lines())) < 500
