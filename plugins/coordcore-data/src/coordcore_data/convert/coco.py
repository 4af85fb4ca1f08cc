"""COCO and LVIS instances files: boxes x, y, width, height in pixels, one JSON file.

Not carried: RLE masks (their boxes are), shapes of several polygons (their boxes are), keypoints, captions, licences,
supercategories, areas, LVIS synsets and frequencies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from coordcore import InputError
from coordcore_data.convert.core import Account, Found, Reading, Shape, SourceImage, corners
from coordcore_data.convert.text import (
    UnreadableError,
    clean_path,
    load_whole,
    parse_json,
    read_bytes,
    reword,
    structure,
)

Id = int | float | str

Segmentation = list[list[float]] | dict[str, Any] | None
"""Polygons, or a run-length mask."""

_SEGMENTATIONS = msgspec.json.Decoder(Segmentation)

T = TypeVar("T")


class CocoImage(msgspec.Struct, gc=False):
    """LVIS has `coco_url` in place of `file_name`, and says which categories are known to be absent or incomplete."""

    id: Id
    width: int | float | None = None
    height: int | float | None = None
    file_name: str | None = None
    coco_url: str | None = None
    neg_category_ids: list[Id] | None = None
    not_exhaustive_category_ids: list[Id] | None = None


class CocoAnnotation(msgspec.Struct, gc=False):
    image_id: Id
    category_id: Id
    id: Id | None = None
    bbox: tuple[float, float, float, float] | None = None
    iscrowd: int | bool | None = None


class WithPolygons(CocoAnnotation, gc=False):
    """`Raw` leaves a polygon unread until its turn: as Python floats, COCO's polygons need gigabytes."""

    segmentation: msgspec.Raw = msgspec.Raw(b"null")


class LooseAnnotation(CocoAnnotation, gc=False):
    segmentation: Any = None


class CocoCategory(msgspec.Struct):
    id: Id
    name: str


class _File(msgspec.Struct):
    """The lists unread: one broken item must not make the others unreadable."""

    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw] | None = None
    categories: list[msgspec.Raw] = []


class _Content(msgspec.Struct):
    images: list[CocoImage]
    annotations: list[Any]
    categories: list[CocoCategory]


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError when the file as a whole cannot be read.

    reading.boxes: for files that break the format, x, y, width, height otherwise.
    """
    content = _load(source, reading.polygons, account)
    account.images.read += len(content.images)
    account.objects.read += len(content.annotations)
    return Found(images=_images(content, reading, account), total=len(content.images))


def read_categories(path: Path) -> dict[str, int]:
    """Name -> id of a COCO file's categories. Raises InputError."""
    content = load_whole(path)
    try:
        listed = structure(content.get("categories") if isinstance(content, dict) else content, list[CocoCategory])
    except UnreadableError as error:
        raise InputError(f"{path}: categories: {error}") from error
    found = {" ".join(one.name.split()): one.id for one in listed if type(one.id) is int}
    if not listed or len(found) < len(listed) or len(set(found.values())) < len(found):
        raise InputError(f"{path}: categories need different names and different whole numbers as ids")
    return found


def names_by_id(categories: list[CocoCategory], account: Account) -> dict[Id, str | None]:
    """Id -> name; None for an id that stands for several names."""
    names: dict[Id, str | None] = {}
    for one in categories:
        if one.id in names and names[one.id] != one.name:
            account.note("category id with several names: its annotations are dropped", one.id, repr(one.name))
            names[one.id] = None
        else:
            names[one.id] = one.name
    return names


def _load(source: Path, polygons: bool, account: Account) -> _Content:
    """The readable items of the file; the others are counted as dropped."""
    try:
        data = read_bytes(source)
        try:
            file = msgspec.json.decode(data, type=_File)
            lists: list[Any] = [file.images, file.annotations, file.categories]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            lists = _loose_lists(parse_json(data), source)
    except UnreadableError as error:
        raise InputError(f"{source}: {error}") from error
    images, annotations, categories = lists
    if annotations is None:
        account.note("the file has no 'annotations': every record is empty")
    annotation_type = CocoAnnotation
    if polygons:
        annotation_type = WithPolygons if annotations and isinstance(annotations[0], msgspec.Raw) else LooseAnnotation
    try:
        return _Content(
            images=_each(images, CocoImage, account, "image"),
            annotations=_each(annotations or [], annotation_type, account, "annotation"),
            categories=_each(categories, CocoCategory, account, "category"),
        )
    except UnicodeDecodeError as error:  # texts are only looked at here
        raise InputError(f"{source}: not UTF-8: {error.reason}; save the file as UTF-8") from error


def _loose_lists(content: Any, source: Path) -> list[Any]:
    """The lists of a file that only the standard library's parser reads, because of a NaN for instance."""
    if not isinstance(content, dict):
        raise InputError(f"{source}: holds no JSON object; a list of detections is a COCO results file, not instances")
    lists = [content.get("images"), content.get("annotations", []), content.get("categories", [])]
    for key, found in zip(("images", "annotations", "categories"), lists, strict=True):
        if not isinstance(found, list):
            raise InputError(f"{source}: has no list {key!r}; is this a COCO instances file?")
    return lists


