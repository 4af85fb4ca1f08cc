"""Label Studio's exports: percent, rotation, which annotation counts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from conversion_support import records_of, write_image, write_json, write_lines

from coordcore import InputError


def region(kind: str = "rectanglelabels", labels: Any = ("valve",), **value: Any) -> dict[str, Any]:
    return {
        "original_width": 200,
        "original_height": 100,
        "image_rotation": 0,
        "value": {kind: list(labels), **value},
        "type": kind,
    }


BOX = {"x": 10.0, "y": 20.0, "width": 30.0, "height": 40.0}


def task(*results: Any, image: str = "/data/upload/18/0f61-a.jpg", **more: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "data": {"image": image},
        "annotations": [{"was_cancelled": False, "result": list(results)}],
        **more,
    }


def convert(tmp_path: Path, *tasks: Any, **options: Any) -> tuple[list[Any], Any]:
    return records_of(write_json(tmp_path / "a.json", list(tasks)), "label_studio", tmp_path, **options)


def test_percent_of_the_image(tmp_path: Path) -> None:
    records, _ = convert(tmp_path, task(region(**BOX)))
    assert records == [
        {
            "images": ["18/0f61-a.jpg"],
            "width": 200,
            "height": 100,
            "objects": [{"desc": "valve", "bbox_2d": [20, 20, 80, 60]}],
            "metadata": {"image_id": 7},
        }
    ]


@pytest.mark.parametrize(
    ("angle", "box"),
    [
        (90, [20 - 20, 50, 20, 50 + 20]),  # clockwise about the top left corner, of pixels and not of percent
        (0, [20, 50, 40, 70]),
        (45, [20 - 20 / math.sqrt(2), 50, 20 + 20 / math.sqrt(2), 50 + 20 * math.sqrt(2)]),
        (30, [10, 50, 20 + 20 * math.cos(math.pi / 6), 50 + 20 * (math.cos(math.pi / 6) + 0.5)]),
    ],
)
def test_a_rectangle_turns_about_its_top_left_corner(tmp_path: Path, angle: float, box: list[float]) -> None:
    records, _ = convert(tmp_path, task(region(x=10, y=50, width=10, height=20, rotation=angle)))
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx(box)


def test_a_turned_rectangle_is_cut_before_it_is_enclosed(tmp_path: Path) -> None:
    # 100 x 20 pixels turned by 45 degrees from (0, 90): most of it is below the image of 200 x 100.
    records, _ = convert(tmp_path, task(region(x=0, y=90, width=50, height=20, rotation=45)))
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([0, 90, 10, 100])


def test_other_shapes(tmp_path: Path) -> None:
    records, _ = convert(
        tmp_path,
        task(
            region("polygonlabels", points=[[0, 0], [50, 0], [50, 50]]),
            region("ellipselabels", x=50, y=50, radiusX=10, radiusY=20),
            region("keypointlabels", x=50, y=50, width=0.5),
        ),
    )
    assert [item["bbox_2d"] for item in records[0]["objects"]] == [[0, 0, 100, 50], pytest.approx([80, 30, 120, 70])]
    assert records[0]["metadata"]["points"] == [{"desc": "valve", "points": [100, 50]}]


def test_a_region_with_several_labels_is_several_objects(tmp_path: Path) -> None:
    records, _ = convert(tmp_path, task(region(labels=("a", "b"), **BOX)))
    assert [item["desc"] for item in records[0]["objects"]] == ["a", "b"]


def test_the_last_annotation_that_was_not_cancelled_counts(tmp_path: Path) -> None:
    given = task(region(labels=("first",), **BOX))
    given["annotations"] += [
        {"result": [region(labels=("second",), **BOX)]},
        {"was_cancelled": True, "result": [region(labels=("third",), **BOX)]},
    ]
    records, _ = convert(tmp_path, given)
    assert [item["desc"] for item in records[0]["objects"]] == ["second"]


@pytest.mark.parametrize("kind", ["bitmask", "vector", "videorectangle"])
def test_a_region_of_no_geometry_of_ours_is_counted(tmp_path: Path, kind: str) -> None:
    records, account = convert(tmp_path, task(region(**BOX), {"type": kind, "value": {"rle": [0]}}))
    assert len(records[0]["objects"]) == 1
    assert (account.objects.read, account.objects.dropped) == (2, {f"{kind}: records have no such geometry": 1})


def test_a_whole_turn_is_none(tmp_path: Path) -> None:
    write_image(tmp_path / "18" / "0f61-a.jpg", 200, 100)
    given = region(**BOX, rotation=360)
    del given["original_width"]
    records, account = convert(tmp_path, task(given), images=tmp_path)
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([20, 20, 80, 60])
    assert "rotated box: its enclosing box is written" not in account.notes


CHOICE = {"type": "choices", "value": {"choices": ["blurred"]}}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (task() | {"annotations": []}, "task not annotated"),
        (
            task() | {"annotations": [], "predictions": [{"result": [region(**BOX)]}]},
            "task not annotated, only predicted",
        ),
        (task() | {"annotations": [{"was_cancelled": True, "result": []}]}, "task skipped by the annotator"),
        (task() | {"annotations": [{"skipped": True, "result": []}]}, "task skipped by the annotator"),
        (task() | {"annotations": [{"id": 1}]}, "annotation without a list of results"),
        (task() | {"annotations": [{"result": None}]}, "annotation without a list of results"),
        (
            task() | {"annotations": [{"result": [region(**BOX)]}, {"result": []}]},
            "annotations of which the last has no regions, and others have",
        ),
        (task(region("bitmasklabels", imageDataURL="data:")), "all of its objects were dropped"),
        (task(CHOICE), "annotation without a region, but with choices or texts"),
        (task(region("brushlabels", format="rle", rle=[0])), "all of its objects were dropped"),
        (task(region("brushlabels")), "all of its objects were dropped"),
        (task(region(**BOX) | {"image_rotation": 90}), "image that was turned in Label Studio"),
        (task(region(**BOX), region(**BOX) | {"original_width": 10}), "regions of one image with different sizes"),
        (task(region(**BOX)) | {"data": {"text": "x"}}, "task without the path of one image"),
        (task(region(**BOX)) | {"data": {"a": "a.jpg", "b": "b.jpg"}}, "task without the path of one image"),
        (task(region("keypointlabels", x=50, y=50)), "only points"),
        ({"id": 1, "image": "a.jpg"}, "task of JSON-MIN without regions"),
        (7, "expected object, got int"),
    ],
)
def test_what_says_nothing_of_where_is_dropped(tmp_path: Path, bad: Any, reason: str) -> None:
    for path in ("18/0f61-a.jpg", "a.jpg"):
        write_image(tmp_path / path, 200, 100)
    records, account = convert(tmp_path, task(region(**BOX)), bad, images=tmp_path)
    assert (len(records), [key.startswith(reason) for key in account.images.dropped]) == (1, [True])


def test_two_ellipses_of_json_min_that_differ_one_way_are_two(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", 200, 100)
    round_ = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 5, "ellipselabels": ["valve"], "original_width": 200}
    regions = [round_ | {"original_height": 100}, round_ | {"original_height": 100, "radiusY": 10}]
    records, account = convert(tmp_path, {"id": 1, "image": "a.jpg", "label": regions}, images=tmp_path)
    assert [item["bbox_2d"] for item in records[0]["objects"]] == [[80, 45, 120, 55], [80, 40, 120, 60]]
    assert account.objects.read == 2


def test_an_annotation_without_regions_is_empty(tmp_path: Path) -> None:
    write_image(tmp_path / "18" / "0f61-a.jpg", 200, 100)
    records, _ = convert(tmp_path, task(), images=tmp_path)
    assert records[0]["objects"] == []


def test_json_min_and_lines(tmp_path: Path) -> None:
    given = {
        "id": 7,
        "image": "/data/local-files/?d=set/a%20b.jpg",
        "annotator": 1,
        "annotation_id": 3,
        "label": [{**BOX, "rotation": 0, "rectanglelabels": ["valve"], "original_width": 200, "original_height": 100}],
    }
    records, _ = records_of(write_lines(tmp_path / "a.jsonl", given), "label_studio", tmp_path)
    assert (records[0]["images"], records[0]["objects"]) == (
        ["set/a b.jpg"],
        [{"desc": "valve", "bbox_2d": [20, 20, 80, 60]}],
    )


SHAPES: tuple[tuple[str, dict[str, Any], list[float]], ...] = (
    ("rectangle", BOX, [20, 20, 80, 60]),
    ("polygon", {"points": [[10, 10], [20, 10], [20, 20]]}, [20, 10, 40, 20]),
    ("ellipse", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20}, [80, 30, 120, 70]),
)


@pytest.mark.parametrize(("kind", "value", "box"), SHAPES)
@pytest.mark.parametrize("turned", [False, True])
def test_results_of_one_id_are_one_region(
    tmp_path: Path, kind: str, value: dict[str, Any], box: list[float], turned: bool
) -> None:
    shape = region(kind, (), **value) | {"id": "r"}
    del shape["value"][kind]
    said = region("labels", ("cup", "red"), **value) | {"id": "r"}
    alike = region("labels", ("dog",), **value) | {"id": "s"}
    choice = {"id": "r", "type": "choices", "value": {**value, "choices": ["blurred"]}}
    pair = [said, shape] if turned else [shape, said]
    records, account = convert(tmp_path, task(*pair, choice, alike))
    assert [(item["desc"], item["bbox_2d"]) for item in records[0]["objects"]] == [
        (label, pytest.approx(box)) for label in ("cup", "red", "dog")
    ]
    assert (account.objects.read, account.objects.dropped) == (3, {})


@pytest.mark.parametrize(("kind", "value", "box"), SHAPES)
def test_regions_of_json_min_with_the_same_numbers_are_one(
    tmp_path: Path, kind: str, value: dict[str, Any], box: list[float]
) -> None:
    size = {"original_width": 200, "original_height": 100}
    given = {"id": 7, "image": "a.jpg", "shape": [value | size], "label": [{**value, **size, "labels": ["cup"]}]}
    records, account = convert(tmp_path, given)
    assert [(item["desc"], item["bbox_2d"]) for item in records[0]["objects"]] == [("cup", pytest.approx(box))]
    assert (account.objects.read, account.objects.dropped) == (1, {})


def test_a_region_of_one_id_without_a_label_is_dropped_once(tmp_path: Path) -> None:
    bare = {"id": "r", "type": "rectangle", "value": BOX, "original_width": 200, "original_height": 100}
    _, account = convert(tmp_path, task(region(**BOX), bare, bare, {"id": "r", "type": "rectangle", "value": None}))
    assert (account.objects.read, sum(account.objects.dropped.values())) == (3, 2)


def test_an_id_of_several_places_is_that_of_several_regions(tmp_path: Path) -> None:
    records, _ = convert(tmp_path, task(*(region(**BOX | {"x": x}) | {"id": "r"} for x in (10, 20))))
    assert [item["bbox_2d"] for item in records[0]["objects"]] == [[20, 20, 80, 60], [40, 20, 100, 60]]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://host/bucket/a%20b.jpg?X-Sig=1", "bucket/a b.jpg"),
        ("s3://bucket/x/a.jpg", "x/a.jpg"),
        ("C:\\pictures\\a.jpg", "C:/pictures/a.jpg"),
        ("a.jpg", "a.jpg"),
    ],
)
def test_image_paths(tmp_path: Path, url: str, path: str) -> None:
    records, _ = convert(tmp_path, task(region(**BOX), image=url))
    assert records[0]["images"] == [path]


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"image": "s3://bucket/x/a.jpg", "filename": "a.jpg"}, "x/a.jpg"),
        ({"photo": "x/a.jpg", "name": "a.jpg"}, "x/a.jpg"),
        ({"image": "https://host/serve?id=5", "name": "a.jpg"}, "a.jpg"),
    ],
)
def test_an_image_beside_other_names_of_files(tmp_path: Path, data: dict[str, str], path: str) -> None:
    given = task(region(**BOX))
    given["data"] = data
    records, _ = convert(tmp_path, given)
    assert [record["images"] for record in records] == [[path]]


@pytest.mark.parametrize(
    "data",
    [
        {"left": "x/a.jpg", "right": "y/a.jpg"},
        {"image": "s3://k/a.jpg", "image2": "s3://k/b.jpg"},
        {"before": "s3://k/1.jpg", "after": "s3://k/after/1.jpg"},
        {"image": "a.jpg", "mask": "a_mask.png"},
    ],
)
def test_two_images_of_one_task_are_told_apart_by_nothing(tmp_path: Path, data: dict[str, str]) -> None:
    given = task(region(**BOX))
    given["data"] = data
    with pytest.raises(InputError, match="1  task without the path of one image"):
        convert(tmp_path, given)
