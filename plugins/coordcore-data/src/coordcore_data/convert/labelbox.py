"""Labelbox's export: NDJSON, a data row on each line; shapes in pixels.

Boxes and polygons are read, points go under `metadata.points`; an object's label is the name of its feature. The path
of an image is its external id, else its global key, else the path of its URL.
A data row without a label has not been looked at and is dropped; so are labels that were skipped, those that hold
classifications only, and rows with several labels, unless one alone is marked as the benchmark. A label with neither
objects nor classifications says that nothing is there.
Not carried: masks and lines (dropped), videos, classifications, relationships.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from coordcore_data.convert.core import Account, Found, Reading, Shape, SourceImage
from coordcore_data.convert.text import UnreadableError, clean_path, count_in, json_rows, loose_structure, structure


class _DataRow(msgspec.Struct):
    external_id: str | None = None
    global_key: str | None = None
    row_data: str | None = None


class _Media(msgspec.Struct):
    width: float | None = None
    height: float | None = None


class _Annotations(msgspec.Struct):
    objects: list[Any] | None = None
    classifications: list[Any] | None = None


class _Details(msgspec.Struct):
    is_benchmark_reference: bool | None = None
    skipped: bool | None = None


class _Label(msgspec.Struct):
    annotations: _Annotations
    label_details: _Details | None = None
    performance_details: _Details | None = None


class _Project(msgspec.Struct):
    labels: list[_Label] = []


class _Row(msgspec.Struct):
    data_row: _DataRow
    media_attributes: _Media | None = None
    projects: dict[str, _Project] = {}


class _Box(msgspec.Struct):
    top: float
    left: float
    height: float
    width: float


class _Point(msgspec.Struct):
    x: float
    y: float


class _Object(msgspec.Struct):
    name: str | None = None
    annotation_kind: str | None = None
    bounding_box: _Box | None = None
    polygon: list[_Point] | None = None
    point: _Point | None = None


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError, while the images are read, when the file cannot be opened."""
    return Found(images=_images(source, account))


def _images(source: Path, account: Account) -> Iterator[SourceImage]:
    for where, parse in json_rows(source):  # one by one: embeddings make them long
        account.images.read += 1
        count = 0
        try:
            given = parse()
            count = _count(given)
            row: _Row = structure(given, _Row)
            objects = _objects(row)
        except UnreadableError as error:
            account.objects.read += count
            account.drop_image(error.reason, where, error.detail, objects=count)
            continue
        account.objects.read += len(objects)
        shapes = [
            shape
            for index, item in enumerate(objects)
            if (shape := _shape(item, f"object {index} of {where}", account)) is not None
        ]
        size = row.media_attributes or _Media()
        yield SourceImage(
            file=_path(row.data_row),
            width=size.width,
            height=size.height,
            shapes=shapes,
            lost=len(objects) - len(shapes),
        )


def _count(given: Any) -> int:
    """How many objects all labels of a row have, whatever becomes of it."""
    projects = given.get("projects") if isinstance(given, dict) else None
    labels = [
        label
        for project in (projects.values() if isinstance(projects, dict) else ())
        if isinstance(project, dict) and isinstance(project.get("labels"), list)
        for label in project["labels"]
    ]
    return sum(count_in(label, "annotations", "objects") for label in labels)


def _objects(row: _Row) -> list[Any]:
    """The objects of the label that counts. Raises UnreadableError."""
    labels = [item for project in row.projects.values() for item in project.labels]
    if not labels:
        raise UnreadableError("data row without a label: not annotated")
    if len(labels) > 1:
        labels = [item for item in labels if item.label_details and item.label_details.is_benchmark_reference]
        if len(labels) != 1:
            raise UnreadableError("data row with several labels: export one project, and only the label that counts")
    label = labels[0]
    if label.performance_details and label.performance_details.skipped:
        raise UnreadableError("data row that was skipped by the annotator")
    if label.annotations.objects is None:
        raise UnreadableError("label without a list of objects, as those of videos and texts")
    if not label.annotations.objects and label.annotations.classifications:
        raise UnreadableError("label without an object, but with classifications: what is where is not said")
    return label.annotations.objects


def _path(row: _DataRow) -> str:
    if row.external_id or row.global_key:
        return clean_path(row.external_id or row.global_key or "")
    return clean_path(unquote(urlsplit(row.row_data or "").path)).lstrip("/")


def _shape(given: Any, name: str, account: Account) -> Shape | None:
    try:
        item: _Object = loose_structure(given, _Object)
    except UnreadableError as error:
        account.drop_object(f"object not readable: {error.reason}", name)
        return None
    if item.bounding_box is not None:
        at = item.bounding_box
        return Shape(label=item.name, box=(at.left, at.top, at.left + at.width, at.top + at.height), name=name)
    if item.polygon is not None:
        flat = [value for at in item.polygon for value in (at.x, at.y)]
        return Shape(label=item.name, poly=flat, was="polygon", name=name)
    if item.point is not None:
        return Shape(label=item.name, points=[item.point.x, item.point.y], name=name)
    kind = item.annotation_kind or ""
    known = kind.isidentifier() and len(kind) < 40
    account.drop_object(f"{kind}: records have no such geometry" if known else "object without a geometry", name)
    return None
