"""Label Studio: its JSON export, an array of tasks, and JSON-MIN, where a task's regions stand under their tag's name.

Positions are in percent of the image; a rectangle or ellipse is turned by `rotation` degrees, clockwise as one sees it,
a rectangle about its top left corner and an ellipse about its centre. A turned rectangle becomes the polygon of its
corners, or its enclosing box; polygons too, ellipses and brush masks their enclosing boxes. Key points go under
`metadata.points`.
Of a task's annotations the last one counts that was not cancelled, as Label Studio's own converters choose; a task
without annotations has not been looked at and is dropped, whatever a model predicted for it. An annotation without
regions says that nothing is there, unless another of its task has some; one that only holds choices, texts or ratings
does not say what is where. Results with one id and the same numbers are one region, as a <Polygon> beside <Labels>
writes them; in JSON-MIN, which has no ids, the numbers decide.
Not carried: bitmasks, vectors and boxes of videos (dropped), predictions, relations, choices, texts. A region with
several labels is one object for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from coordcore import InputError
from coordcore_data.convert.brush import painted
from coordcore_data.convert.core import TURNED, Account, Found, Reading, Shape, SourceImage
from coordcore_data.convert.geometry import ellipse
from coordcore_data.convert.text import UnreadableError, clean_path, json_rows, loose_structure, structure

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_LABELS = (
    "rectanglelabels",
    "polygonlabels",
    "ellipselabels",
    "keypointlabels",
    *(f"{kind}labels" for kind in ("brush", "bitmask", "magicwand", "vector")),
    "labels",
)
_MASKS = ("brush", "magicwand")
_SHAPES = ("rectangle", "polygon", "ellipse", "keypoint", *_MASKS)
_OTHERS = ("bitmask", "vector", "videorectangle")
"""Regions that are counted, of which records have no such geometry."""

_UNTYPED = {"points": "polygon", "rle": "brush", "radiusX": "ellipse"}
"""Keys of a region -> what it is, where its type does not say; one without them is a rectangle."""

_NUMBERS = ("x", "y", "width", "height", "rotation", "radiusY", "vertices", "sequence", "imageDataURL", *_UNTYPED)


class _Annotation(msgspec.Struct):
    result: list[Any] | None = None
    was_cancelled: bool | None = None
    skipped: bool | None = None


class _Task(msgspec.Struct):
    data: dict[str, Any] | None = None
    annotations: list[_Annotation] | None = None
    completions: list[_Annotation] | None = None
    """The name before Label Studio 1.0."""
    predictions: list[Any] | None = None
    id: Any = None


class _Value(msgspec.Struct):
    """One region, in percent. From JSON-MIN it also says on which image size it was drawn."""

    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None
    radiusX: float | None = None  # noqa: N815 - Label Studio's names
    radiusY: float | None = None  # noqa: N815
    rotation: float | None = None
    points: list[tuple[float, float]] | None = None


class _Size(msgspec.Struct):
    original_width: float | None = None
    original_height: float | None = None
    image_rotation: float | None = None


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError when the file cannot be opened, and when nothing in it is a task."""
    tasks = [(where, parse) for where, parse in json_rows(source)]
    if not tasks:
        raise InputError(f"{source}: no tasks; export the project as JSON")
    return Found(images=_images(tasks, account), total=len(tasks))


def _images(tasks: Iterable[tuple[str, Any]], account: Account) -> Iterator[SourceImage]:
    for where, parse in tasks:
        account.images.read += 1
        count, given = 0, None
        try:
            given = parse()
            task: _Task = structure(given, _Task)
            if task.data is None and task.annotations is None:
                image, regions = _minimal(given)
            else:
                image, regions = _image_of(task.data or {}), _regions(task)
            count = _count(regions)
            if not image:
                raise UnreadableError("task without the path of one image")
            if regions and not count:
                raise UnreadableError(
                    "annotation without a region, but with choices or texts: what is where is not said"
                )
            found = _image(image, regions, where, task.id, account)
        except UnreadableError as error:
            count = count or _count(_any_regions(given))
            account.objects.read += count
            account.drop_image(error.reason, where, error.detail, objects=count)
            continue
        account.objects.read += count
        yield found


