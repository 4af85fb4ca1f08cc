"""Pascal VOC and CVAT: XML, also hostile XML."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from conversion_support import SKELETON, records_of, run, write_image, write_text

from coordcore import InputError

BOMB = (
    """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><annotations>&b;</annotations>"""
)


def voc(objects: str, size: str = "<width>100</width><height>80</height><depth>3</depth>", name: str = "a.jpg") -> str:
    return f"<annotation><filename>{name}</filename><size>{size}</size>{objects}</annotation>"


def voc_object(box: str = "11 21 40 60", name: str = "cat", more: str = "") -> str:
    x1, y1, x2, y2 = box.split()
    corners = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def from_voc(tmp_path: Path, *files: str, **options: Any) -> tuple[list[Any], Any]:
    for index, text in enumerate(files):
        write_text(tmp_path / "voc" / f"{index}.xml", text)
    return records_of(tmp_path / "voc", "voc", tmp_path, **options)


def test_voc_counts_pixels_from_one_and_includes_the_last(tmp_path: Path) -> None:
    records, _ = from_voc(tmp_path, voc(voc_object("11 21 40 60") + voc_object("1 1 100 80")))
    assert [item["bbox_2d"] for item in records[0]["objects"]] == [[10, 20, 40, 60], [0, 0, 100, 80]]


def test_voc_difficult_objects_are_kept_and_marked(tmp_path: Path) -> None:
    objects = voc_object() + voc_object("1 1 9 9", more="<difficult>1</difficult>")
    records, _ = from_voc(tmp_path, voc(objects))
    assert records[0]["metadata"] == {"difficult": [1]}


def test_voc_without_a_size_takes_it_from_the_image(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg", 100, 80)
    size = "<width>0</width><height>0</height>"
    records, account = from_voc(tmp_path, voc(voc_object(), size), images=tmp_path / "images")
    assert (records[0]["width"], records[0]["height"]) == (100, 80)
    assert account.notes == {"size read from the image file": 1, ORIGIN_1: 1}


ORIGIN_1 = "origin 1, VOC's own: no corner shows another, boxes start at xmin - 1; --origin 0 says otherwise"
BETWEEN = "origin 0: corners between pixels show it, VOC's are whole; --origin 1 says otherwise"


def test_voc_corners_between_pixels_lie_on_edges(tmp_path: Path) -> None:
    file = voc(
        voc_object("80.37 40.61 120.0 60.0") + voc_object("11 21 40 60"), "<width>200</width><height>90</height>"
    )
    records, account = from_voc(tmp_path, file)
    assert [item["bbox_2d"] for item in records[0]["objects"]] == [[80.37, 40.61, 120, 60], [11, 21, 40, 60]]
    assert account.notes == {BETWEEN: 1}
    records, account = from_voc(tmp_path, file, origin=1)
    assert records[0]["objects"][1]["bbox_2d"] == [10, 20, 40, 60]
    assert account.notes == {}


def test_whole_voc_corners_and_a_few_odd_ones_are_those_of_the_format(tmp_path: Path) -> None:
    computed = voc(voc_object("11.0000001 21.0 40.00 59.9999999"))
    records, account = from_voc(tmp_path, computed)
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([10, 20, 40, 60], abs=1e-5)
    assert account.notes == {ORIGIN_1: 1}
    # VOC2012 has two of 17,125 files with fractions.
    files = [voc(voc_object("11 21 40 60"), name=f"{index}.jpg") for index in range(199)]
    records, account = from_voc(tmp_path, *files, voc(voc_object("11.5 21 40 60"), name="odd.jpg"))
    assert records[0]["objects"][0]["bbox_2d"] == [10, 20, 40, 60]
    assert account.notes == {ORIGIN_1: 1, "file with corners between pixels: too few to show origin 0": 1}


def turned_voc(value: str) -> str:
    attribute = f"<attribute><name>rotation</name><value>{value}</value></attribute>"
    return f"<attributes><attribute><name>occluded</name><value>False</value></attribute>{attribute}</attributes>"


def test_a_voc_box_turns_as_cvat_turns_it(tmp_path: Path) -> None:
    size = "<width>200</width><height>100</height>"
    file = voc(
        voc_object("80 40 120 60", more=turned_voc("90.0")) + voc_object("0 0 9 9", more=turned_voc("0.0")), size
    )
    records, account = from_voc(tmp_path, file)
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([90, 30, 110, 70])
    assert records[0]["objects"][1]["bbox_2d"] == [0, 0, 9, 9]
    assert account.notes["rotated box: its enclosing box is written"] == 1
    records, _ = from_voc(tmp_path, file, geometry="poly")
    assert records[0]["objects"][0]["poly"] == pytest.approx([110, 30, 110, 70, 90, 70, 90, 30])


@pytest.mark.parametrize("value", ["left", "inf", ""])
def test_a_voc_attribute_that_is_no_turn_leaves_the_box(tmp_path: Path, value: str) -> None:
    records, account = from_voc(tmp_path, voc(voc_object("11 21 40 60", more=turned_voc(value))), origin=0)
    assert records[0]["objects"][0]["bbox_2d"] == [11, 21, 40, 60]
    assert account.notes == {"attribute rotation that is no number: no turn": 1}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (voc_object("40 21 11 60"), "negative width or height"),
        (voc_object("nan 21 40 60"), "a coordinate is NaN or infinite"),
        (voc_object("left 21 40 60"), "bndbox without four numbers"),
        (voc_object(name=""), "empty label"),
        (voc_object("40 21 11 60", more=turned_voc("30")), "negative width or height"),
        ("<object><bndbox><xmin>1</xmin></bndbox></object>", "bndbox without four numbers"),
        ("<object><name>cat</name></object>", "no bndbox"),
        (
            "<object><name>cat</name><robndbox><cx>5</cx></robndbox></object>",
            "robndbox: a rotated box of an undeclared angle convention",
        ),
    ],
)
def test_each_bad_voc_object_has_its_reason(tmp_path: Path, item: str, reason: str) -> None:
    records, account = from_voc(tmp_path, voc(voc_object() + item))
    assert len(records[0]["objects"]) == 1
    assert account.objects.dropped == {reason: 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (voc(voc_object())[:-9], "not XML"),
        (BOMB, "XML with a DTD entity or an external reference is refused"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "not XML"),
        ("<annotations/>", "XML without a VOC annotation"),
        (voc(""), None),
        (voc("", name=""), "no file name, or one that is no valid Unicode"),
    ],
)
def test_each_bad_voc_file_has_its_reason(tmp_path: Path, text: str, reason: str | None) -> None:
    records, account = from_voc(tmp_path, voc(voc_object(), name="good.jpg"), text)
    assert account.images.dropped == ({} if reason is None else {reason: 1})
    assert records[0]["images"] == ["good.jpg"]


def test_a_folder_without_xml_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \.xml files"):
        run(tmp_path, "voc", tmp_path / "out.jsonl")


# --- CVAT -----------------------------------------------------------------------------------------------------------


def from_cvat(tmp_path: Path, shapes: str, **options: Any) -> tuple[list[Any], Any]:
    image = f'<image id="3" name="d\\a.jpg" width="100" height="80" subset="Train">{shapes}</image>'
    return records_of(cvat(tmp_path, image), "cvat", tmp_path, **options)


def cvat(tmp_path: Path, images: str) -> Path:
    text = f"<annotations><version>1.1</version><meta><task/></meta>{images}</annotations>"
    return write_text(tmp_path / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?>{text}')


BOX = '<box label="cat" xtl="10" ytl="20" xbr="40" ybr="60" occluded="0"><attribute name="a">b</attribute></box>'


def test_a_cvat_box_and_its_image(tmp_path: Path) -> None:
    records, _ = from_cvat(tmp_path, BOX)
    assert records[0]["images"] == ["d/a.jpg"]
    assert records[0]["objects"] == [{"desc": "cat", "bbox_2d": [10, 20, 40, 60]}]
    assert records[0]["metadata"] == {"image_id": 3}


ROTATED = BOX.replace("occluded", 'rotation="90" occluded')


def test_a_rotated_box_is_turned_clockwise_about_its_centre(tmp_path: Path) -> None:
    records, _ = from_cvat(tmp_path, ROTATED, geometry="poly")
    # The unrotated top left (10, 20) goes to the top right.
    assert records[0]["objects"][0]["poly"] == pytest.approx([45, 25, 45, 55, 5, 55, 5, 25])


def test_a_rotated_box_is_enclosed_by_a_box_and_counted(tmp_path: Path) -> None:
    records, account = from_cvat(tmp_path, ROTATED)
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([5, 25, 45, 55])
    assert account.notes == {"rotated box: its enclosing box is written": 1}


def test_cvat_polygons_and_points(tmp_path: Path) -> None:
    shapes = '<polygon label="roof" points="0.5,1;20,1;20,30"/><points label="eye" points="5,6;7,8"/>'
    records, account = from_cvat(tmp_path, shapes, geometry="poly")
    assert records[0]["objects"] == [{"desc": "roof", "poly": [0.5, 1, 20, 1, 20, 30], "poly_points": 3}]
    assert records[0]["metadata"]["points"] == [{"desc": "eye", "points": [5, 6, 7, 8]}]
    assert account.objects.carried == {"points": 1}


def test_the_box_around_a_rotated_ellipse_touches_it(tmp_path: Path) -> None:
    shape = '<ellipse label="egg" cx="50" cy="40" rx="20" ry="10" rotation="30"/>'
    records, _ = from_cvat(tmp_path, shape)
    turn = math.radians(30)
    around = [math.radians(step / 10) for step in range(3600)]
    xs = [50 + 20 * math.cos(t) * math.cos(turn) - 10 * math.sin(t) * math.sin(turn) for t in around]
    ys = [40 + 20 * math.cos(t) * math.sin(turn) + 10 * math.sin(t) * math.cos(turn) for t in around]
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([min(xs), min(ys), max(xs), max(ys)], abs=1e-3)


def test_a_cvat_mask_leaves_its_box(tmp_path: Path) -> None:
    records, account = from_cvat(tmp_path, '<mask label="fog" rle="3, 4" left="5" top="6" width="10" height="20"/>')
    assert records[0]["objects"][0]["bbox_2d"] == [5, 6, 15, 26]
    assert account.notes == {"mask: its enclosing box is written": 1}


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ('<polyline label="a" points="1,2;3,4"/>', "polyline: records have no such geometry"),
        ('<cuboid label="a" xtl1="1"/>', "cuboid: records have no such geometry"),
        ('<skeleton label="a"><points label="b" points="1,2"/></skeleton>', SKELETON),
        ('<tag label="night"/>', "tag: records have no such geometry"),
        ('<box label="a" xtl="1" ytl="2" xbr="3"/>', "box without its numbers"),
        ('<box label="a" xtl="1" ytl="2" xbr="3" ybr="4" rotation="nan"/>', "box without its numbers"),
        ('<box label="a" xtl="9" ytl="2" xbr="3" ybr="4" rotation="45"/>', "negative width or height"),
        ('<polygon label="a" points="1,2;3"/>', "polygon without pairs of numbers"),
        ('<points label="a" points=""/>', "points without pairs of numbers"),
        ('<points label="a" points="500,2"/>', "lies outside the image"),
        ('<box xtl="1" ytl="2" xbr="3" ybr="4"/>', "no label"),
    ],
)
def test_each_bad_cvat_shape_has_its_reason(tmp_path: Path, shape: str, reason: str) -> None:
    records, account = from_cvat(tmp_path, BOX + shape)
    assert len(records[0]["objects"]) == 1
    assert account.objects.dropped == {reason: 1}


def test_a_tag_does_not_say_that_nothing_is_there(tmp_path: Path) -> None:
    tags = "".join(
        f'<image id="{n}" name="{n}.jpg" width="100" height="80">{inside}</image>'
        for n, inside in enumerate(['<tag label="cat"/>', BOX, ""])
    )
    records, account = records_of(cvat(tmp_path, tags), "cvat", tmp_path)
    assert [(record["images"], len(record["objects"])) for record in records] == [(["1.jpg"], 1), (["2.jpg"], 0)]
    assert account.images.dropped == {"all of its objects were dropped": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<annotations><track><box frame="0"/></track></annotations>', "holds tracks of a video"),
        ("<annotation/>", "<annotation> is not CVAT's <annotations>"),
        ('<annotations><image id="0" name="a" width="10" height="10"/>', "not XML: no element found"),
        (BOMB, "XML with a DTD entity or an external reference is refused"),
        ("", "not XML"),
    ],
)
def test_a_bad_cvat_file_is_an_error_and_leaves_nothing(tmp_path: Path, text: str, message: str) -> None:
    source = write_text(tmp_path / "in" / "annotations.xml", text)
    with pytest.raises(InputError) as caught:
        run(source, "cvat", tmp_path / "out" / "out.jsonl")
    assert message in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_cvat_images_go_to_their_own_subsets(tmp_path: Path) -> None:
    images = "".join(
        f'<image id="{n}" name="{n}.jpg" width="100" height="80" subset="{split}">{BOX}</image>'
        for n, split in enumerate(["Train", "Validation", "Train", "../../Test"])
    )
    account = run(cvat(tmp_path, images), "cvat", tmp_path / "out.jsonl", split="source")
    found = sorted(path.name for path in tmp_path.glob("out*"))
    assert found == ["out.Train.jsonl", "out.Validation.jsonl", "out.account.json"]
    reason = "no split of its own in the source, or one that cannot be part of a file name"
    assert account.images.dropped == {reason: 1}
