"""Clipping, rotation and EXIF turns, against Pillow and against areas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from conversion_support import annotation, coco, records_of, write_image, write_json, write_lines, write_text
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps

from coordcore.records.geometry import bounds, bounds_inside
from coordcore_data.convert.geometry import clip_poly, fit_box, poly_area, rotated
from coordcore_data.convert.sizes import turn

_POSITIONS = st.floats(-100, 200, allow_nan=False)


def _polygon(centre: tuple[float, float], radius: float, count: int, start: float) -> list[float]:
    """A regular polygon: x, y of `count` corners, the first at the angle `start`."""
    angles = [start + 2 * math.pi * k / count for k in range(count)]
    return [value for a in angles for value in (centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a))]


_CONVEX = st.builds(
    _polygon, st.tuples(*[st.floats(-50, 150)] * 2), st.floats(1, 80), st.integers(3, 9), st.floats(0, 7)
)


@given(st.tuples(*[_POSITIONS] * 4))
def test_a_fitted_box_lies_inside_or_there_is_none(box: Any) -> None:
    fitted, _ = fit_box(box, 100, 80)
    overlap = max(0.0, min(box[2], 100) - max(box[0], 0)) * max(0.0, min(box[3], 80) - max(box[1], 0))
    if fitted is None:
        assert overlap == 0 or box[2] < box[0] or box[3] < box[1]
    else:
        assert 0 <= fitted[0] < fitted[2] <= 100
        assert 0 <= fitted[1] < fitted[3] <= 80
        assert (fitted[2] - fitted[0]) * (fitted[3] - fitted[1]) == pytest.approx(overlap)


@settings(max_examples=40, deadline=None)
@given(_CONVEX)
def test_a_clipped_convex_polygon_keeps_the_area_inside(poly: list[float]) -> None:
    inside = clip_poly(poly, 100, 80)
    assert all(0 <= x <= 100 for x in inside[::2])
    assert all(0 <= y <= 80 for y in inside[1::2])
    # The first and the last row may be half beside the polygon, which is up to 100 wide there.
    assert (poly_area(inside) if inside else 0.0) == pytest.approx(area_by_rows(poly, 100, 80), abs=100 / 64)


def area_by_rows(poly: list[float], width: float, height: float, step: float = 1 / 64) -> float:
    """The area of a convex polygon within the image, row by row."""
    area = 0.0
    edges = list(zip(poly[::2], poly[1::2], poly[2::2] + poly[:1], poly[3::2] + poly[1:2], strict=True))
    for row in range(int(height / step)):
        y = (row + 0.5) * step
        crossed = [x1 + (y - y1) / (y2 - y1) * (x2 - x1) for x1, y1, x2, y2 in edges if (y1 <= y) != (y2 <= y)]
        if crossed:
            area += step * max(0.0, min(max(crossed), width) - max(min(crossed), 0.0))
    return area


def test_a_triangle_over_two_edges() -> None:
    assert bounds(clip_poly([-10, -10, 30, -10, -10, 30], 100, 80)) == (0, 0, 20, 20)
    assert poly_area(clip_poly([-10, -10, 30, -10, -10, 30], 100, 80)) == 200


@pytest.mark.parametrize(
    ("poly", "expected"),
    [
        ([20, 30, 60, 30, 60, 90, 20, 90], [20, 30, 60, 30, 60, 80, 20, 80]),
        ([70, 30, 120, 30, 120, 60, 70, 60], [70, 30, 100, 30, 100, 60, 70, 60]),
        # Without its first point it begins with the next one, which is new.
        ([-20, 30, 60, 30, 60, 60, -20, 60], [0, 30, 60, 30, 60, 60, 0, 60]),
        ([20, -30, 60, -30, 60, 60, 20, 60], [60, 0, 60, 60, 20, 60, 20, 0]),
        # A point on the edge, behind which the polygon leaves the image, is written once.
        ([20, 30, 60, 80, 20, 90], [20, 30, 60, 80, 20, 80]),
        ([20, 80, 20, 30, 60, 30, 60, 90], [20, 80, 20, 30, 60, 30, 60, 80]),
    ],
)
def test_a_clipped_polygon_begins_where_the_polygon_does(
    tmp_path: Path, poly: list[float], expected: list[float]
) -> None:
    source = write_json(tmp_path / "a.json", coco([annotation(bbox=None, segmentation=[poly])]))
    records, account = records_of(source, "coco", tmp_path, geometry="poly")
    assert records[0]["objects"][0]["poly"] == expected
    assert account.notes == {"clipped at the image's edge, by a pixel or more": 1}


@settings(max_examples=60, deadline=None)
@given(_CONVEX)
def test_the_box_of_what_is_inside_is_that_of_the_cut_polygon_where_it_is_convex(poly: list[float]) -> None:
    cut = clip_poly(poly, 100, 80)
    found = bounds_inside(poly, 100, 80)
    if found is None:
        assert not cut or poly_area(cut) == pytest.approx(0, abs=1e-6)
    else:
        assert found == pytest.approx(bounds(cut))


@pytest.mark.parametrize(
    ("poly", "box"),
    [
        ([-10, 20, 10, 20, 10, 30, -10, 30], (0, 20, 10, 30)),
        # Beside the image it goes round the corner and back: what is inside ends at y = 40 all the same.
        ([10, 40, 10, 60, -20, 60, -20, -20, 30, -20, 30, -10, -10, -10, -10, 40], (0, 40, 10, 60)),
        ([-10, -10, 110, -10, 110, 90, -10, 90], (0, 0, 100, 80)),
        ([-10, 40, 50, -90, 110, 40, 50, 170], (0, 0, 100, 80)),
        ([-10, -10, -5, -10, -5, 90], None),
        ([100, 10, 130, 10, 130, 20], None),  # touches the edge and has nothing inside
    ],
)
def test_the_box_of_what_is_inside_a_picture(poly: list[float], box: Any) -> None:
    assert bounds_inside(poly, 100, 80) == box
    assert bounds_inside([value for k in range(len(poly) - 2, -1, -2) for value in poly[k : k + 2]], 100, 80) == box


SAIL = [-60, 50, -20, 10, 20, 50, -20, 90]
"""A square on its corner, most of which is left of the image: the box around what is inside is 0, 30, 20, 70."""


def sources_of_the_sail(tmp_path: Path) -> dict[str, Path]:
    """The sail as each format writes it, on an image of 100 x 100."""
    points = list(zip(SAIL[::2], SAIL[1::2], strict=True))
    image = {"id": 7, "file_name": "a.png", "width": 100, "height": 100}
    write_image(tmp_path / "images" / "a.png", 100, 100)
    write_text(tmp_path / "labels" / "a.txt", "0 " + " ".join(str(value / 100) for value in SAIL))
    half = 40 / math.sqrt(2)
    corners = f'xtl="{-20 - half}" ytl="{50 - half}" xbr="{-20 + half}" ybr="{50 + half}" rotation="45"'
    cvat = '<annotations><image id="1" name="a.png" width="100" height="100">{}</image></annotations>'
    labelme = {"imagePath": "a.png", "imageWidth": 100, "imageHeight": 100}
    row = {"images": ["a.png"], "width": 100, "height": 100, "objects": [{"desc": "sail", "poly": SAIL}]}
    found = {
        "coco": write_json(tmp_path / "a.json", coco([annotation(bbox=None, segmentation=[SAIL])], [image])),
        "coco flat": write_json(tmp_path / "b.json", coco([annotation(bbox=[], segmentation=SAIL)], [image])),
        "yolo": write_text(tmp_path / "data.yaml", "train: images\nnames: [sail]\n"),
        "cvat polygon": write_text(
            tmp_path / "a.xml",
            cvat.format(f'<polygon label="sail" points="{";".join(f"{x},{y}" for x, y in points)}"/>'),
        ),
        "cvat box": write_text(tmp_path / "b.xml", cvat.format(f'<box label="sail" {corners}/>')),
        "records": write_lines(tmp_path / "a.jsonl", row),
    }
    for kind in ("polygon", "rotation", "rectangle", None):
        shapes = [{"label": "sail", "points": points, "shape_type": kind}]
        found[f"labelme {kind}"] = write_json(tmp_path / f"lm-{kind}" / "a.json", labelme | {"shapes": shapes})
    return found


@pytest.mark.parametrize("geometry", ["box", "poly"])
def test_a_shape_is_cut_before_it_is_enclosed_in_every_format(tmp_path: Path, geometry: str) -> None:
    for name, source in sources_of_the_sail(tmp_path).items():
        source = source.parent if name.startswith("labelme") else source
        options = {"from_space": "pixel"} if name == "records" else {}
        records, _ = records_of(source, name.split()[0], tmp_path, geometry=geometry, **options)
        found = records[0]["objects"][0]
        box = found["bbox_2d"] if "bbox_2d" in found else bounds(found["poly"])
        assert box == pytest.approx((0, 30, 20, 70)), name


def test_a_shape_of_several_polygons_is_cut_piece_by_piece(tmp_path: Path) -> None:
    image = {"id": 7, "file_name": "a.png", "width": 100, "height": 100}
    parts = [SAIL, [80, 80, 90, 80, 80, 95], [200, 0, 300, 0, 300, 9]]
    source = write_json(tmp_path / "a.json", coco([annotation(bbox=None, segmentation=parts)], [image]))
    records, _ = records_of(source, "coco", tmp_path)
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([0, 30, 90, 95])


def test_a_shape_that_only_its_box_brings_into_the_image_is_outside(tmp_path: Path) -> None:
    beside = [-30, 20, 20, -30, -30, -30]  # cuts the corner off, 5 pixels away from it
    source = write_json(tmp_path / "a.json", coco([annotation(), annotation(id=2, bbox=None, segmentation=[beside])]))
    for geometry in ("box", "poly"):
        _, account = records_of(source, "coco", tmp_path, geometry=geometry)
        assert account.objects.dropped == {"lies outside the image": 1}


@pytest.mark.parametrize("turned", [0, 30, 90])
def test_an_ellipse_over_the_edge_is_cut_before_it_is_enclosed(tmp_path: Path, turned: int) -> None:
    shape = f'<ellipse label="egg" cx="-10" cy="50" rx="30" ry="20" rotation="{turned}"/>'
    text = f'<annotations><image id="1" name="a.png" width="100" height="100">{shape}</image></annotations>'
    records, _ = records_of(write_text(tmp_path / "a.xml", text), "cvat", tmp_path)
    turn_by = math.radians(turned)
    inside = []
    for step in range(36000):
        x, y = 30 * math.cos(math.radians(step / 100)), 20 * math.sin(math.radians(step / 100))
        across, down = x * math.cos(turn_by) - y * math.sin(turn_by), x * math.sin(turn_by) + y * math.cos(turn_by)
        if across >= 10:
            inside.append((across - 10, 50 + down))
    ends = [min(y for _, y in inside), max(x for x, _ in inside), max(y for _, y in inside)]
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([0, *ends], abs=0.01)


def test_a_circle_over_the_edge_is_cut_before_it_is_enclosed(tmp_path: Path) -> None:
    shape = {"label": "ball", "points": [[-30, 40], [20, 40]], "shape_type": "circle"}
    content = {"imagePath": "a.png", "imageWidth": 100, "imageHeight": 80, "shapes": [shape]}
    records, _ = records_of(write_json(tmp_path / "lm" / "a.json", content), "labelme", tmp_path)
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([0, 0, 20, 80], abs=0.01)


@pytest.mark.parametrize("degrees", [0, 37, 90, 180, 270, -45, 765])
def test_a_rotation_keeps_centre_and_area(degrees: float) -> None:
    poly = rotated((10, 20, 40, 60), degrees)
    assert [sum(poly[::2]) / 4, sum(poly[1::2]) / 4] == pytest.approx([25, 40])
    assert poly_area(poly) == pytest.approx(1200)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_box_is_where_pillow_turns_its_pixels(orientation: int) -> None:
    stored = Image.new("L", (100, 60))
    ImageDraw.Draw(stored).rectangle((10, 20, 39, 49), fill="white")  # pixel edges 10, 20, 40, 50
    stored.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(stored)
    assert bounds(turn([10, 20, 40, 50], 100, 60, orientation)) == upright.getbbox()


# --- sizes ----------------------------------------------------------------------------------------------------------


def checked(tmp_path: Path, stated: tuple[int, int], stored: tuple[int, int], orientation: int | None) -> Any:
    write_image(tmp_path / "images" / "a.jpg", *stored, orientation)
    write_image(tmp_path / "images" / "b.jpg", 10, 10)
    images = [
        {"id": 7, "file_name": "a.jpg", "width": stated[0], "height": stated[1]},
        {"id": 8, "file_name": "b.jpg", "width": 10, "height": 10},
    ]
    source = write_json(tmp_path / "a.json", coco([annotation()], images))
    return records_of(source, "coco", tmp_path, images=tmp_path / "images", check_sizes=True)


def test_boxes_on_the_upright_image_stay(tmp_path: Path) -> None:
    records, account = checked(tmp_path, (80, 100), (100, 80), 6)
    assert records[0]["objects"][0]["bbox_2d"] == [10, 20, 40, 60]
    assert account.notes["image without objects: an empty record"] == 1
    assert len(account.notes) == 1


def test_boxes_on_the_stored_image_are_turned_with_it(tmp_path: Path) -> None:
    records, account = checked(tmp_path, (100, 80), (100, 80), 6)
    assert (records[0]["width"], records[0]["height"]) == (80, 100)
    assert records[0]["objects"][0]["bbox_2d"] == [20, 10, 60, 40]
    assert account.notes["turned by the EXIF orientation: drawn on the unturned image"] == 1


def test_fractions_of_the_stored_image_are_turned_too(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", 100, 80, 6)
    row = {
        "images": ["a.jpg"],
        "width": 100,
        "height": 80,
        "objects": [{"desc": "cat", "bbox_2d": [0.1, 0.25, 0.4, 0.75]}],
    }
    options = {"from_space": "norm1", "images": tmp_path, "check_sizes": True}
    records, _ = records_of(write_lines(tmp_path / "a.jsonl", row), "records", tmp_path, **options)
    assert records[0]["objects"][0]["bbox_2d"] == [20, 10, 60, 40]


def test_half_a_turn_cannot_be_told_and_is_counted(tmp_path: Path) -> None:
    records, account = checked(tmp_path, (100, 80), (100, 80), 3)
    assert records[0]["objects"][0]["bbox_2d"] == [10, 20, 40, 60]
    assert account.notes["EXIF orientation that keeps the size: taken as drawn on the upright image"] == 1


def test_a_resized_image_is_dropped(tmp_path: Path) -> None:
    records, account = checked(tmp_path, (100, 80), (50, 40), None)
    assert [record["images"] for record in records] == [["b.jpg"]]
    reason = "size in the source is not that of the image file: resized?"
    assert account.images.dropped == {reason: 1}
    assert account.objects.dropped == {f"image dropped: {reason}": 1}


@pytest.mark.parametrize(("content", "reason"), [(None, "image file missing"), ("x", "image file cannot be read")])
def test_images_that_are_missing_or_broken_are_dropped(tmp_path: Path, content: str | None, reason: str) -> None:
    write_image(tmp_path / "images" / "b.jpg", 100, 80)
    if content is not None:
        write_text(tmp_path / "images" / "a.jpg", content)
    images = [{"id": n, "file_name": f"{f}.jpg", "width": 100, "height": 80} for n, f in ((7, "a"), (8, "b"))]
    source = write_json(tmp_path / "a.json", coco([annotation()], images))
    _, account = records_of(source, "coco", tmp_path, images=tmp_path / "images", check_sizes=True)
    assert account.images.dropped == {reason: 1}


def test_a_negative_box_does_not_become_right_by_turning(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg", 100, 80, 6)
    bad = [annotation(id=2, bbox=[50, 50, -10, 5]), annotation(id=3, bbox=[float("nan"), 50, 10, 5])]
    source = write_json(tmp_path / "a.json", coco([annotation(), *bad]))
    _, account = records_of(source, "coco", tmp_path, images=tmp_path / "images", check_sizes=True)
    assert account.objects.dropped == {"negative width or height": 1, "a coordinate is NaN or infinite": 1}
