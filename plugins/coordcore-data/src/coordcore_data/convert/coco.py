"""COCO and LVIS instances files: boxes x, y, width, height in pixels, one JSON file.

An annotation finds its image and its category by their ids, by what these say as text where the types differ ("774",
774, 774.0). Without a bbox its box is that around its polygons. An image is empty when the file lists it and no
annotation can be its own; LVIS looks for some categories on each image only, so none of its images is empty.
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
from coordcore_data.convert.ids import Id, Ids, text_of
from coordcore_data.convert.text import (
    UnreadableError,
    clean_path,
    load_whole,
    parse_json,
    read_bytes,
    reword,
    structure,
)

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
    name: str | int | float


class _File(msgspec.Struct):
    """The lists unread: one broken item must not make the others unreadable."""

    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw] | None = None
    categories: list[msgspec.Raw] = []


class _Content(msgspec.Struct):
    """lost: image id -> how many of its annotations could not be read; None for those whose image nobody knows.

    declared: whether the file has annotations at all, be it an empty list.
    """

    images: list[CocoImage]
    annotations: list[Any]
    categories: list[CocoCategory]
    lost: dict[Id | None, int]
    declared: bool


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError when the file as a whole cannot be read.

    reading.boxes: for files that break the format, x, y, width, height otherwise.
    """
    content = _load(source, reading.polygons, account)
    account.images.read += len(content.images)
    account.objects.read += len(content.annotations)  # those that could not be read are counted already
    return Found(images=_images(content, reading, source, account), total=len(content.images))


def read_categories(path: Path) -> dict[str, int]:
    """Name -> id of a COCO file's categories. Raises InputError."""
    content = load_whole(path)
    try:
        listed = structure(content.get("categories") if isinstance(content, dict) else content, list[CocoCategory])
    except UnreadableError as error:
        raise InputError(f"{path}: categories: {error}") from error
    found = {" ".join(str(one.name).split()): one.id for one in listed if type(one.id) is int}
    if not listed or len(found) < len(listed) or len(set(found.values())) < len(found):
        raise InputError(f"{path}: categories need different names and different whole numbers as ids")
    return found


def names_by_id(categories: list[CocoCategory], account: Account) -> dict[Id, str | None]:
    """Id -> name; None for an id that stands for several names."""
    names: dict[Id, str | None] = {}
    for one in categories:
        name = str(one.name)
        if one.id in names and names[one.id] != name:
            account.note("category id with several names: its annotations are dropped", one.id, repr(name))
            names[one.id] = None
        else:
            names[one.id] = name
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
    lost: dict[Id | None, int] = {}
    try:
        return _Content(
            images=_each(images, CocoImage, account, "image"),
            annotations=_annotations(annotations or [], polygons, lost, account),
            categories=_each(categories, CocoCategory, account, "category"),
            lost=lost,
            declared=annotations is not None,
        )
    except UnicodeDecodeError as error:  # texts are only looked at here
        raise InputError(f"{source}: not UTF-8: {error.reason}; save the file as UTF-8") from error


def _loose_lists(content: Any, source: Path) -> list[Any]:
    """The lists of a file that only the standard library's parser reads, because of a NaN for instance."""
    if not isinstance(content, dict):
        raise InputError(f"{source}: holds no JSON object; a list of detections is a COCO results file, not instances")
    lists = [content.get("images"), content.get("annotations"), content.get("categories", [])]
    for key, found in zip(("images", "annotations", "categories"), lists, strict=True):
        if not isinstance(found, list) and (key, found) != ("annotations", None):
            raise InputError(f"{source}: has no list {key!r}; is this a COCO instances file?")
    return lists