def _regions(task: _Task) -> list[dict[str, Any]]:
    """The results of the annotation that counts. Raises UnreadableError."""
    given = task.annotations if task.annotations is not None else task.completions
    kept = [entry for entry in given or [] if not (entry.was_cancelled or entry.skipped)]
    if not kept:
        what = "skipped by the annotator" if given else "not annotated"
        raise UnreadableError(f"task {what}" + (", only predicted" if task.predictions else ""))
    results = kept[-1].result
    if results is None:
        raise UnreadableError("annotation without a list of results")
    if not results and any(item.result for item in kept):
        raise UnreadableError("annotations of which the last has no regions, and others have: is the image empty?")
    if not all(isinstance(result, dict) for result in results):
        raise UnreadableError("results that are no objects")
    return _joined(results)


def _joined(results: Iterable[Any]) -> list[Any]:
    """The results with those of one id and place made one region: its shape once, with the labels of all."""
    places: dict[str, int] = {}
    found: list[Any] = []
    for result in results:
        at = len(found)
        if isinstance(result, dict) and isinstance(result.get("value"), dict) and "id" in result and _is_shape(result):
            # In files of other tools one id may be that of several regions.
            key = repr([result["id"], *(result["value"].get(key) for key in _NUMBERS)])
            at = places.setdefault(key, at)
        if at == len(found):
            found.append(result)
            continue
        first = found[at]
        # The type of a shape says what it is, "labels" does not.
        shape = result if first.get("type") in (None, "", "labels") else first
        labels = list(dict.fromkeys([*_labels(first), *_labels(result)]))
        value = {key: part for key, part in shape["value"].items() if key not in _LABELS}
        found[at] = first | result | shape | {"value": value | {_LABELS[0]: labels}}
    return found


def _any_regions(given: Any) -> list[Any]:
    """What the last annotation that says anything holds, of a task that is not as it should be."""
    found = (given.get("annotations") or given.get("completions")) if isinstance(given, dict) else None
    kept = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    lists = [
        item.get("result") for item in kept if not (item.get("was_cancelled") is True or item.get("skipped") is True)
    ]
    return _joined(next((item for item in reversed(lists) if item and isinstance(item, list)), []))


def _count(regions: Iterable[Any]) -> int:
    """How many objects regions are."""
    return sum(max(len(_labels(region)), 1) for region in regions if not isinstance(region, dict) or _is_shape(region))


