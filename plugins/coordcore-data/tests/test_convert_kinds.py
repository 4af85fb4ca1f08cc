"""Quads, points and keypoints: what each source gives when they are asked for."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conversion_support import (
    annotation,
    coco,
    read_lines,
    records_of,
    run,
    write_image,
    write_json,
    write_lines,
    write_text,
)
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from coordcore import InputError
from coordcore.cli import app
from coordcore.records.annotations import Rules, read_annotations
from coordcore.records.geometry import clockwise
from coordcore.records.record import parse_record
from coordcore_data.check.result import check_data
from coordcore_data.convert.geometry import fit_around, poly_area, uncrossed

PLANE = "60 30 40 50 20 30 40 10 plane 0"
CLOCKWISE = [40, 10, 60, 30, 40, 50, 20, 30]


def dota(tmp_path: Path, *lines: str) -> Path:
    write_text(tmp_path / "set" / "labelTxt" / "P1.txt", "\n".join(lines))
    write_image(tmp_path / "set" / "images" / "P1.png", 100, 80)
    return tmp_path / "set"


def objects_of(source: Path, source_format: str, tmp_path: Path, **options: Any) -> list[Any]:
    records, _ = records_of(source, source_format, tmp_path, **options)
    found: list[Any] = records[0]["objects"]
    return found


def test_dota_gives_quads_in_the_order_that_is_trained(tmp_path: Path) -> None:
    assert objects_of(dota(tmp_path, PLANE), "dota", tmp_path, geometry="quad") == [
        {"desc": "plane", "quad": CLOCKWISE}
    ]


def test_a_quad_over_the_edge_is_moved_to_it(tmp_path: Path) -> None:
    source = dota(tmp_path, "80 40 100 20 120 40 100 60 ship 0", "120 0 140 0 140 9 120 9 ship 0", PLANE)
    records, account = records_of(source, "dota", tmp_path, geometry="quad")

    assert records[0]["objects"][0]["quad"] == [100, 20, 100, 40, 100, 60, 80, 40]
    assert account.objects.dropped == {"lies outside the image": 1}
    assert account.notes["clipped at the image's edge, by a pixel or more"] == 1


CVAT = """<annotations><image id="0" name="a.png" width="100" height="80">
<box label="ship" xtl="40" ytl="30" xbr="60" ybr="40" rotation="90"/>
<box label="ship" xtl="1" ytl="2" xbr="3" ybr="5"/>
<points label="eye" points="10,20;30,40"/><points label="nose" points="5,6"/>
<polygon label="roof" points="10,10;20,10;30,20;20,30;10,20"/>
</image></annotations>"""


def test_cvat_gives_quads_of_boxes_and_of_what_is_around_polygons(tmp_path: Path) -> None:
    source = write_text(tmp_path / "annotations.xml", CVAT)
    records, account = records_of(source, "cvat", tmp_path, geometry="quad")
    turned, upright, roof = records[0]["objects"]

    assert turned["quad"] == pytest.approx([45, 25, 55, 25, 55, 45, 45, 45])
    assert upright["quad"] == [1, 2, 3, 2, 3, 5, 1, 5]
    assert poly_area(roof["quad"]) == pytest.approx(math.sqrt(2) * 10 * math.sqrt(2) * 15)
    assert [point["desc"] for point in records[0]["metadata"]["points"]] == ["eye", "nose"]
    assert account.notes["polygon: a box around it, turned as it is smallest, is written"] == 1


def test_cvat_gives_points(tmp_path: Path) -> None:
    source = write_text(tmp_path / "annotations.xml", CVAT)
    records, account = records_of(source, "cvat", tmp_path, geometry="point")

    assert [item for item in records[0]["objects"] if "point" in item] == [
        {"desc": "eye", "point": [10, 20]},
        {"desc": "eye", "point": [30, 40]},
        {"desc": "nose", "point": [5, 6]},
    ]
    assert sum("bbox_2d" in item for item in records[0]["objects"]) == 3
    assert "points" not in records[0].get("metadata", {})
    assert account.notes["shape of several points: an object for each"] == 1
    assert account.objects.read == 6


def test_an_image_of_points_alone_is_a_record_of_points(tmp_path: Path) -> None:
    source = write_text(
        tmp_path / "a.xml",
        '<annotations><image id="0" name="a.png" width="9" height="9"><points label="eye" points="1,2"/>'
        "</image></annotations>",
    )
    with pytest.raises(InputError, match=r"only points \(--geometry point writes them\): a record"):
        run(source, "cvat", tmp_path / "out.jsonl")
    assert objects_of(source, "cvat", tmp_path, geometry="point") == [{"desc": "eye", "point": [1, 2]}]


def test_labelme_via_label_studio_and_swift_give_points(tmp_path: Path) -> None:
    shape = {"label": "eye", "points": [[10, 20]], "shape_type": "point"}
    write_json(
        tmp_path / "lm" / "a.json", {"shapes": [shape], "imagePath": "a.png", "imageWidth": 50, "imageHeight": 40}
    )
    region = {"shape_attributes": {"name": "point", "cx": 10, "cy": 20}, "region_attributes": {"label": "eye"}}
    write_json(tmp_path / "via" / "via.json", {"a": {"filename": "a.png", "regions": [region]}})
    write_image(tmp_path / "via" / "a.png", 50, 40)
    value = {"x": 20, "y": 50, "width": 1, "keypointlabels": ["eye"]}
    result = {"type": "keypointlabels", "original_width": 50, "original_height": 40, "value": value}
    task = {"data": {"image": "a.png"}, "annotations": [{"result": [result]}]}
    write_json(tmp_path / "ls.json", [task])
    said = [{"role": "user", "content": "<image>where?"}, {"role": "assistant", "content": "<ref-object>: <bbox>"}]
    row = {"messages": said, "images": ["a.png"], "objects": {"ref": ["eye"], "bbox": [[10, 20]]}}
    text = {"messages": [said[0], {"role": "assistant", "content": '[{"point_2d": [10, 20], "label": "eye"}]'}]}
    write_image(tmp_path / "a.png", 50, 40)
    for source, name, options in (
        (tmp_path / "lm", "labelme", {}),
        (tmp_path / "via" / "via.json", "via", {}),
        (tmp_path / "ls.json", "label_studio", {}),
        (write_lines(tmp_path / "rows.jsonl", row), "swift", {}),
        (write_lines(tmp_path / "texts.jsonl", {**text, "images": ["a.png"]}), "swift", {"from_space": "pixel"}),
    ):
        found = objects_of(source, name, tmp_path, geometry="point", **options)
        assert found == [{"desc": "eye", "point": [10, 20]}], name
        with pytest.raises(InputError, match="no image is left to write"):
            run(source, name, tmp_path / "none.jsonl", **options)


PERSON = {
    "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}],
    "categories": [{"id": 1, "name": "person", "keypoints": ["nose", "eye"]}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "keypoints": [12, 14, 2, 0, 0, 0]},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [40, 10, 20, 20], "keypoints": [99.5, 81, 1, 50, 20, 2]},
        {"id": 3, "image_id": 1, "category_id": 2, "bbox": [1, 1, 2, 2], "keypoints": [1, 2]},
        {"id": 4, "image_id": 1, "category_id": 2, "bbox": [1, 1, 2, 3]},
    ],
}


def test_coco_carries_keypoints_when_asked(tmp_path: Path) -> None:
    source = write_json(tmp_path / "person.json", PERSON)
    records, account = records_of(source, "coco", tmp_path, keypoints=True)

    assert [item.get("keypoints") for item in records[0]["objects"]] == [
        [12, 14, 2, 0, 0, 0],
        [99.5, 80, 1, 50, 20, 2],
        None,
        None,
    ]
    assert records[0]["metadata"]["keypoint_names"] == {"person": ["nose", "eye"]}
    assert account.notes["keypoint outside the image: moved to its edge"] == 1
    assert account.notes["keypoints that are not x, y and visibility of each: not carried"] == 1
    assert "keypoints" not in json.dumps(records_of(source, "coco", tmp_path)[0])


@pytest.mark.parametrize(
    ("wrong", "note", "shown"),
    [
        (
            {"keypoints": [1, 2, 3, 4]},
            "keypoints that are not x, y and visibility of each: not carried",
            "[1, 2, 3, 4]",
        ),
        (
            {"keypoints": [12, 14, 3, 0, 0, 0]},
            "keypoint whose visibility is not 0, 1 or 2: none of its object carried",
            "3",
        ),
        (
            {"keypoints": [12, 14, 2]},
            "another number of keypoints than their category names: not carried",
            "1 keypoints, and 2 names of them in categories",
        ),
        (
            {"num_keypoints": 2},
            "num_keypoints that is not how many are labelled: not read",
            "2, and 1 have a visibility above 0",
        ),
    ],
)
def test_wrong_keypoints_of_coco_are_told_with_their_values(
    tmp_path: Path, wrong: dict[str, Any], note: str, shown: str
) -> None:
    first, *rest = PERSON["annotations"]
    source = write_json(tmp_path / "a.json", PERSON | {"annotations": [first | wrong, *rest[:1]]})
    records, account = records_of(source, "coco", tmp_path, keypoints=True)
    assert (account.notes[note], account.examples[note]) == (1, [f"annotation 1 {shown}"])
    assert ("keypoints" in records[0]["objects"][0]) is ("num_keypoints" in wrong)


def test_keypoints_of_coco_are_counted_where_nobody_asks_for_them(tmp_path: Path) -> None:
    account = records_of(write_json(tmp_path / "person.json", PERSON), "coco", tmp_path)[1]
    assert account.notes == {"keypoints: not carried without --keypoints": 3}


@pytest.mark.parametrize("space", ["pixel", "norm1", "bin"])
def test_keypoints_are_read_again_and_go_back_to_coco(tmp_path: Path, space: Any) -> None:
    source = write_json(tmp_path / "person.json", PERSON)
    run(source, "coco", tmp_path / "one.jsonl", keypoints=True, space=space)
    [found, *_] = read_annotations(parse_record((tmp_path / "one.jsonl").read_bytes()), Rules(space=space))
    given = {"from_space": space, **({"from_quantisation": "nearest_999"} if space == "bin" else {})}
    run(tmp_path / "one.jsonl", "records", tmp_path / "two.json", to="coco", keypoints=True, **given)
    back = json.loads((tmp_path / "two.json").read_text())["annotations"][0]

    assert found.keypoints[2::3] == (2, 0)
    assert back["keypoints"] == pytest.approx([12, 14, 2, 0, 0, 0], abs=0.06)
    assert back["num_keypoints"] == 1


def pose(tmp_path: Path, shape: str, line: str) -> Path:
    write_text(tmp_path / "ds" / "data.yaml", f"train: images\nnames: [person]\nkpt_shape: {shape}\n")
    write_text(tmp_path / "ds" / "labels" / "a.txt", line)
    write_image(tmp_path / "ds" / "images" / "a.png", 100, 80)
    return tmp_path / "ds" / "data.yaml"


@pytest.mark.parametrize(
    ("shape", "line", "expected"),
    [
        ("[2, 3]", "0 .5 .5 .2 .2 .5 .5 2 0 0 0", [50, 40, 2, 0, 0, 0]),
        ("[2, 2]", "0 .5 .5 .2 .2 .5 .5 -1 -1", [50, 40, 2, 0, 0, 0]),
    ],
)
def test_yolo_pose_carries_keypoints_when_asked(tmp_path: Path, shape: str, line: str, expected: list[float]) -> None:
    source = pose(tmp_path, shape, line)
    records, account = records_of(source, "yolo", tmp_path, keypoints=True)

    assert records[0]["objects"][0]["keypoints"] == expected
    assert not any("keypoints" in note for note in account.notes)
    [plain], account = records_of(source, "yolo", tmp_path)
    assert plain["objects"] == [{"desc": "person", "bbox_2d": [40, 32, 60, 48]}]
    assert account.notes["keypoints: not carried without --keypoints, the box is"] == 1


def test_a_visibility_that_is_none_drops_the_object(tmp_path: Path) -> None:
    source = pose(tmp_path, "[1, 3]", "0 .5 .5 .2 .2 .5 .5 7\n0 .5 .5 .2 .2 .5 .5 1")
    _, account = records_of(source, "yolo", tmp_path, keypoints=True)

    assert account.objects.dropped == {"keypoint whose visibility is not 0, 1 or 2": 1}


def test_keypoints_mean_nothing_to_other_formats(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--keypoints means nothing for dota; it is for: coco, lvis, yolo, records"):
        run(dota(tmp_path, PLANE), "dota", tmp_path / "out.jsonl", keypoints=True)


def test_yolo_obb_gives_quads(tmp_path: Path) -> None:
    write_text(tmp_path / "ds" / "data.yaml", "train: images\nnames: [ship]\n")
    write_text(tmp_path / "ds" / "labels" / "a.txt", "0 .4 .125 .6 .375 .4 .625 .2 .375")
    write_image(tmp_path / "ds" / "images" / "a.png", 100, 80)

    assert objects_of(tmp_path / "ds" / "data.yaml", "yolo", tmp_path, geometry="quad")[0]["quad"] == CLOCKWISE


def test_records_of_all_kinds(tmp_path: Path) -> None:
    objects = [{"desc": "a", "quad": CLOCKWISE}, {"desc": "b", "point": [1, 2]}, {"desc": "c", "bbox_2d": [1, 2, 3, 4]}]
    record = {"images": ["a.png"], "width": 100, "height": 80, "objects": objects}
    source = write_lines(tmp_path / "in.jsonl", record)
    for geometry, expected in (
        ("box", ["bbox_2d", "bbox_2d"]),
        ("poly", ["poly", "bbox_2d"]),
        ("quad", ["quad", "quad"]),
        ("point", ["bbox_2d", "point", "bbox_2d"]),
    ):
        found = objects_of(source, "records", tmp_path, from_space="pixel", geometry=geometry)
        assert [next(key for key in item if key not in ("desc", "poly_points")) for item in found] == expected


def test_coco_has_no_points_and_gets_quads_as_segmentations(tmp_path: Path) -> None:
    objects = [{"desc": "a", "quad": CLOCKWISE}, {"desc": "b", "point": [1, 2]}]
    source = write_lines(tmp_path / "in.jsonl", {"images": ["a.png"], "width": 100, "height": 80, "objects": objects})
    account = run(source, "records", tmp_path / "q.json", to="coco", from_space="pixel", geometry="quad")
    [annotation] = json.loads((tmp_path / "q.json").read_text())["annotations"]

    assert (annotation["segmentation"], annotation["bbox"]) == ([CLOCKWISE], [20, 10, 40, 40])
    assert annotation["area"] == 800
    assert account.objects.dropped == {"points: COCO's keypoints belong to a box": 1}
    account = run(source, "records", tmp_path / "p.json", to="coco", from_space="pixel", geometry="point")
    assert account.objects.dropped == {"points: COCO's keypoints belong to a box": 1}


@given(st.floats(0, 360), st.floats(1, 50), st.floats(1, 50), st.integers(0, 8))
def test_the_smallest_box_around_a_turned_box_is_that_box(
    degrees: float, width: float, height: float, more: int
) -> None:
    turn = math.radians(degrees)
    along, across = (
        (math.cos(turn) * width, math.sin(turn) * width),
        (-math.sin(turn) * height, math.cos(turn) * height),
    )
    shares = [(0, 0), (1, 0), (1, 1), (0, 1), (0.5, 0.5), *((0.1 * k, 0.05 * k) for k in range(more))]
    places = [(a * along[0] + b * across[0], a * along[1] + b * across[1]) for a, b in shares]
    quad, how = fit_around([[100 + value for place in places for value in place]], 200, 200)

    assert how == ""
    assert quad is not None
    assert poly_area(quad) == pytest.approx(width * height, rel=1e-6)


def test_points_that_enclose_nothing_have_no_quad() -> None:
    nothing = (None, "no extent: width or height is 0")
    assert fit_around([[1, 1, 2, 2, 3, 3, 4, 4, 5, 5]], 9, 9) == nothing
    assert fit_around([[1, 1, 1, 1, 1, 1]], 9, 9) == nothing


_PLACES = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 80)), min_size=3, max_size=9)


@given(_PLACES)
def test_a_quad_around_a_shape_inside_the_image_encloses_it_inside_the_image(places: list[tuple[int, int]]) -> None:
    quad, how = fit_around([[float(value) for place in places for value in place]], 100, 80)
    if quad is None:
        assert poly_area([value for place in places for value in place]) == 0
        return
    assert how == ""
    assert all(0 <= x <= 100 for x in quad[::2])
    assert all(0 <= y <= 80 for y in quad[1::2])
    corners = list(zip(quad[::2], quad[1::2], strict=True))
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        beside = [(x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for x, y in places]  # clockwise: below 0 is outside
        assert min(beside) >= -1e-6 * math.hypot(x2 - x1, y2 - y1)


def labelme(tmp_path: Path, width: int, height: int, *points: list[float], kind: str = "circle") -> Path:
    shape = {"label": "coin", "points": points, "shape_type": kind}
    content = {"shapes": [shape], "imagePath": "a.jpg", "imageWidth": width, "imageHeight": height}
    return write_json(tmp_path / "lm" / "a.json", content).parent


@pytest.mark.parametrize("outside", ["clip", "drop", "error"])
def test_a_circle_that_touches_all_edges_is_whole(tmp_path: Path, outside: Any) -> None:
    source = labelme(tmp_path, 500, 500, [250, 250], [250, 500])
    records, account = records_of(source, "labelme", tmp_path, geometry="quad", outside=outside)

    assert records[0]["objects"] == [{"desc": "coin", "quad": [0, 0, 500, 0, 500, 500, 0, 500]}]
    assert account.notes == {"circle: a box around it, turned as it is smallest, is written": 1}


def test_a_circle_over_the_edge_has_the_quad_of_what_is_left(tmp_path: Path) -> None:
    source = labelme(tmp_path, 100, 80, [-30, 40], [20, 40])
    quads = objects_of(source, "labelme", tmp_path, geometry="quad")
    assert quads[0]["quad"] == pytest.approx([0, 0, 20, 0, 20, 80, 0, 80], abs=0.01)

    with pytest.raises(InputError, match="no image is left to write"):
        run(source, "labelme", tmp_path / "dropped.jsonl", geometry="quad", outside="drop")


ELLIPSE = (
    '<annotations><image id="0" name="a.png" width="1000" height="1000"><ellipse label="egg" {}/></image></annotations>'
)


@pytest.mark.parametrize(
    ("numbers", "quad"),
    [
        # Unturned: to the digit the box that it is inscribed in.
        ('cx="500" cy="600" rx="400" ry="300"', [100, 300, 900, 300, 900, 900, 100, 900]),
        ('cx="500" cy="600" rx="100" ry="100" rotation="30"', [400, 500, 600, 500, 600, 700, 400, 700]),
        # Turned with it: half diagonals of 50 along and 20 across, by 3-4-5.
        ('cx="500" cy="600" rx="50" ry="20" rotation="36.86989764584402"', [472, 554, 552, 614, 528, 646, 448, 586]),
        # Whose turned box leaves the image, though it does not: the upright box, half sqrt(40^2 + 12^2) wide.
        ('cx="42" cy="600" rx="50" ry="20" rotation="36.86989764584402"', "upright"),
    ],
)
def test_an_ellipse_has_its_own_box_as_a_quad(tmp_path: Path, numbers: str, quad: Any) -> None:
    source = write_text(tmp_path / "a.xml", ELLIPSE.format(numbers))
    across, down = math.hypot(40, 12), math.hypot(30, 16)
    left, top, right, bottom = 42 - across, 600 - down, 42 + across, 600 + down
    expected = [left, top, right, top, right, bottom, left, bottom] if quad == "upright" else quad
    [found] = objects_of(source, "cvat", tmp_path, geometry="quad", outside="error")

    assert found["quad"] == pytest.approx(expected)


def sources_of_an_ellipse(tmp_path: Path) -> dict[str, Path]:
    """Around 50, 40 in an image of 100 x 80, of half axes 25 and 10, turned by 3-4-5 where a format can say so."""
    write_image(tmp_path / "images" / "a.png", 100, 80)
    degrees = math.degrees(math.atan2(3, 4))
    numbers = {"name": "ellipse", "cx": 50, "cy": 40, "rx": 25, "ry": 10, "theta": math.radians(degrees)}
    region = {"shape_attributes": numbers, "region_attributes": {"label": "egg"}}
    value = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 12.5, "rotation": degrees, "ellipselabels": ["egg"]}
    result = {"type": "ellipselabels", "original_width": 100, "original_height": 80, "value": value}
    unsized = {"type": "ellipselabels", "value": {**value, "rotation": 0}}
    item = {"id": "a", "image": {"path": "a.png", "size": [80, 100]}}
    upright = {"type": "ellipse", "points": [25, 30, 75, 50], "label_id": 0}
    named = {"label": {"labels": [{"name": "egg"}]}}
    return {
        "via": write_json(tmp_path / "images" / "via.json", {"a": {"filename": "a.png", "regions": [region]}}),
        "label_studio": write_json(
            tmp_path / "ls.json", [{"data": {"image": "a.png"}, "annotations": [{"result": [result]}]}]
        ),
        "label_studio in fractions": write_json(
            tmp_path / "ls2.json", [{"data": {"image": "a.png"}, "annotations": [{"result": [unsized]}]}]
        ),
        "datumaro": write_json(
            tmp_path / "d.json", {"categories": named, "items": [{**item, "annotations": [upright]}]}
        ),
    }


def test_every_ellipse_has_its_own_box_as_a_quad(tmp_path: Path) -> None:
    for name, source in sources_of_an_ellipse(tmp_path).items():
        [found] = objects_of(source, name.split()[0], tmp_path, geometry="quad", images=tmp_path / "images")
        turned = name in ("via", "label_studio")
        expected = [36, 17, 76, 47, 64, 63, 24, 33] if turned else [25, 30, 75, 30, 75, 50, 25, 50]
        assert found["quad"] == pytest.approx(expected), name


def test_the_quad_of_an_ellipse_is_turned_with_its_image(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png", 100, 80, 6)
    text = ELLIPSE.format('cx="25" cy="40" rx="15" ry="20"').replace("1000", "100", 1).replace("1000", "80")
    options = {"images": tmp_path / "images", "check_sizes": True, "geometry": "quad"}
    [found] = objects_of(write_text(tmp_path / "a.xml", text), "cvat", tmp_path, **options)

    assert found["quad"] == [20, 10, 60, 10, 60, 40, 20, 40]


def coco_polygon(tmp_path: Path, width: int, height: int, *points: float) -> Path:
    image = {"id": 7, "file_name": "a.jpg", "width": width, "height": height}
    return write_json(tmp_path / "a.json", coco([annotation(bbox=None, segmentation=[points])], [image]))


@pytest.mark.parametrize("outside", ["clip", "drop", "error"])
def test_of_boxes_that_are_as_small_the_upright_one_is_the_quad(tmp_path: Path, outside: Any) -> None:
    source = coco_polygon(tmp_path, 200, 100, 10, 10, 60, 10, 60, 60)
    [found] = objects_of(source, "coco", tmp_path, geometry="quad", outside=outside)

    assert found["quad"] == [10, 10, 60, 10, 60, 60, 10, 60]


def test_a_polygon_over_the_edge_has_the_quad_of_what_is_left(tmp_path: Path) -> None:
    # A strip on the diagonal that the upper left corner of the image cuts.
    source = coco_polygon(tmp_path, 100, 100, -20, -10, -10, -20, 60, 50, 55, 55, 50, 60)
    [found] = objects_of(source, "coco", tmp_path, geometry="quad")

    assert found["quad"] == [0, 0, 60, 0, 60, 60, 0, 60]


# --- closed polygons ---


def via_polygon(tmp_path: Path, xs: list[float], ys: list[float]) -> Path:
    shape = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
    region = {"shape_attributes": shape, "region_attributes": {"label": "roof"}}
    write_image(tmp_path / "via" / "a.png", 100, 80)
    return write_json(tmp_path / "via" / "via.json", {"a": {"filename": "a.png", "regions": [region]}})


def test_a_closed_polygon_of_four_points_is_the_quad_itself(tmp_path: Path) -> None:
    source = via_polygon(tmp_path, [10, 50, 40, 20, 10], [10, 10, 40, 40, 10])
    records, account = records_of(source, "via", tmp_path, geometry="quad")

    assert records[0]["objects"] == [{"desc": "roof", "quad": [10, 10, 50, 10, 40, 40, 20, 40]}]
    assert account.notes == {"size read from the image file": 1}


def test_a_closed_triangle_has_the_box_around_it_as_a_quad(tmp_path: Path) -> None:
    source = coco_polygon(tmp_path, 100, 80, 10, 10, 50, 10, 40, 40, 10, 10)
    records, account = records_of(source, "coco", tmp_path, geometry="quad")

    assert records[0]["objects"][0]["quad"] == [10, 10, 50, 10, 50, 40, 10, 40]
    assert account.notes == {"polygon: a box around it, turned as it is smallest, is written": 1}


@pytest.mark.parametrize("closing", [(), (10, 10), (10, 10, 10, 10)])
def test_a_polygon_is_written_without_the_point_that_closes_it(tmp_path: Path, closing: tuple[int, ...]) -> None:
    source = coco_polygon(tmp_path, 100, 80, 10, 10, 50, 10, 40, 40, *closing)
    [found] = objects_of(source, "coco", tmp_path, geometry="poly")

    assert found["poly"] == [10, 10, 50, 10, 40, 40]


def test_a_closed_line_is_no_polygon(tmp_path: Path) -> None:
    source = coco_polygon(tmp_path, 100, 80, 10, 10, 50, 40, 10, 10)
    with pytest.raises(InputError, match="polygon of fewer than 3 points"):
        run(source, "coco", tmp_path / "out.jsonl", geometry="poly")


@given(st.floats(0, 360), st.floats(5, 900), st.floats(0.1, 3))
def test_bins_of_thin_quads_can_be_read(degrees: float, length: float, thickness: float) -> None:
    turn = math.radians(degrees)
    along, across = (
        (math.cos(turn) * length, math.sin(turn) * length),
        (-math.sin(turn) * thickness, math.cos(turn) * thickness),
    )
    corners = [(0, 0), along, (along[0] + across[0], along[1] + across[1]), across]
    bins = uncrossed([round(value) for corner in corners for value in corner])

    assert clockwise(bins) is not None


def test_data_check_knows_the_kinds(tmp_path: Path) -> None:
    quads = [
        {"desc": "a", "quad": CLOCKWISE},
        {"desc": "a", "quad": [0, 0, 9, 0, 0, 9, 9, 9]},
        {"desc": "b", "point": [1, 2]},
    ]
    rows = [{"images": [f"{k}.png"], "width": 100, "height": 80, "objects": quads} for k in range(2)]
    checked = check_data(write_lines(tmp_path / "in.jsonl", *rows), space="pixel")
    text = "\n".join(checked.lines())

    assert "2 points" in text
    assert "quads whose sides cross: 2" in text
    assert "no width or no height" not in text
    points = [{**row, "objects": quads[2:]} for row in rows]
    told = check_data(write_lines(tmp_path / "points.jsonl", *points), space="pixel").lines()
    assert told[-1] == "nothing suspicious"


def test_the_command_takes_them(tmp_path: Path) -> None:
    command = ["data", "convert", str(dota(tmp_path, PLANE)), str(tmp_path / "o.jsonl"), "--from", "dota"]
    done = CliRunner().invoke(app, [*command, "--to-space", "bin", "--geometry", "quad"])

    assert done.exit_code == 0, done.output
    quad = read_lines(tmp_path / "o.jsonl")[0]["objects"][0]["quad"]
    assert len(quad) == 8
    assert all(isinstance(value, int) for value in quad)
    assert all(a != b for a, b in pairwise(quad[::2]))


@pytest.mark.parametrize(("space", "numbers"), [("pixel", 1), ("norm1", 100)])
def test_every_kind_is_read_y_first(tmp_path: Path, space: str, numbers: int) -> None:
    quad = [30, 10, 30, 40, 50, 40, 50, 10]
    given = [
        {"desc": "box", "bbox_2d": [20, 10, 60, 40]},
        {"desc": "dot", "point": [70, 10]},
        {"desc": "roof", "quad": quad},
        {"desc": "hill", "poly": [20, 10, 60, 10, 60, 40]},
    ]
    for item in given:
        for kind in item.keys() - {"desc"}:
            item[kind] = [value / numbers for value in item[kind]]
    given[0]["keypoints"] = [30 / numbers, 15 / numbers, 2]
    metadata = {
        "points": [{"desc": "eye", "points": [value / numbers for value in (70, 10)]}],
        "crowd": [{"desc": "herd", "bbox_2d": [value / numbers for value in (0, 10, 20, 50)]}],
    }
    source = write_lines(
        tmp_path / "in.jsonl",
        {"images": ["a.jpg"], "width": 100, "height": 100, "objects": given, "metadata": metadata},
    )
    [record], _ = records_of(
        source, "records", tmp_path, geometry="own", boxes="yxyx", from_space=space, keypoints=True
    )
    keypoints = record["objects"][0].pop("keypoints")
    found = {item.pop("desc"): next(iter(item.values())) for item in record["objects"]}
    assert found == {
        "box": pytest.approx([10, 20, 40, 60]),
        "dot": pytest.approx([10, 70]),
        "roof": pytest.approx([10, 30, 40, 30, 40, 50, 10, 50]),
        "hill": pytest.approx([10, 20, 10, 60, 40, 60]),
    }
    assert keypoints == pytest.approx([15, 30, 2])
    assert record["metadata"]["points"] == [{"desc": "eye", "points": pytest.approx([10, 70])}]
    assert record["metadata"]["crowd"] == [{"desc": "herd", "bbox_2d": pytest.approx([10, 0, 50, 20])}]