def _each(items: list[Any], kind: type[T], account: Account, what: str) -> list[T]:
    decode = msgspec.json.Decoder(kind).decode
    found: list[T] = []
    for index, item in enumerate(items):
        try:
            found.append(decode(item) if isinstance(item, msgspec.Raw) else structure(item, kind))
            continue
        except (msgspec.DecodeError, UnreadableError):
            pass  # numbers written as text may be what is wrong
        reason, where = "", f"{what}s[{index}]"
        try:
            found.append(structure(_with_numbers(_parsed(item), ("width", "height"), account, where), kind))
            continue
        except UnreadableError as error:
            reason = f"{what} not readable: {error.reason}"
        if what == "image":
            account.images.read += 1
            account.drop_image(reason, where)
        else:
            account.note(reason, where)
    return found


def _annotations(items: list[Any], polygons: bool, lost: dict[Id | None, int], account: Account) -> list[Any]:
    """Those that can be read. polygons: with their segmentation, which is read anyway where there is no bbox."""
    kind = WithPolygons if polygons else CocoAnnotation
    decode = msgspec.json.Decoder(kind).decode
    found: list[Any] = []
    for index, item in enumerate(items):
        try:
            if isinstance(item, msgspec.Raw):
                one = decode(item)
                if polygons or one.bbox is not None:
                    found.append(one)
                    continue
        except msgspec.DecodeError:
            pass  # numbers written as text or an empty bbox may be what is wrong
        where = f"annotations[{index}]"
        given: Any = None
        try:
            given = _with_numbers(_parsed(item), ("iscrowd",), account, where)
            if isinstance(given, dict) and given.get("bbox") in ([], ""):
                given = given | {"bbox": None}
            found.append(structure(given, LooseAnnotation))
        except UnreadableError as error:
            account.objects.read += 1
            account.drop_object(f"annotation not readable: {error.reason}", where)
            image_id = given.get("image_id") if isinstance(given, dict) else None
            owner = image_id if type(image_id) in (int, float, str) else None
            lost[owner] = lost.get(owner, 0) + 1
    return found


def _parsed(item: Any) -> Any:
    return parse_json(bytes(item)) if isinstance(item, msgspec.Raw) else item


def _with_numbers(given: Any, keys: tuple[str, ...], account: Account, where: str) -> Any:
    """An item with numbers where its bbox, and what stands under `keys`, have them as text."""
    if not isinstance(given, dict):
        return given
    box = given.get("bbox")
    values = [given.get(key) for key in keys] + (box if isinstance(box, list) else [])
    if not any(isinstance(value, str) for value in values):
        return given
    try:
        changed: dict[str, Any] = {key: _number(given[key]) for key in keys if key in given}
        if isinstance(box, list):
            changed["bbox"] = [_number(value) for value in box]
    except ValueError:
        return given
    account.note("number written as text: read as the number", where)
    return given | changed


def _number(value: Any) -> Any:
    """The number that a text is, anything else as it is. Raises ValueError for a text that is none."""
    if not isinstance(value, str):
        return value
    number = float(value)
    return int(number) if number.is_integer() else number


def _images(content: _Content, reading: Reading, source: Path, account: Account) -> Iterator[SourceImage]:
    names = names_by_id(content.categories, account)
    categories = Ids(names)
    by_image: dict[Id, list[CocoAnnotation]] = defaultdict(list)
    for one in _without_repetition(content.annotations, account):
        by_image[one.image_id].append(one)
    content.annotations.clear()
    undeclared = _join(content, by_image, source, account)
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
        shapes = [shape for one in annotations if (shape := _shape(one, names, categories, reading, account))]
        federated = image.neg_category_ids is not None and not reading.partial
        yield SourceImage(
            file=_file(image),
            width=image.width,
            height=image.height,
            shapes=shapes,
            lost=len(annotations) - len(shapes) + content.lost.get(image.id, 0),
            undeclared=_FEDERATED if federated else undeclared,
            id=image.id,
            metadata=_lvis(image, names),
        )
    for image_id, annotations in by_image.items():
        account.drop_object("annotation of an image that is not listed", "image", image_id, count=len(annotations))


_FEDERATED = "no annotation, but only some categories were looked for (LVIS); --purpose evaluation keeps the image"
_NO_ANNOTATIONS = "the file has no list 'annotations': nothing says what is on its images"
_NOT_JOINED = "no annotation, in a file with annotations whose image_id is that of no image"


