"""Records that ask, to COCO: one image for all of its records, and what a COCO file cannot say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conversion_support import run, write_lines

from coordcore import InputError
from coordcore_data.convert.core import Account

CAT, DOG = {"desc": "cat", "bbox_2d": [1, 2, 30, 40]}, {"desc": "dog", "bbox_2d": [5, 6, 70, 60]}


def asking(tmp_path: Path, *rows: dict[str, Any], **options: Any) -> tuple[list[tuple[str, list[str]]], Account]:
    """File names of the images in order, each with the names of its annotations."""
    given = [{"images": ["a.jpg"], "width": 100, "height": 80, "objects": [], **row} for row in rows]
    source = write_lines(tmp_path / "tasks.jsonl", *given)
    account = run(source, "records", tmp_path / "c.json", to="coco", from_space="pixel", overwrite=True, **options)
    written = json.loads((tmp_path / "c.json").read_text())
    names = {item["id"]: item["name"] for item in written["categories"]}
    found = {item["id"]: (item["file_name"], []) for item in written["images"]}
    for item in written["annotations"]:
        found[item["image_id"]][1].append(names[item["category_id"]])
    return list(found.values()), account


def test_records_of_an_image_are_one_image_of_coco(tmp_path: Path) -> None:
    """Of what several records say, nothing is there twice, but for what one record says twice."""
    images, account = asking(
        tmp_path,
        {"objects": [CAT, CAT]},
        {"objects": [CAT, DOG], "task": "named", "categories": ["cat", "dog"]},
        {"images": ["b.jpg"], "objects": [DOG], "question": "All of it?"},
        {"objects": [CAT, CAT, CAT]},
    )
    assert images == [("a.jpg", ["cat", "cat", "dog", "cat"]), ("b.jpg", ["dog"])]
    assert (account.images.read, account.images.written, account.images.carried) == (4, 2, {"merged": 2})
    assert account.objects.dropped == {"in several records of its image: written once": 3}
    assert account.notes == {
        'the task "named": a COCO file does not say which categories were looked for': 1,
        "question: a COCO file asks none": 1,
        "image file in several records": 1,
    }
    assert account.lines()[0].split() == ["read", "written", "merged", "dropped"]


def test_polygons_and_quads_are_segmentations_without_asking(tmp_path: Path) -> None:
    quad, poly = [20, 10, 60, 20, 50, 50, 10, 40], [10, 0, 30, 0, 30, 40]
    point = {"desc": "eye", "point": [5, 6]}
    objects = [CAT, {"desc": "sign", "quad": quad}, {"desc": "tree", "poly": poly}, point]
    images, account = asking(tmp_path, {"objects": objects})
    assert images == [("a.jpg", ["cat", "sign", "tree"])]
    written = json.loads((tmp_path / "c.json").read_text())
    assert [item.get("segmentation") for item in written["annotations"]] == [None, [quad], [poly]]
    assert [item["area"] for item in written["annotations"]] == [29 * 38, 1300, 400]
    assert [item["name"] for item in written["categories"]] == ["cat", "sign", "tree"]
    assert account.objects.dropped == {"points: COCO's keypoints belong to a box": 1}


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("refer", {"objects": [CAT], "question": "the left one"}),
        ("refer", {"question": "the right one"}),
        ("point", {"objects": [{"desc": "cat", "point": [4, 5]}], "question": "its eye"}),
        ("region", {"objects": [CAT], "answer": "a cat"}),
        ("caption", {"answer": "A cat."}),
        ("chat", {"question": "How many?", "answer": "One."}),
    ],
)
@pytest.mark.parametrize("geometry", ["box", "point"])
def test_what_coco_cannot_say_is_dropped_by_the_name_of_its_task(
    tmp_path: Path, task: str, row: dict[str, Any], geometry: str
) -> None:
    images, account = asking(
        tmp_path, {"task": task, **row}, {"images": ["b.jpg"], "objects": [CAT]}, geometry=geometry
    )
    assert images == [("b.jpg", ["cat"])]
    assert sum(account.images.dropped.values()) == 1
    if task != "point" or geometry == "point":
        assert account.images.dropped == {f'the task "{task}", which a COCO file cannot say': 1}
    with pytest.raises(InputError, match="no image is left to write"):
        asking(tmp_path, {"task": task, **row}, geometry=geometry)


def test_an_image_where_some_categories_are_absent_is_no_empty_one(tmp_path: Path) -> None:
    absent = {"task": "named", "categories": ["cat"]}
    images, account = asking(tmp_path, absent, {**absent, "images": ["b.jpg"]}, {"images": ["b.jpg"]})
    assert images == [("b.jpg", [])]
    assert account.images.dropped == {"asked for some categories, and none is there: COCO would say that nothing is": 1}
    images, account = asking(tmp_path, absent, {**absent, "categories": ["dog"], "objects": [DOG]})
    assert images == [("a.jpg", ["dog"])]


def test_records_of_an_image_with_other_sizes_or_ids_are_not_merged(tmp_path: Path) -> None:
    images, account = asking(
        tmp_path,
        {"objects": [CAT], "metadata": {"image_id": 3}},
        {"objects": [DOG], "metadata": {"image_id": 4}},
        {"objects": [DOG], "task": "named", "width": 99},
        {"objects": [DOG], "task": "named", "metadata": {"image_id": 3}},
    )
    assert images == [("a.jpg", ["cat", "dog"]), ("a.jpg", ["dog"])]
    assert account.images.dropped == {"of another size than an earlier record of its image": 1}
    assert [item["id"] for item in json.loads((tmp_path / "c.json").read_text())["images"]] == [3, 4]


def test_an_image_of_points_alone_is_no_empty_one(tmp_path: Path) -> None:
    images, account = asking(
        tmp_path, {"objects": [{"desc": "eye", "point": [4, 5]}]}, {"images": ["b.jpg"]}, geometry="point"
    )
    assert images == [("b.jpg", [])]
    assert account.images.dropped == {"points: COCO's keypoints belong to a box": 1}


def test_an_object_of_several_records_keeps_the_keypoints_and_the_area_that_one_of_them_has(tmp_path: Path) -> None:
    further = {"objects": [CAT | {"keypoints": [5, 6, 2]}], "metadata": {"object_areas": [700.0]}}
    for rows in ([{"objects": [CAT]}, further], [further, {"objects": [CAT]}]):
        asking(tmp_path, *rows, keypoints=True)
        [written] = json.loads((tmp_path / "c.json").read_text())["annotations"]
        assert (written["keypoints"], written["num_keypoints"], written["area"]) == ([5, 6, 2], 1, 700)


def test_an_image_of_which_points_alone_have_a_given_category_is_no_empty_one(tmp_path: Path) -> None:
    (tmp_path / "known.json").write_text('{"categories": [{"id": 7, "name": "eye"}]}')
    rows = {"objects": [{"desc": "eye", "point": [4, 5]}, DOG]}, {"images": ["b.jpg"]}
    images, account = asking(tmp_path, *rows, geometry="point", categories=tmp_path / "known.json")
    assert images == [("b.jpg", [])]
    assert account.images.dropped == {"none of its labels is among the given categories": 1}
