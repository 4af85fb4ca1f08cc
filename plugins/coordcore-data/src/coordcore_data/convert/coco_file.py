"""COCO and LVIS files taken apart: images, annotations, categories, each readable by itself or counted as dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from coordcore import InputError
from coordcore_data.convert.core import Account
from coordcore_data.convert.ids import Id
from coordcore_data.convert.text import UnreadableError, load_whole, number, parse_json, read_bytes, reword, structure

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
    """area, keypoints, attributes: whatever stands there, which makes no annotation unreadable; the first decides a
    size class in `eval`, the last are those of Datumaro, which writes CVAT's COCO files too."""

    image_id: Id
    category_id: Id
    id: Id | None = None
    bbox: tuple[float, float, float, float] | None = None
    iscrowd: int | bool | None = None
    area: Any = None
    keypoints: msgspec.Raw = msgspec.Raw(b"null")
    num_keypoints: Any = None
    attributes: msgspec.Raw = msgspec.Raw(b"null")


class WithPolygons(CocoAnnotation, gc=False):
    """`Raw` leaves a polygon unread until its turn: as Python floats, COCO's polygons need gigabytes."""

    segmentation: msgspec.Raw = msgspec.Raw(b"null")


class LooseAnnotation(CocoAnnotation, gc=False):
    segmentation: Any = None
    keypoints: Any = None
    attributes: Any = None


class CocoCategory(msgspec.Struct):
    """LVIS says how many training images have it: "r", "c" or "f", rare, common or frequent. keypoints: their names."""

    id: Id
    name: str | int | float
    frequency: Any = None
    keypoints: Any = None


class _File(msgspec.Struct):
    """The lists unread: one broken item must not make the others unreadable."""

    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw] | None = None
    categories: list[msgspec.Raw] = []


class Content(msgspec.Struct):
    """lost: image id -> how many of its annotations could not be read; None for those whose image nobody knows.

    declared: whether the file has annotations at all, be it an empty list.
    """

    images: list[CocoImage]
    annotations: list[Any]
    categories: list[CocoCategory]
    lost: dict[Id | None, int]
    declared: bool


def read_categories(path: Path) -> dict[str, int]:
    """Name -> id of a COCO file's categories. Raises InputError."""
    content = load_whole(path)
    try:
        listed = structure(content.get("categories") if isinstance(content, dict) else content, list[CocoCategory])
    except UnreadableError as error:
        raise InputError(f"{path}: categories: {error}") from error
    found = {" ".join(str(item.name).split()): item.id for item in listed if type(item.id) is int}
    if not listed or len(found) < len(listed) or len(set(found.values())) < len(found):
        raise InputError(f"{path}: categories need different names and different whole numbers as ids")
    return found


def load(source: Path, polygons: bool, account: Account) -> Content:
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
        return Content(
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
        except (msgspec.DecodeError, UnreadableError) as error:
            reason, where = f"{what} not readable: {_reason(error, item)}", f"{what}s[{index}]"
        try:  # numbers written as text may be what is wrong
            found.append(structure(_with_numbers(parsed(item), ("width", "height"), account, where), kind))
            continue
        except UnreadableError:
            pass  # it was not
        if what == "image":
            account.images.read += 1
            account.drop_image(reason, where)
        else:
            account.note(reason, where)
    return found


def _annotations(items: list[Any], polygons: bool, lost: dict[Id | None, int], account: Account) -> list[Any]:
    """Those that can be read. polygons: with their segmentation, which is read anyway where there is no bbox, and where
    an attribute may say that it is turned."""
    kind = WithPolygons if polygons else CocoAnnotation
    decode, decode_outlined = msgspec.json.Decoder(kind).decode, msgspec.json.Decoder(WithPolygons).decode
    found: list[Any] = []
    for index, item in enumerate(items):
        reason, where = "", f"annotations[{index}]"
        try:
            if isinstance(item, msgspec.Raw):
                entry = decode(item)
                if polygons or entry.bbox is not None:
                    outlined = polygons or b"rotation" not in bytes(entry.attributes)
                    found.append(entry if outlined else decode_outlined(item))
                    continue
        except msgspec.DecodeError as error:
            reason = _reason(error, item)
        given: Any = None
        try:  # numbers written as text or an empty bbox may be what is wrong
            given = _with_numbers(parsed(item), ("iscrowd",), account, where)
            if isinstance(given, dict) and given.get("bbox") in ([], ""):
                given = given | {"bbox": None}
            found.append(structure(given, LooseAnnotation))
        except UnreadableError as error:
            account.objects.read += 1
            account.drop_object(f"annotation not readable: {reason or error.reason}", where)
            image_id = given.get("image_id") if isinstance(given, dict) else None
            owner = image_id if type(image_id) in (int, float, str) else None
            lost[owner] = lost.get(owner, 0) + 1
    return found


def _reason(error: msgspec.DecodeError | UnreadableError, item: Any) -> str:
    """Why an item cannot be read. Raises UnicodeDecodeError where it is not UTF-8, as older versions of msgspec do."""
    if isinstance(item, msgspec.Raw):
        bytes(item).decode()
    return error.reason if isinstance(error, UnreadableError) else reword(error)


def parsed(item: Any) -> Any:
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
        changed: dict[str, Any] = {key: number(given[key]) for key in keys if key in given}
        if isinstance(box, list):
            changed["bbox"] = [number(value) for value in box]
    except ValueError:
        return given
    account.note("number written as text: read as the number", where)
    return given | changed