def _join(content: _Content, by_image: dict[Id, list[CocoAnnotation]], source: Path, account: Account) -> str:
    """Put annotations under the ids of their images where the types differ. Why images without any are not empty.

    Raises InputError when no annotation finds an image.
    """
    if not content.declared:
        return _NO_ANNOTATIONS
    ids = Ids(one.id for one in content.images)
    joined, strange = 0, content.lost.pop(None, 0)
    whole = all(text_of(one.id).isdecimal() for one in content.images)
    example: Id | None = None
    for key in [*by_image, *(key for key in content.lost if key not in by_image)]:
        found = None if key is None else ids.find(key)
        if key is None or found is None:
            # A whole number that is no image's, among whole numbers, is that of an image that was left out of the file.
            strange += not (whole and key is not None and text_of(key).isdecimal() and not ids.is_ambiguous(key))
            example = key
            continue
        joined += 1
        if type(found) is not type(key) and found != key:
            account.note("image_id of another type than the image's id: joined as text", repr(key))
            by_image[found] += by_image.pop(key, [])
            content.lost[found] = content.lost.get(found, 0) + content.lost.pop(key, 0)
    if not joined and (by_image or content.lost) and content.images:
        raise InputError(
            f"{source}: no annotation finds an image: there is an image_id {example!r}, and an image has the id "
            f"{content.images[0].id!r}; is this file's list of images another's?"
        )
    return _NOT_JOINED if strange else ""


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


def _shape(
    one: Any, names: Mapping[Id, str | None], categories: Ids, reading: Reading, account: Account
) -> Shape | None:
    known = categories.find(one.category_id)
    name = None if known is None else names[known]
    if not name:
        reason = "unknown category id" if known is None else "category without a name, or with several"
        account.drop_object(reason, "annotation", one.id, "category_id", one.category_id)
        return None
    where = f"annotation {one.id}"
    wanted = reading.polygons or one.bbox is None
    parts = _polygons(one, account) if wanted and getattr(one, "segmentation", None) is not None else []
    poly = parts[0] if len(parts) == 1 and reading.polygons else None
    if one.bbox is not None:
        if len(parts) > 1:
            account.note("shape of several polygons: only its box is carried", where)
        box = corners(one.bbox, reading.boxes or "xywh")
        return Shape(label=name, box=box, poly=poly, crowd=bool(one.iscrowd), name=where)
    if not parts:
        account.drop_object("neither a bbox nor a polygon", where)
        return None
    outlines = None if poly is not None else parts
    was = "polygon" if len(parts) == 1 else "shape of several polygons"
    return Shape(label=name, poly=poly, outlines=outlines, crowd=bool(one.iscrowd), was=was, name=where)


def _polygons(one: Any, account: Account) -> list[list[float]]:
    """The polygons of an annotation; none of a mask, and of what cannot be read."""
    given = one.segmentation
    try:
        parts: Any = _SEGMENTATIONS.decode(given) if isinstance(given, msgspec.Raw) else structure(given, Segmentation)
    except (msgspec.DecodeError, UnicodeDecodeError, UnreadableError):
        flat = _parsed(given)  # some tools write the only polygon without a list around it
        is_flat = isinstance(flat, list) and all(type(value) in (int, float) for value in flat)
        parts = [flat] if is_flat else [[]]
    if isinstance(parts, dict):
        if not one.iscrowd:
            account.note("RLE mask: not carried", "annotation", one.id)
        return []
    found: list[list[float]] = parts or []
    if not all(found) or any(len(part) % 2 for part in found):
        account.note("segmentation that cannot be read: not carried", "annotation", one.id)
        return []
    return found


def repeated_ids(items: list[Any]) -> Id | None:
    """An id that occurs twice, or None."""
    seen: set[Id] = set()
    for one in items:
        if one.id in seen:
            found: Id = one.id
            return found
        seen.add(one.id)
    return None