def _minimal(given: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The image and regions of a task of JSON-MIN, as results of the full form. Raises UnreadableError."""
    lists = {
        key: value
        for key, value in given.items()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    }
    regions = _joined(
        {
            "id": "",
            "value": item,
            "type": next((key for key in _LABELS if key in item), ""),
            **item,
        }
        for value in lists.values()
        for item in value
    )
    if not regions:
        # Whether there was an annotation at all, this form does not say.
        raise UnreadableError("task of JSON-MIN without regions: not annotated, or nothing there; export as JSON")
    return _image_of(given), regions


def _image_of(data: Mapping[str, Any]) -> str:
    """The one image of a task, "" for none or several: an upload, a file that Label Studio serves, or a URL.

    A bare name beside the same name with its place is no second image.
    """
    paths = {value: _path(value) for value in data.values() if isinstance(value, str)}
    named = {value: path for value, path in paths.items() if path.lower().endswith(_IMAGE_SUFFIXES)}
    if not named and isinstance(image := data.get("image"), str):
        return _path(image)
    placed = {
        path
        for value, path in named.items()
        if "/" in value or not any(other.endswith(f"/{value}") for other in named.values())
    }
    return placed.pop() if len(placed) == 1 else ""


def _path(url: str) -> str:
    """The path of an image as its folder holds it: without Label Studio's own places in front."""
    parts = urlsplit(url.replace("\\", "/"))
    if len(parts.scheme) == 1:  # a drive of Windows
        return clean_path(url)
    local = parse_qs(parts.query).get("d")  # /data/local-files/?d=folder/a.jpg
    path = local[0] if local else unquote(parts.path) if parts.scheme or url.startswith("/data/") else url
    return clean_path(path).removeprefix("/data/upload/").removeprefix("/data/").lstrip("/" if parts.scheme else "")


def _image(image: str, regions: list[dict[str, Any]], where: str, task_id: Any, account: Account) -> SourceImage:
    sizes = {_size(region) for region in regions if _is_shape(region)} - {None}
    if len(sizes) > 1:
        raise UnreadableError("regions of one image with different sizes")
    size = next(iter(sizes), None)
    width, height = size or (None, None)
    shapes: list[Shape] = []
    lost = 0
    for index, region in enumerate(regions):
        if not _is_shape(region):
            continue
        name = f"region {index} of {where}"
        labels = _labels(region)
        try:
            shape = _shape(region, name, width, height)
            shapes += [msgspec.structs.replace(shape, label=label) for label in labels] or [shape]
        except UnreadableError as error:
            account.drop_object(error.reason, name, error.detail, count=max(len(labels), 1))
            lost += 1
    return SourceImage(
        file=image,
        width=width,
        height=height,
        shapes=shapes,
        fractions=size is None,
        lost=lost,
        id=task_id if isinstance(task_id, int) else None,
    )


def _is_shape(result: Mapping[str, Any]) -> bool:
    kind, value = str(result.get("type", "")), result.get("value")
    untyped = kind in ("", "labels") and isinstance(value, dict) and not value.keys().isdisjoint(("x", *_UNTYPED))
    return kind.startswith(_SHAPES + _OTHERS) or untyped


def _labels(result: Any) -> list[str]:
    value = result.get("value") if isinstance(result, dict) else None
    found = next((value[key] for key in _LABELS if key in value), None) if isinstance(value, dict) else None
    return [label for label in found if isinstance(label, str)] if isinstance(found, list) else []


def _size(result: Mapping[str, Any]) -> tuple[float, float] | None:
    size: _Size = loose_structure(result, _Size)
    if size.image_rotation:
        raise UnreadableError("image that was turned in Label Studio: which way its regions lie is not said")
    return (size.original_width, size.original_height) if size.original_width and size.original_height else None


def _shape(result: Mapping[str, Any], name: str, width: float | None, height: float | None) -> Shape:
    """A region without its label, in pixels, or in fractions when the size is not known. Raises UnreadableError."""
    value: _Value = loose_structure(result.get("value"), _Value)
    kind = str(result.get("type", "")).removesuffix("labels")
    if kind == "":
        kind = next((shape for key, shape in _UNTYPED.items() if result["value"].get(key) is not None), "rectangle")
    if kind.startswith(_OTHERS):
        raise UnreadableError(f"{kind}: records have no such geometry")
    if kind in _MASKS:
        box, area = painted(result["value"].get("rle"), width, height)
        return Shape(label=None, box=box, area=area, was="brush mask", name=name)
    across, down = (width or 1) / 100, (height or 1) / 100
    if kind == "polygon":
        if not value.points:
            raise UnreadableError("polygon without points")
        flat = [part for x, y in value.points for part in (x * across, y * down)]
        return Shape(label=None, poly=flat, was="polygon", name=name)
    if value.x is None or value.y is None:
        raise UnreadableError(f"{kind} without its numbers")
    x, y = value.x * across, value.y * down
    if kind == "keypoint":
        return Shape(label=None, points=[x, y], name=name)
    angle = (value.rotation or 0.0) % 360
    if angle and width is None:
        raise UnreadableError(f"turned {kind} on an image of unknown size")
    if kind == "ellipse":
        if value.radiusX is None or value.radiusY is None:
            raise UnreadableError("ellipse without its numbers")
        rx, ry = value.radiusX * across, value.radiusY * down
        around, points, turned = ellipse((x - rx, y - ry, x + rx, y + ry), angle)
        return Shape(label=None, box=around, outlines=[points], turned=turned, was="ellipse", name=name)
    if value.width is None or value.height is None:
        raise UnreadableError("rectangle without its numbers")
    w, h = value.width * across, value.height * down
    if not angle or w <= 0 or h <= 0:
        return Shape(label=None, box=(x, y, x + w, y + h), name=name)
    sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    corners = ((0.0, 0.0), (w, 0.0), (w, h), (0.0, h))
    turned = [part for dx, dy in corners for part in (x + dx * cos - dy * sin, y + dx * sin + dy * cos)]
    return Shape(label=None, poly=turned, was=TURNED, name=name)
