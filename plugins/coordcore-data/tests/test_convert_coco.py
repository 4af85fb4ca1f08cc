"""COCO and LVIS: what arrives, what is counted, and the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conversion_support import REAL_COCO, annotation, coco, read_lines, records_of, run, write_json

from coordcore import InputError


def converted(tmp_path: Path, content: Any, **options: Any) -> tuple[list[Any], Any]:
    return records_of(write_json(tmp_path / "instances.json", content), "coco", tmp_path, **options)


def test_a_box_becomes_two_corners_in_pixels(tmp_path: Path) -> None:
    records, account = converted(tmp_path, coco([annotation()]))
    assert records == [
        {
            "images": ["a.jpg"],
            "width": 100,
            "height": 80,
            "objects": [{"desc": "cat", "bbox_2d": [10, 20, 40, 60]}],
            "metadata": {"image_id": 7},
        }
    ]
    assert (account.objects.read, account.objects.written, account.objects.dropped) == (1, 1, {})


def test_a_file_that_breaks_the_format_can_say_its_order(tmp_path: Path) -> None:
    records, _ = converted(tmp_path, coco([annotation(bbox=[10, 20, 40, 60])]), boxes="xyxy")
    assert records[0]["objects"][0]["bbox_2d"] == [10, 20, 40, 60]


def test_an_image_without_annotations_is_an_empty_record(tmp_path: Path) -> None:
    records, account = converted(tmp_path, coco([]))
    assert records[0]["objects"] == []
    assert account.notes == {"image without objects: an empty record": 1}


def test_a_crowd_is_carried_under_metadata(tmp_path: Path) -> None:
    records, account = converted(tmp_path, coco([annotation(), annotation(id=2, iscrowd=1, bbox=[0, 0, 50, 50])]))
    assert records[0]["metadata"]["crowd"] == [{"desc": "cat", "bbox_2d": [0, 0, 50, 50]}]
    assert (account.objects.written, account.objects.carried) == (1, {"crowd": 1})


def test_a_crowd_is_dropped_and_counted_when_asked(tmp_path: Path) -> None:
    records, account = converted(tmp_path, coco([annotation(), annotation(id=2, iscrowd=1)]), crowd="drop")
    assert "crowd" not in records[0]["metadata"]
    assert account.objects.dropped == {"crowd": 1}


def test_the_masks_of_cvat_are_called_crowds_and_can_be_read_as_objects(tmp_path: Path) -> None:
    mask = {"counts": [85, 5, 7910], "size": [80, 100]}
    given = annotation(segmentation=mask, bbox=[1, 5, 1, 5], iscrowd=1, attributes={"occluded": False})
    hint = "crowd region with CVAT's attributes, whose export makes every mask one: --crowd objects reads objects"
    with pytest.raises(InputError, match=hint):
        converted(tmp_path, coco([given]))
    _, account = converted(tmp_path, coco([given, annotation(id=2), annotation(id=3, iscrowd=1)]))
    assert (account.notes[hint], account.objects.carried) == (1, {"crowd": 2})
    records, account = converted(tmp_path, coco([given, annotation(id=2)]), crowd="objects")
    assert [item["bbox_2d"] for item in records[0]["objects"]] == [[1, 5, 2, 10], [10, 20, 40, 60]]
    assert "crowd" not in records[0]["metadata"]
    assert account.notes == {"crowd region: read as an object": 1}


def test_an_image_whose_objects_are_all_dropped_is_not_called_empty(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 100, "height": 80} for n in (7, 8)]
    records, account = converted(tmp_path, coco([annotation(bbox=[5, 5, 0, 9])], images))
    assert [record["images"] for record in records] == [["8.jpg"]]
    assert account.images.dropped == {"all of its objects were dropped": 1}
    assert account.objects.dropped == {"no extent: width or height is 0": 1}


def test_a_single_polygon_is_written_when_asked(tmp_path: Path) -> None:
    triangle = [10.0, 20.0, 40.0, 20.0, 25.0, 60.0]
    records, _ = converted(tmp_path, coco([annotation(segmentation=[triangle])]), geometry="poly")
    assert records[0]["objects"] == [{"desc": "cat", "poly": triangle, "poly_points": 3}]


def turned(rotation: Any, **changes: Any) -> dict[str, Any]:
    """A box as CVAT writes it: 30 x 40 about (25, 40)."""
    return annotation(attributes={"occluded": False, "rotation": rotation}, segmentation=[], area=1200.0, **changes)


def test_a_box_turns_as_cvat_turns_it(tmp_path: Path) -> None:
    content = coco([turned(90.0), turned("0.0", id=2), turned(0, id=3)])
    records, account = converted(tmp_path, content)
    boxes = [item["bbox_2d"] for item in records[0]["objects"]]
    assert boxes[0] == pytest.approx([5, 25, 45, 55])
    assert boxes[1:] == [[10, 20, 40, 60]] * 2
    assert account.notes == {"rotated box: its enclosing box is written": 1}
    assert "object_areas" not in records[0]["metadata"]
    for geometry in ("poly", "quad"):
        records, _ = converted(tmp_path, content, geometry=geometry)
        found = records[0]["objects"][0][geometry]
        corners = [found[at : at + 2] for at in range(0, 8, 2)]
        assert sorted(corners) == [pytest.approx(corner) for corner in ([5, 25], [5, 55], [45, 25], [45, 55])]


@pytest.mark.parametrize("rotation", ["portrait", "", True, [], 10**400, 360])
def test_a_rotation_that_is_none_turns_nothing(tmp_path: Path, rotation: Any) -> None:
    triangle = [20.0, 22.0, 30.0, 22.0, 30.0, 30.0]
    records, account = converted(
        tmp_path, coco([turned(rotation), turned(rotation, id=2) | {"segmentation": [triangle]}])
    )
    assert [item["bbox_2d"] for item in records[0]["objects"]] == [[10, 20, 40, 60]] * 2
    assert account.notes == ({} if rotation == 360 else {"attribute rotation that is no number: no turn": 2})


def test_the_area_of_a_turned_box_is_carried(tmp_path: Path) -> None:
    records, _ = converted(tmp_path, coco([turned(30)]))
    assert records[0]["metadata"]["object_areas"] == [1200]


@pytest.mark.parametrize("geometry", ["box", "poly"])
def test_an_outline_is_that_of_a_turned_object_already(tmp_path: Path, geometry: str) -> None:
    outline = [25.0, 15.0, 50.0, 40.0, 25.0, 65.0, 0.0, 40.0]
    records, _ = converted(tmp_path, coco([turned(45) | {"segmentation": [outline]}]), geometry=geometry)
    assert records[0]["objects"][0].get("poly", [0, 15, 50, 65]) == (outline if geometry == "poly" else [0, 15, 50, 65])
    assert records[0]["objects"][0].get("bbox_2d") == ([0, 15, 50, 65] if geometry == "box" else None)


def test_the_box_around_a_mask_is_not_turned(tmp_path: Path) -> None:
    mask = turned(90) | {"segmentation": {"counts": [810, 40, 7150], "size": [80, 100]}, "bbox": [10, 10, 1, 40]}
    records, _ = converted(tmp_path, coco([mask]))
    assert records[0]["objects"][0]["bbox_2d"] == [10, 10, 11, 50]


@pytest.mark.parametrize(
    ("segmentation", "note"),
    [
        ([[10, 20, 40, 20, 25, 60], [1, 1, 2, 1, 2, 2]], "shape of several polygons: only its box is carried"),
        ({"counts": [5, 9], "size": [80, 100]}, "RLE mask: not carried"),
        ([[10, 20, 40]], "segmentation that cannot be read: not carried"),
        ([["a"]], "segmentation that cannot be read: not carried"),
        ([[10, 20, 40, 20]], "degenerate polygon: its box is written"),
    ],
)
def test_other_segmentations_leave_the_box(tmp_path: Path, segmentation: Any, note: str) -> None:
    records, account = converted(tmp_path, coco([annotation(segmentation=segmentation)]), geometry="poly")
    assert records[0]["objects"] == [{"desc": "cat", "bbox_2d": [10, 20, 40, 60]}]
    assert account.notes == {note: 1}


def test_polygons_survive_a_file_that_only_python_can_parse(tmp_path: Path) -> None:
    triangle = [10.0, 20.0, 40.0, 20.0, 25.0, 60.0]
    content = coco([annotation(segmentation=[triangle], area=float("nan"))])
    records, _ = converted(tmp_path, content, geometry="poly")
    assert records[0]["objects"][0]["poly"] == triangle


def test_lvis_takes_the_path_from_the_url_and_carries_what_is_absent_or_incomplete(tmp_path: Path) -> None:
    url = "http://images.cocodataset.org/train2017/000000000007.jpg"
    image = {"id": 7, "coco_url": url, "width": 100, "height": 80}
    image |= {"neg_category_ids": [2], "not_exhaustive_category_ids": [1]}
    content = coco([annotation()], [image], [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}])
    records, _ = records_of(write_json(tmp_path / "lvis.json", content), "lvis", tmp_path)
    assert records[0]["images"] == ["train2017/000000000007.jpg"]
    metadata = {"image_id": 7, "absent_categories": ["dog"], "incomplete_categories": ["cat"]}
    assert records[0]["metadata"] == metadata


# --- bad input ------------------------------------------------------------------------------------------------------

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": [10, 20, -30, 40]}, "negative width or height"),
        ({"bbox": [10, 20, 30, 0]}, "no extent: width or height is 0"),
        ({"attributes": {"rotation": 5}, "bbox": [10, 20, -30, 40]}, "negative width or height"),
        ({"bbox": [NAN, 20, 30, 40]}, "a coordinate is NaN or infinite"),
        ({"bbox": [10, 20, INFINITE, 40]}, "a coordinate is NaN or infinite"),
        ({"bbox": [100, 20, 30, 40]}, "lies outside the image"),
        ({"bbox": [10, 20, 30]}, "annotation not readable: bbox: expected array of length 4"),
        ({"bbox": [10, "left", 30, 40]}, "annotation not readable: bbox[...]: expected float, got str"),
        ({"bbox": None}, "neither a bbox nor a polygon that can be read"),
        ({"category_id": 9}, "unknown category id"),
        ({"image_id": 9}, "annotation of an image that is not listed"),
        ({"category_id": None}, "annotation not readable: category_id: expected int | float | str, got null"),
    ],
)
def test_each_bad_annotation_has_its_reason(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    records, account = converted(tmp_path, coco([annotation(), annotation(**{"id": 2} | changes)]))
    assert len(records[0]["objects"]) == 1
    assert account.objects.dropped == {reason: 1}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": -100}, "width and height must be whole numbers from 1 to 1,000,000"),
        ({"width": 100.5}, "width and height must be whole numbers from 1 to 1,000,000"),
        ({"width": None}, "width and height must be whole numbers from 1 to 1,000,000"),
        ({"width": 0, "height": 0}, "no size in the source; --image-root DIR reads it from the files"),
        ({"file_name": "\ud800.jpg"}, "no file name, or one that is no valid Unicode"),
        ({"file_name": None}, "no file name, or one that is no valid Unicode"),
        ({"id": None}, "image not readable: id: expected int | float | str, got null"),
    ],
)
def test_each_bad_image_has_its_reason(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    good = {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80}
    records, account = converted(
        tmp_path, coco([annotation()], [good, {**good, "id": 8, "file_name": "b.jpg"} | changes])
    )
    assert len(records) == 1
    assert account.images.dropped == {reason: 1}


def test_the_objects_of_a_dropped_image_are_counted_as_dropped_with_it(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "a.jpg", "width": -1, "height": 80}, {**coco([])["images"][0], "id": 8}]
    _, account = converted(tmp_path, coco([annotation(), annotation(id=2)], images))
    reason = "image dropped: width and height must be whole numbers from 1 to 1,000,000"
    assert account.objects.dropped == {reason: 2}


def test_whole_sizes_may_be_written_as_floats(tmp_path: Path) -> None:
    records, _ = converted(tmp_path, coco([], [{"id": 7.0, "file_name": "a.jpg", "width": 100.0, "height": 80.0}]))
    assert (records[0]["width"], records[0]["height"]) == (100, 80)


def test_images_that_share_an_id_are_dropped_with_their_annotations(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f, "width": 100, "height": 80} for n, f in ((7, "a"), (7, "b"), (8, "c"))]
    records, account = converted(tmp_path, coco([annotation()], images))
    assert [record["images"] for record in records] == [["c"]]
    reason = "image id used for different images: nobody knows whose the annotations are"
    assert account.images.dropped == {reason: 2}
    assert account.objects.dropped == {f"image dropped: {reason}": 1}


def test_an_image_that_is_listed_twice_counts_once(tmp_path: Path) -> None:
    image = coco([])["images"][0]
    records, account = converted(tmp_path, coco([annotation()], [image, image]))
    assert len(records) == 1
    assert account.images.dropped == {"image listed twice": 1}


def test_an_annotation_that_is_listed_twice_counts_once_but_another_under_its_id_is_kept(tmp_path: Path) -> None:
    other = annotation(bbox=[1, 1, 5, 5])
    records, account = converted(tmp_path, coco([annotation(), annotation(), other]))
    assert len(records[0]["objects"]) == 2
    assert account.objects.dropped == {"annotation listed twice": 1}


def test_a_category_id_with_two_names_is_not_guessed(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 2, "name": "cow"}]
    records, account = converted(tmp_path, coco([annotation(), annotation(id=2, category_id=2)], None, categories))
    assert [item["desc"] for item in records[0]["objects"]] == ["cow"]
    assert account.objects.dropped == {"category without a name, or with several": 1}


@pytest.mark.parametrize(
    ("name", "desc"),
    [
        ('a "quoted" cat', 'a "quoted" cat'),
        ("two\nlines\t", "two lines"),
        ("🐈‍⬛ cat", "🐈‍⬛ cat"),
        ("a\u2028b", "a b"),
    ],
)
def test_odd_names_are_kept_or_cleaned(tmp_path: Path, name: str, desc: str) -> None:
    records, account = converted(tmp_path, coco([annotation()], None, [{"id": 1, "name": name}]))
    assert records[0]["objects"][0]["desc"] == desc
    assert sum(account.notes.values()) == (name != desc)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cat<|im_end|>", "label holds a control token of the model; rename the category"),
        ("<|coord_5|>", "label holds a control token of the model; rename the category"),
        (" \n", "empty label"),
        ("\ud800", "label is no valid Unicode"),
    ],
)
def test_names_that_a_record_cannot_hold_are_dropped(tmp_path: Path, name: str, reason: str) -> None:
    categories = [{"id": 1, "name": name}, {"id": 2, "name": "dog"}]
    records, account = converted(tmp_path, coco([annotation(), annotation(id=2, category_id=2)], None, categories))
    assert [item["desc"] for item in records[0]["objects"]] == ["dog"]
    assert account.objects.dropped == {reason: 1}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"images": [', "not JSON: Expecting value: line 1 column 13 (char 12); is the file cut off?"),
        (b'{"images": [{"id": 1, "file_name": "\xff"}]}', "not UTF-8: invalid start byte; save the file as UTF-8"),
        (
            b'{"images": [], "annotations": [{"image_id": "\xff", "bbox": []}], "categories": []}',
            "not UTF-8: invalid start byte; save the file as UTF-8",
        ),
        (
            b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "\xff"}]}',
            "not UTF-8: invalid start byte; save the file as UTF-8",
        ),
        (b'{"images": [NaN, "\xff"]}', "not UTF-8: invalid start byte at byte 18; save the file as UTF-8"),
        (b"[" * 100_000, "not JSON: nested too deep"),
        (b"[]", "holds no JSON object; a list of detections is a COCO results file, not instances"),
        (b'{"images": {}}', "has no list 'images'; is this a COCO instances file?"),
        (b"{}", "has no list 'images'; is this a COCO instances file?"),
        (b"", "not JSON: Expecting value: line 1 column 1 (char 0); is the file cut off?"),
    ],
)
def test_a_file_that_is_none_is_an_error(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(InputError) as caught:
        run(tmp_path / "a.json", "coco", tmp_path / "out.jsonl")
    assert str(caught.value).splitlines()[0] == f"{tmp_path / 'a.json'}: {message}"
    assert not (tmp_path / "out.jsonl").exists()


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.json: cannot be opened: no such file or directory"):
        run(tmp_path / "no.json", "coco", tmp_path / "out.jsonl")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(coco([annotation()])), encoding=encoding)
    records, _ = records_of(tmp_path / "a.json", "coco", tmp_path)
    assert len(records[0]["objects"]) == 1


def test_a_file_without_annotations_says_nothing_of_its_images(tmp_path: Path) -> None:
    content = coco([])
    del content["annotations"]
    with pytest.raises(InputError, match="the file has no list 'annotations': nothing says what is on its images"):
        converted(tmp_path, content)


# --- there and back -------------------------------------------------------------------------------------------------


def key_of(item: dict[str, Any]) -> tuple[Any, ...]:
    return item["image_id"], item["category_id"], item["iscrowd"], *(round(value, 6) for value in item["bbox"])


@pytest.mark.parametrize("space", ["pixel", "norm1"])
def test_real_coco_survives_the_way_to_records_and_back(tmp_path: Path, space: str) -> None:
    there = run(REAL_COCO, "coco", tmp_path / "records.jsonl", space=space)
    assert (there.objects.read, there.objects.written, there.objects.carried) == (839, 830, {"crowd": 9})
    run(
        tmp_path / "records.jsonl", "records", tmp_path / "back.json", to="coco", from_space=space, categories=REAL_COCO
    )
    before, after = (json.loads(path.read_text()) for path in (REAL_COCO, tmp_path / "back.json"))
    assert sorted(map(key_of, after["annotations"])) == sorted(map(key_of, before["annotations"]))
    assert {image["id"] for image in after["images"]} == {image["id"] for image in before["images"]}


def test_the_way_back_through_bins_costs_half_a_bin(tmp_path: Path) -> None:
    run(REAL_COCO, "coco", tmp_path / "bins.jsonl", space="bin")
    options = {"from_space": "bin", "from_quantisation": "nearest_999"}
    run(tmp_path / "bins.jsonl", "records", tmp_path / "pixels.jsonl", **options)
    run(REAL_COCO, "coco", tmp_path / "exact.jsonl")
    worst = 0.0
    for given, exact in zip(read_lines(tmp_path / "pixels.jsonl"), read_lines(tmp_path / "exact.jsonl"), strict=True):
        size = [exact["width"], exact["height"]] * 2
        for a, b in zip(given["objects"], exact["objects"], strict=True):
            errors = [abs(x - y) / edge * 999 for x, y, edge in zip(a["bbox_2d"], b["bbox_2d"], size, strict=True)]
            worst = max(worst, *errors)
    assert 0.45 < worst <= 0.5 + 1e-9


def test_categories_of_a_written_file_are_numbered_by_name(tmp_path: Path) -> None:
    categories = [{"id": 5, "name": "dog"}, {"id": 9, "name": "cat"}]
    content = coco([annotation(category_id=5), annotation(id=2, category_id=9)], None, categories)
    run(write_json(tmp_path / "a.json", content), "coco", tmp_path / "b.json", to="coco")
    written = json.loads((tmp_path / "b.json").read_text())
    assert written["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [item["category_id"] for item in written["annotations"]] == [2, 1]


def test_a_label_that_the_given_categories_lack_is_counted(tmp_path: Path) -> None:
    given = write_json(tmp_path / "categories.json", {"categories": [{"id": 1, "name": "cat"}]})
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 100, "height": 80} for n in (7, 8, 9)]
    shown = [annotation(), annotation(id=2, category_id=2), annotation(id=3, category_id=2, image_id=8)]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    source = write_json(tmp_path / "a.json", coco(shown, images, categories))
    account = run(source, "coco", tmp_path / "b.json", to="coco", categories=given)
    reason = "none of its labels is among the given categories"
    assert account.objects.dropped == {
        "label is not among the given categories": 1,
        f"image dropped: {reason}": 1,
    }
    assert account.images.dropped == {reason: 1}
    assert [image["id"] for image in json.loads((tmp_path / "b.json").read_text())["images"]] == [7, 9]


def test_a_polygon_comes_back_with_its_area(tmp_path: Path) -> None:
    triangle = [10.0, 20.0, 40.0, 20.0, 10.0, 60.0]
    source = write_json(tmp_path / "a.json", coco([annotation(segmentation=[triangle])]))
    run(source, "coco", tmp_path / "b.json", to="coco", geometry="poly")
    item = json.loads((tmp_path / "b.json").read_text())["annotations"][0]
    assert item["segmentation"] == [triangle]
    assert (item["bbox"], item["area"]) == ([10, 20, 30, 40], 600)


def test_pycocotools_reads_what_is_written(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    run(REAL_COCO, "coco", tmp_path / "b.json", to="coco")
    loaded = COCO(str(tmp_path / "b.json"))
    assert len(loaded.getAnnIds()) == 839
    assert len(loaded.getAnnIds(iscrowd=True)) == 9


# --- what evaluation reads ------------------------------------------------------------------------------------------

TWO = [{"id": 1, "name": "cat", "frequency": "f"}, {"id": 2, "name": "hot  dog", "frequency": "r"}]


def test_areas_that_are_not_the_boxes_are_carried(tmp_path: Path) -> None:
    found = [
        annotation(area=600.5),
        annotation(id=2, area=1200),
        annotation(id=3),
        annotation(id=4, area=50, iscrowd=1),
    ]
    records, account = converted(tmp_path, coco(found))
    assert records[0]["metadata"]["object_areas"] == [600.5, None, None]
    assert account.notes == {}


def test_areas_keep_to_their_objects(tmp_path: Path) -> None:
    """Dropped and cut objects take nothing from the others; through records and back to COCO."""
    found = [
        annotation(area=1),
        annotation(id=2, bbox=[10, 20, 0, 5], area=2),
        annotation(id=3, bbox=[90, 20, 30, 40], area=3),
        annotation(id=4),
    ]
    source = write_json(tmp_path / "instances.json", coco(found))
    for space in ("pixel", "bin"):
        run(source, "coco", tmp_path / "one.jsonl", space=space, overwrite=True)
        back = {"from_space": space, "from_quantisation": "nearest_999" if space == "bin" else None}
        run(tmp_path / "one.jsonl", "records", tmp_path / "two.jsonl", overwrite=True, **back)
        for path in ("one.jsonl", "two.jsonl"):
            assert read_lines(tmp_path / path)[0]["metadata"]["object_areas"] == [1, 3, None]
    run(tmp_path / "two.jsonl", "records", tmp_path / "back.json", to="coco", from_space="pixel")
    assert [item["area"] for item in json.loads((tmp_path / "back.json").read_text())["annotations"][:2]] == [1, 3]


@pytest.mark.parametrize("area", [0, -5, "12", [], True, NAN, 1e300])
def test_an_area_that_is_none_is_counted(tmp_path: Path, area: Any) -> None:
    records, account = converted(tmp_path, coco([annotation(area=area)]))
    assert records[0]["metadata"] == {"image_id": 7}
    assert account.notes == {"area that is no number above 0: its box's counts": 1}


def test_areas_of_records_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    record = {"images": ["a.jpg"], "width": 100, "height": 80, "objects": [{"desc": "cat", "bbox_2d": [1, 2, 3, 4]}]}
    for areas in ([1, 2], 5, ["1"], [-1]):
        source = write_json(tmp_path / "a.jsonl", record | {"metadata": {"object_areas": areas}})
        records, account = records_of(source, "records", tmp_path, from_space="pixel")
        assert "metadata" not in records[0]
        assert list(account.notes) == [
            "metadata.object_areas that are not an area or null for each object: not carried"
        ]


def test_lvis_frequencies_are_those_of_the_labels_that_are_there(tmp_path: Path) -> None:
    """Labels are written as objects have them, and ids may be of another type than the categories'."""
    image = {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80}
    image |= {"neg_category_ids": ["2"], "not_exhaustive_category_ids": []}
    records, _ = records_of(write_json(tmp_path / "a.json", coco([annotation()], [image], TWO)), "lvis", tmp_path)
    expected = {"image_id": 7, "absent_categories": ["hot dog"], "category_frequencies": {"cat": "f"}}
    assert records[0]["metadata"] == expected


def test_an_lvis_image_of_empty_lists_says_that_it_looked_for_nothing_else(tmp_path: Path) -> None:
    image = {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80}
    image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    records, _ = records_of(write_json(tmp_path / "a.json", coco([annotation()], [image])), "lvis", tmp_path)
    assert records[0]["metadata"] == {"image_id": 7, "absent_categories": []}


@pytest.mark.parametrize("frequency", ["x", None, 3, ["f"]])
def test_a_frequency_that_is_none_of_lvis_is_left_out(tmp_path: Path, frequency: Any) -> None:
    categories = [{"id": 1, "name": "cat", "frequency": frequency}]
    records, _ = converted(tmp_path, coco([annotation()], None, categories))
    assert records[0]["metadata"] == {"image_id": 7}


def test_fractions_that_are_read_as_pixels_are_told(tmp_path: Path) -> None:
    source = write_json(tmp_path / "a.json", coco([annotation(bbox=[0.1, 0.2, 0.3, 0.4])]))
    _, account = records_of(source, "coco", tmp_path)
    assert [key.partition(":")[0] for key in account.notes] == ["all shapes of an image within one pixel"]
