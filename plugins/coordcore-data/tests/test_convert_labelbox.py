"""Labelbox's NDJSON: boxes, polygons and points in pixels; which label of a data row counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conversion_support import records_of, run, why_dropped, write_json, write_lines, write_zip

from coordcore import InputError

BOX = {
    "feature_id": "ckz1",
    "feature_schema_id": "ckz2",
    "name": "Dog",
    "value": "dog",
    "annotation_kind": "ImageBoundingBox",
    "classifications": [],
    "bounding_box": {"top": 20.0, "left": 10.0, "height": 30.0, "width": 40.0},
}
POINT = {"name": "Nose", "annotation_kind": "ImagePoint", "point": {"x": 5.0, "y": 6.0}}


def polygon(*points: tuple[float, float]) -> dict[str, Any]:
    listed = [{"x": x, "y": y} for x, y in points]
    return {"name": "Leaf", "value": "leaf", "annotation_kind": "ImagePolygon", "polygon": listed}


def label(*objects: Any, classifications: Any = (), **more: Any) -> dict[str, Any]:
    found = {"objects": list(objects), "classifications": list(classifications), "relationships": []}
    return {"label_kind": "Default", "version": "1.0.0", "id": "ckz3", "annotations": found, **more}


def row(*labels: Any, **data_row: Any) -> dict[str, Any]:
    return {
        "data_row": {"id": "ckz4", "external_id": "a.jpg", "row_data": "https://storage.labelbox.com/x%20y.jpg"}
        | data_row,
        "media_attributes": {"height": 80, "width": 100, "mime_type": "image/jpeg", "exif_rotation": "1"},
        "attachments": [],
        "metadata_fields": [],
        "projects": {"ckz5": {"name": "dogs", "labels": list(labels), "project_details": {"ontology_id": "ckz6"}}},
    }


def convert(tmp_path: Path, *rows: Any, **options: Any) -> tuple[list[Any], Any]:
    return records_of(write_lines(tmp_path / "export.ndjson", *rows), "labelbox", tmp_path, **options)


def test_an_export(tmp_path: Path) -> None:
    leaf = polygon((10, 10), (60, 10), (35, 70), (10, 10))
    records, account = convert(tmp_path, row(label(BOX, leaf, POINT)), row(label(), external_id="b.jpg"))
    assert records == [
        {
            "images": ["a.jpg"],
            "width": 100,
            "height": 80,
            "objects": [{"desc": "Dog", "bbox_2d": [10, 20, 50, 50]}, {"desc": "Leaf", "bbox_2d": [10, 10, 60, 70]}],
            "metadata": {"points": [{"desc": "Nose", "points": [5, 6]}]},
        },
        {"images": ["b.jpg"], "width": 100, "height": 80, "objects": []},
    ]
    assert why_dropped(account) == []


def test_a_polygon_is_cut_before_it_is_enclosed(tmp_path: Path) -> None:
    records, _ = convert(tmp_path, row(label(polygon((120, 0), (80, 40), (120, 80)))))
    assert records[0]["objects"] == [{"desc": "Leaf", "bbox_2d": [80, 20, 100, 60]}]


@pytest.mark.parametrize(
    ("names", "path"),
    [
        ({}, "a.jpg"),
        ({"external_id": None, "global_key": "sets/g.jpg"}, "sets/g.jpg"),
        ({"external_id": ""}, "x y.jpg"),
        ({"external_id": None, "row_data": "https://h/b/c.png?Signature=q"}, "b/c.png"),
        ({"external_id": "C:\\set\\a.jpg"}, "C:/set/a.jpg"),
    ],
)
def test_image_paths(tmp_path: Path, names: dict[str, Any], path: str) -> None:
    records, _ = convert(tmp_path, row(label(BOX), **names))
    assert records[0]["images"] == [path]


def test_the_benchmark_of_several_labels_counts(tmp_path: Path) -> None:
    marked = label(BOX, label_details={"is_benchmark_reference": True})
    records, account = convert(tmp_path, row(label(POINT), marked), row(label(POINT), label(BOX), external_id="b.jpg"))
    assert [(record["images"], len(record["objects"])) for record in records] == [(["a.jpg"], 1)]
    assert list(account.images.dropped) == [
        "data row with several labels: export one project, and only the label that counts"
    ]


def test_arrays_and_archives(tmp_path: Path) -> None:
    records, _ = records_of(write_json(tmp_path / "a.json", [row(label(BOX))]), "labelbox", tmp_path)
    assert len(records[0]["objects"]) == 1
    source = write_zip(tmp_path / "a.zip", {"export-result.ndjson": json.dumps(row(label(BOX)))})
    records, _ = records_of(source, "labelbox", tmp_path)
    assert len(records[0]["objects"]) == 1


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"name": "a", "annotation_kind": "ImagePolyline", "line": []}, "ImagePolyline: records have no such"),
        ({"name": "a", "annotation_kind": "ImageSegmentationMask", "mask": {}}, "ImageSegmentationMask: records have"),
        ({"name": "a"}, "object without a geometry"),
        (BOX | {"bounding_box": {"top": 1, "left": 2, "height": 3}}, "object not readable: bounding_box: object miss"),
        (BOX | {"bounding_box": [1, 2, 3, 4]}, "object not readable: bounding_box: expected object"),
        (BOX | {"bounding_box": {"top": 20, "left": 10, "height": 0, "width": 5}}, "no extent"),
        (BOX | {"bounding_box": {"top": 20, "left": 10, "height": -9, "width": 5}}, "negative width or height"),
        (BOX | {"bounding_box": {"top": 200, "left": 10, "height": 9, "width": 5}}, "lies outside the image"),
        (BOX | {"name": None}, "no label"),
        (BOX | {"name": "<|im_start|>"}, "label holds a control token"),
        (polygon((1, 2), (3, 4)), "polygon of fewer than 3 points"),
        (polygon((1, 2), (3, float("nan")), (5, 6)), "a coordinate is NaN or infinite"),
        ("dog", "object not readable: expected object"),
    ],
)
def test_an_image_that_lost_its_object_is_no_record(tmp_path: Path, bad: Any, reason: str) -> None:
    records, account = convert(tmp_path, row(label(bad)), row(label(BOX), external_id="b.jpg"))
    assert [record["images"] for record in records] == [["b.jpg"]]
    images, objects = why_dropped(account)
    assert (images, objects.startswith(reason)) == ("all of its objects were dropped", True)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(), "data row without a label: not annotated"),
        (row() | {"projects": {}}, "data row without a label: not annotated"),
        (row(label(classifications=[{"name": "night"}])), "label without an object, but with classifications"),
        (row(label(POINT)), "only points"),
        (row(label(performance_details={"skipped": True})), "data row that was skipped by the annotator"),
        (row({"annotations": {"frames": {"1": {}}, "segments": {}}}), "label without a list of objects"),
        (row({"annotations": [BOX]}), "projects[...].labels[...].annotations: expected object"),
        (row(label(BOX)) | {"media_attributes": {}}, "no size in the source"),
        (row(label(BOX), external_id=None, row_data=None), "no file name"),
        ("{", "not JSON"),
        ("7", "expected object, got int"),
    ],
)
def test_rows_that_are_dropped(tmp_path: Path, bad: Any, reason: str) -> None:
    records, account = convert(tmp_path, row(label(BOX), external_id="b.jpg"), bad)
    assert (len(records), [key.startswith(reason) for key in account.images.dropped]) == (1, [True])


def test_another_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Labelbox export of the first kind \(JSON\); export it as NDJSON"):
        run(write_json(tmp_path / "a.json", [{"Labeled Data": "x", "Label": {}}]), "labelbox", tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="no image is left to write"):
        run(write_lines(tmp_path / "b.ndjson", ""), "labelbox", tmp_path / "out.jsonl")