def _each(items: list[Any], kind: type[T], account: Account, what: str) -> list[T]:
    decode = msgspec.json.Decoder(kind).decode
    found: list[T] = []
    for index, item in enumerate(items):
        try:
            found.append(decode(item) if isinstance(item, msgspec.Raw) else structure(item, kind))
            continue
        except UnreadableError as error:
            reason = error.reason
        except msgspec.DecodeError as error:
            reason = reword(error)
        reason, where = f"{what} not readable: {reason}", f"{what}s[{index}]"
        if what == "image":
            account.images.read += 1
            account.drop_image(reason, where)
        elif what == "annotation":
            account.objects.read += 1
            account.drop_object(reason, where)
        else:
            account.note(reason, where)
    return found


def _images(content: _Content, reading: Reading, account: Account) -> Iterator[SourceImage]:
    names = names_by_id(content.categories, account)
    by_image: dict[Id, list[CocoAnnotation]] = defaultdict(list)
    for one in _without_repetition(content.annotations, account):
        by_image[one.image_id].append(one)
    content.annotations.clear()
    ambiguous = _repeated_images(content.images)
    seen: set[Id] = set()
    for image in content.images:
        if image.id in seen and image.id not in ambiguous:
            account.drop_image("image listed twice", image.id)
            continue
        seen.add(image.id)
        annotations = by_image.pop(image.id, [])
        if image.id in ambiguous:
            reason = "image id used for different images: nobody knows whose the annotations are"
            account.drop_image(reason, image.id, image.file_name, objects=len(annotations))
            continue
        shapes = [shape for one in annotations if (shape := _shape(one, names, reading, account)) is not None]
        yield SourceImage(
            file=_file(image),
            width=image.width,
            height=image.height,
            shapes=shapes,
            lost=len(annotations) - len(shapes),
            id=image.id,
            metadata=_lvis(image, names),
        )
    for image_id, annotations in by_image.items():
        account.drop_object("annotation of an image that is not listed", "image", image_id, count=len(annotations))


def _without_repetition(annotations: list[CocoAnnotation], account: Account) -> Iterator[CocoAnnotation]:
    """All but the exact repetitions of an annotation under its own id."""
    ids: set[Id] = set()
    repeated: set[Id] = set()
    for one in annotations:
        if one.id in ids:
            repeated.add(one.id)
        elif one.id is not None:
            ids.add(one.id)
    del ids
    seen: set[Any] = set()
    for one in annotations:
        if one.id in repeated:
            content = (one.id, one.image_id, one.category_id, one.bbox)
            if content in seen:
                account.drop_object("annotation listed twice", one.id)
                continue
            seen.add(content)
            account.note("annotation id used several times: all are kept", one.id)
        yield one


def _repeated_images(images: list[CocoImage]) -> set[Id]:
    """The ids that stand for different images."""
    first: dict[Id, CocoImage] = {}
    return {one.id for one in images if _file(first.setdefault(one.id, one)) != _file(one)}


def _file(image: CocoImage) -> str:
    if image.file_name:
        return clean_path(image.file_name)
    # LVIS: http://images.cocodataset.org/train2017/000000391895.jpg
    return "/".join((image.coco_url or "").split("/")[-2:])


def _lvis(image: CocoImage, names: Mapping[Id, str | None]) -> dict[str, Any]:
    found = {}
    for key, ids in (
        ("absent_categories", image.neg_category_ids),
        ("incomplete_categories", image.not_exhaustive_category_ids),
    ):
        if ids:
            found[key] = [name for one in ids if (name := names.get(one)) is not None]
    return found


def _shape(one: Any, names: Mapping[Id, str | None], reading: Reading, account: Account) -> Shape | None:
    name = names.get(one.category_id, "")
    if not name:
        known = one.category_id in names
        reason = "category without a name, or with several" if known else "unknown category id"
        account.drop_object(reason, "annotation", one.id, "category_id", one.category_id)
        return None
    poly = _polygon(one, account) if reading.polygons and one.segmentation is not None else None
    if one.bbox is None and poly is None:
        account.drop_object(
            "no bbox" + ("" if reading.polygons else "; --geometry poly reads polygons"), "annotation", one.id
        )
        return None
    box = None if one.bbox is None else corners(one.bbox, reading.boxes or "xywh")
    return Shape(label=name, box=box, poly=poly, crowd=bool(one.iscrowd), name=f"annotation {one.id}")


def _polygon(one: Any, account: Account) -> list[float] | None:
    """The polygon of an annotation that has exactly one."""
    given = one.segmentation
    try:
        parts: Any = _SEGMENTATIONS.decode(given) if isinstance(given, msgspec.Raw) else structure(given, Segmentation)
    except (msgspec.DecodeError, UnicodeDecodeError, UnreadableError):
        parts = [[]]
    if parts is None or parts == []:
        return None
    if isinstance(parts, dict):
        if not one.iscrowd:
            account.note("RLE mask: not carried", "annotation", one.id)
        return None
    if not all(parts) or any(len(part) % 2 for part in parts):
        account.note("segmentation that cannot be read: not carried", "annotation", one.id)
        return None
    if len(parts) > 1:
        account.note("shape of several polygons: only its box is carried", "annotation", one.id)
        return None
    polygon: list[float] = parts[0]
    return polygon


def repeated_ids(items: list[Any]) -> Id | None:
    """An id that occurs twice, or None."""
    seen: set[Id] = set()
    for one in items:
        if one.id in seen:
            found: Id = one.id
            return found
        seen.add(one.id)
    return None
