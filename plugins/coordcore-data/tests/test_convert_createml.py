"""Create ML's JSON: centre and size, Apple's own keys and those of other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conversion_support import records_of, run, why_dropped, write_image, write_json, write_lines, write_zip

from coordcore import InputError


def annotation(label: Any = "cat", **coordinates: Any) -> dict[str, Any]:
    return {"label": label, "coordinates": {"x": 50, "y": 40, "width": 20, "height": 10} | coordinates}


def convert(tmp_path: Path, content: Any, **options: Any) -> tuple[list[Any], Any]:
    for name in ("a.png", "cat and dog.png"):
        write_image(tmp_path / name, 100, 200)
    return records_of(write_json(tmp_path / "annotations.json", content), "createml", tmp_path, **options)


def test_apples_own_example(tmp_path: Path) -> None:
    given = [
        {
            "imagefilename": "cat and dog.png",
            "annotation": [
                {"label": "cat", "coordinates": {"y": 22.0, "x": 13.9, "height": 40.1, "width": 20.0}},
                {"label": "dog", "coordinates": {"y": 60.0, "x": 38.9, "height": 100.1, "width": 70.0}},
            ],
        }
    ]
    records, account = convert(tmp_path, given)
    assert records == [
        {
            "images": ["cat and dog.png"],
            "width": 100,
            "height": 200,
            "objects": [
                {"desc": "cat", "bbox_2d": pytest.approx([3.9, 1.95, 23.9, 42.05])},
                {"desc": "dog", "bbox_2d": pytest.approx([3.9, 9.95, 73.9, 110.05])},
            ],
        }
    ]
    assert why_dropped(account) == []


def test_the_keys_of_other_tools_and_an_empty_image(tmp_path: Path) -> None:
    given = [{"image": "a.png", "annotations": [annotation(7)]}, {"image": "cat and dog.png", "annotations": []}]
    records, _ = convert(tmp_path, given)
    assert [record["objects"] for record in records] == [[{"desc": "7", "bbox_2d": [40, 35, 60, 45]}], []]


def test_fractions_when_said(tmp_path: Path) -> None:
    given = [{"image": "a.png", "annotations": [annotation(x=0.5, y=0.5, width=0.2, height=0.1)]}]
    records, _ = convert(tmp_path, given, from_space="norm1")
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([40, 90, 60, 110])
    with pytest.raises(InputError, match="--from-space bin: Create ML's numbers are pixels"):
        convert(tmp_path, given, from_space="bin")


def test_fractions_that_are_read_as_pixels_are_told(tmp_path: Path) -> None:
    given = [
        {"image": "a.png", "annotations": [annotation(x=0.5, y=0.5, width=0.2, height=0.1)] * 2},
        {"image": "cat and dog.png", "annotations": [annotation(x=0.5, y=0.5, width=1, height=1)]},
        {"image": "a.png", "annotations": [annotation(x=0.5, y=0.5, width=0.2, height=0.1), annotation()]},
    ]
    what = "all shapes of an image within one pixel: are these fractions? --from-space norm1 reads them, of formats"
    _, account = convert(tmp_path, given)
    assert {key: count for key, count in account.notes.items() if key.startswith(what)} == {
        f"{what} that take it; else multiply them by width and height": 1
    }
    _, account = convert(tmp_path, given[:1], from_space="norm1")
    assert not any(key.startswith(what) for key in account.notes)


def test_lines_and_archives(tmp_path: Path) -> None:
    row = {"image": "a.png", "annotations": [annotation()]}
    picture = write_image(tmp_path / "a.png", 100, 200)
    records, _ = records_of(write_lines(tmp_path / "rows.jsonl", row), "createml", tmp_path)
    assert records[0]["objects"][0]["bbox_2d"] == [40, 35, 60, 45]
    files = {"train/_annotations.createml.json": json.dumps([row]), "train/a.png": picture}
    records, _ = records_of(write_zip(tmp_path / "a.zip", files), "createml", tmp_path)
    assert records[0]["objects"][0]["bbox_2d"] == [40, 35, 60, 45]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"label": "cat"}, "annotation not readable: object missing required field coordinates"),
        ({"label": "cat", "coordinates": {"x": 1, "y": 2}}, "annotation not readable: coordinates: object missing"),
        ({"label": "cat", "coordinates": [1, 2, 3, 4]}, "annotation not readable: coordinates: expected object"),
        (annotation(width="wide"), "annotation not readable: coordinates.width: expected float"),
        (annotation(width=0), "no extent"),
        (annotation(width=-4), "negative width or height"),
        (annotation(x=500), "lies outside the image"),
        (annotation(x=float("inf")), "a coordinate is NaN or infinite"),
        (annotation(None), "no label"),
        (annotation("  "), "empty label"),
        (annotation("<|coord_5|>"), "label holds a control token"),
        ("cat", "annotation not readable: expected object, got str"),
    ],
)
def test_an_image_that_lost_its_box_is_no_record(tmp_path: Path, bad: Any, reason: str) -> None:
    rows = [{"image": "a.png", "annotations": [bad]}, {"image": "cat and dog.png", "annotations": [annotation()]}]
    records, account = convert(tmp_path, rows)
    assert [record["images"] for record in records] == [["cat and dog.png"]]
    images, objects = why_dropped(account)
    assert (images, objects.startswith(reason)) == ("all of its objects were dropped", True)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": "a.png"}, "row without a list of annotations"),
        ({"image": "a.png", "annotations": {"label": "cat"}}, "annotations: expected array"),
        ({"image": "no.png", "annotations": [annotation()]}, "image file missing"),
        ({"annotations": [annotation()]}, "no file name"),
        ({"image": 7, "annotations": [annotation()]}, "image: expected str"),
        (7, "expected object, got int"),
    ],
)
def test_rows_that_are_dropped(tmp_path: Path, row: Any, reason: str) -> None:
    records, account = convert(tmp_path, [{"image": "cat and dog.png", "annotations": [annotation()]}, row])
    assert (len(records), [key.startswith(reason) for key in account.images.dropped]) == (1, [True])


def test_another_kind_is_named(tmp_path: Path) -> None:
    source = write_json(tmp_path / "a.json", [{"image": "a", "conversations": []}])
    with pytest.raises(InputError, match=r"looks like chat rows.*--from swift"):
        run(source, "createml", tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="no image is left to write"):
        run(write_json(tmp_path / "b.json", []), "createml", tmp_path / "out.jsonl")
