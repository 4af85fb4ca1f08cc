"""VIA's projects: its five shapes, which attribute is the label, images that lost what they had."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
from conversion_support import records_of, run, why_dropped, write_image, write_json, write_text, write_zip

from coordcore import InputError


def region(name: str, label: Any = "cat", **numbers: Any) -> dict[str, Any]:
    return {"shape_attributes": {"name": name, **numbers}, "region_attributes": {"class": label}}


def image(*regions: Any, filename: str = "a.jpg") -> dict[str, Any]:
    return {f"{filename}1000": {"filename": filename, "size": 1000, "regions": list(regions), "file_attributes": {}}}


RECT = region("rect", x=10, y=20, width=30, height=40)


def project(listed: dict[str, Any], attributes: dict[str, Any] | None = None, path: str = "") -> dict[str, Any]:
    """As VIA 2.0.10 saves it."""
    return {
        "_via_settings": {
            "ui": {"annotation_editor_height": 25, "image_grid": {"img_height": 80}},
            "core": {"buffer_size": 18, "filepath": {}, "default_filepath": path},
            "project": {"name": "via_project_1Jan2026_12h0m"},
        },
        "_via_img_metadata": listed,
        "_via_attributes": {"region": attributes or {}, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(listed),
    }


def convert(tmp_path: Path, content: Any, **options: Any) -> tuple[list[Any], Any]:
    for name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / name, 100, 80)
    return records_of(write_json(tmp_path / "via.json", content), "via", tmp_path, **options)


def test_a_project(tmp_path: Path) -> None:
    records, account = convert(
        tmp_path,
        project(
            image(
                RECT,
                region("circle", cx=50, cy=40, r=10),
                region("ellipse", cx=50, cy=40, rx=20, ry=10, theta=math.pi / 2),
                region("polygon", all_points_x=[10, 60, 35], all_points_y=[10, 10, 70]),
                region("point", cx=7, cy=8),
            )
            | image(filename="b.jpg")
        ),
    )
    assert records == [
        {
            "images": ["a.jpg"],
            "width": 100,
            "height": 80,
            "objects": [
                {"desc": "cat", "bbox_2d": [10, 20, 40, 60]},
                {"desc": "cat", "bbox_2d": [40, 30, 60, 50]},
                {"desc": "cat", "bbox_2d": pytest.approx([40, 20, 60, 60])},
                {"desc": "cat", "bbox_2d": [10, 10, 60, 70]},
            ],
            "metadata": {"points": [{"desc": "cat", "points": [7, 8]}]},
        },
        {"images": ["b.jpg"], "width": 100, "height": 80, "objects": []},
    ]
    assert why_dropped(account) == []


def test_an_ellipse_turns_clockwise(tmp_path: Path) -> None:
    """Cut at the left edge, what is left of one that falls to the right is its lower end."""
    theta = math.radians(45)
    records, _ = convert(tmp_path, image(region("ellipse", cx=0, cy=40, rx=20, ry=1e-6, theta=theta)))
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx(
        [0, 40, 20 / math.sqrt(2), 40 + 20 / math.sqrt(2)], abs=0.01
    )


def test_shapes_are_cut_before_they_are_enclosed(tmp_path: Path) -> None:
    """A triangle with its tip far to the right is cut where it is lower than at its base."""
    records, _ = convert(tmp_path, image(region("polygon", all_points_x=[80, 120, 80], all_points_y=[0, 40, 80])))
    assert records[0]["objects"] == [{"desc": "cat", "bbox_2d": [80, 0, 100, 80]}]
    records, _ = convert(tmp_path, image(region("polygon", all_points_x=[120, 80, 120], all_points_y=[0, 40, 80])))
    assert records[0]["objects"] == [{"desc": "cat", "bbox_2d": [80, 20, 100, 60]}]
    records, _ = convert(tmp_path, image(region("circle", cx=-6, cy=40, r=10)))
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([0, 32, 4, 48], abs=0.01)


def test_polygons_stay_polygons(tmp_path: Path) -> None:
    given = image(region("polygon", all_points_x=[10, 60, 35], all_points_y=[10, 10, 70]))
    records, _ = convert(tmp_path, given, geometry="poly")
    assert records[0]["objects"] == [{"desc": "cat", "poly": [10, 10, 60, 10, 35, 70], "poly_points": 3}]


@pytest.mark.parametrize(
    ("value", "options", "labels"),
    [
        ("on", {}, ["on"]),
        ("0012", {}, ["0012"]),
        ("1", {"1": "red hat", "2": "blue hat"}, ["red hat"]),
        ("red", {"red": "", "blue": ""}, ["red"]),
        ({"1": True, "2": True, "3": False}, {"1": "cat", "2": ""}, ["cat", "2"]),
        (7, {}, ["7"]),
    ],
)
def test_labels(tmp_path: Path, value: Any, options: dict[str, str], labels: list[str]) -> None:
    given = region("rect", value, x=10, y=20, width=30, height=40)
    described = {"class": {"type": "dropdown", "description": "", "options": options, "default_options": {}}}
    records, _ = convert(tmp_path, project(image(given), described))
    assert [item["desc"] for item in records[0]["objects"]] == labels


def test_an_option_with_two_descriptions_is_refused(tmp_path: Path) -> None:
    described = {"class": {"type": "dropdown", "description": "", "options": {"1": "cat"}, "default_options": {}}}
    text = json.dumps(project(image(region("rect", "1", x=10, y=20, width=30, height=40)), described))
    source = write_text(tmp_path / "via.json", text.replace('"1": "cat"', '"1": "cat", "1": "dog"'))
    with pytest.raises(InputError, match=r"via\.json: '1' stands there twice, with 'cat' and 'dog'"):
        run(source, "via", tmp_path / "out.jsonl")


def test_one_of_several_attributes(tmp_path: Path) -> None:
    given = {**RECT, "region_attributes": {"quality": "good", "name": "cat", "unused": ""}}
    with pytest.raises(InputError, match=r"have the attributes quality, name; say which .* --attribute NAME"):
        convert(tmp_path, image(given))
    records, _ = convert(tmp_path, image(given), attribute="name")
    assert records[0]["objects"][0]["desc"] == "cat"
    with pytest.raises(InputError, match=r"--attribute kind: regions have quality, name"):
        convert(tmp_path, image(given), attribute="kind")


def test_regions_of_via_1_gzip_and_the_default_path(tmp_path: Path) -> None:
    write_image(tmp_path / "pictures" / "a.jpg", 100, 80)
    old = {"a.jpg1": {"fileref": "", "size": 1, "filename": "a.jpg", "base64_img_data": "", "regions": {"0": RECT}}}
    (tmp_path / "via.json.gz").write_bytes(gzip.compress(json.dumps(project(old, path="./pictures/")).encode()))
    records, _ = records_of(tmp_path / "via.json.gz", "via", tmp_path)
    assert (records[0]["images"], records[0]["objects"][0]["bbox_2d"]) == (["pictures/a.jpg"], [10, 20, 40, 60])


def test_an_archive_with_its_images(tmp_path: Path) -> None:
    picture = write_image(tmp_path / "p.jpg", 100, 80)
    source = write_zip(tmp_path / "a.zip", {"set/via.json": json.dumps(image(RECT)), "set/a.jpg": picture})
    records, _ = records_of(source, "via", tmp_path)
    assert records[0]["objects"] == [{"desc": "cat", "bbox_2d": [10, 20, 40, 60]}]


def test_images_of_another_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "root" / "sub" / "A.JPG", 100, 80)
    source = write_json(tmp_path / "x" / "via.json", image(RECT))
    records, _ = records_of(source, "via", tmp_path, images=tmp_path / "root")
    assert records[0]["images"] == ["sub/A.JPG"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (region("polyline", all_points_x=[1, 2], all_points_y=[1, 2]), "polyline: records have no such geometry"),
        (region("rect", x=1, y=2, width=3), "rect without its numbers"),
        (region("rect", x="left", y=2, width=3, height=4), "x: expected float"),
        (region("rect", x=10, y=20, width=0, height=40), "no extent"),
        (region("rect", x=10, y=20, width=-5, height=40), "negative width or height"),
        (region("rect", x=200, y=20, width=30, height=40), "lies outside the image"),
        (region("rect", x=float("nan"), y=20, width=30, height=40), "a coordinate is NaN"),
        (region("circle", cx=1, cy=2), "circle without its numbers"),
        (region("circle", cx=50, cy=40, r=-3), "negative width or height"),
        (region("ellipse", cx=50, cy=40, rx=3, ry=4, theta=float("nan")), "ellipse without its numbers"),
        (region("ellipse", cx=50, cy=float("inf"), rx=3, ry=4), "a coordinate is NaN or infinite"),
        (region("polygon", all_points_x=[1, 2, 3], all_points_y=[1, 2]), "polygon without pairs of numbers"),
        (region("polygon", all_points_x=[1, 2], all_points_y=[1, 2]), "polygon of fewer than 3 points"),
        (region("rect", "", x=10, y=20, width=30, height=40), "no label"),
        (region("rect", "<|im_end|>", x=10, y=20, width=30, height=40), "label holds a control token"),
        ({"region_attributes": {"class": "cat"}}, "object missing required field shape_attributes"),
        (7, "expected object, got int"),
    ],
)
def test_an_image_that_lost_its_region_is_no_record(tmp_path: Path, bad: Any, reason: str) -> None:
    records, account = convert(tmp_path, image(bad) | image(RECT, filename="b.jpg"))
    assert [record["images"] for record in records] == [["b.jpg"]]
    images, objects = why_dropped(account)
    assert (images, objects.startswith(reason)) == ("all of its objects were dropped", True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [], "annotations": [], "categories": []}, "no images with regions.*\n.*looks like a COCO file"),
        ({"project": {}, "config": {}, "file": {}, "metadata": {}, "view": {}}, "no images with regions.*\n.*VIA 3"),
        ([RECT], "no images with regions"),
        ({}, "no images with regions"),
        (image({"shape_attributes": RECT["shape_attributes"]}), "regions have no attribute that could be their label"),
        (image({**RECT, "region_attributes": {}}), "regions have no attribute that could be their label"),
        (image(RECT, filename="no.jpg"), "no image is left to write"),
        (image(RECT, filename=""), "no image is left to write"),
    ],
)
def test_refusals(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(tmp_path, content)


def test_a_cut_off_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"via.json: not JSON: .* is the file cut off"):
        run(write_text(tmp_path / "via.json", '{"_via_img_metadata": {'), "via", tmp_path / "out.jsonl")
