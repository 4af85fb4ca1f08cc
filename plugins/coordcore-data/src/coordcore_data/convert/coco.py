"""COCO and LVIS instances files: boxes x, y, width, height in pixels, one JSON file.

An annotation finds its image and its category by their ids, by what these say as text where the types differ ("774",
774, 774.0). Without a bbox its box is that around its polygons or its mask. With the attribute `rotation`, as CVAT's
exports have it, it is that around its polygons, and without any the bbox is turned. An image is empty when the file
lists it and no annotation can be its own; LVIS looks for some categories on each image only, so none of its images is
empty.
Areas go under `metadata.object_areas` where they are not the boxes', of LVIS also what is absent or incomplete and the
frequencies of the labels. Keypoints are carried where asked for, their names under `metadata.keypoint_names`. Not
carried: RLE masks and shapes of several polygons (their boxes and areas are), captions, licences, supercategories, LVIS
synsets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from math import isclose
from pathlib import Path
from typing import Any

import msgspec

from coordcore import InputError
from coordcore.errors import shortened
from coordcore.records.geometry import bounds
from coordcore_data.convert.coco_file import CocoAnnotation, CocoCategory, CocoImage, Content, load, parsed
from coordcore_data.convert.core import TURNED, Account, Box, Found, Reading, Shape, SourceImage, corners, is_area
from coordcore_data.convert.ids import Id, Ids, text_of
from coordcore_data.convert.mask import rle_box
from coordcore_data.convert.text import UnreadableError, clean_label, clean_path, number, structure
from coordcore_data.convert.turning import angle, turned

Segmentation = list[list[float]] | dict[str, Any] | None
"""Polygons, or a run-length mask."""

_NULL = msgspec.Raw(b"null")

_SEGMENTATIONS = msgspec.json.Decoder(Segmentation)


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError when the file as a whole cannot be read.

    reading.boxes: for files that break the format, x, y, width, height otherwise.
    """
    content = load(source, reading.polygons, account)
    account.images.read += len(content.images)
    account.objects.read += len(content.annotations)  # those that could not be read are counted already
    return Found(images=_images(content, reading, source, account), total=len(content.images))


def names_by_id(categories: list[CocoCategory], account: Account) -> dict[Id, str | None]:
    """Id -> name; None for an id that stands for several names."""
    names: dict[Id, str | None] = {}
    for category in categories:
        name = str(category.name)
        if category.id in names and names[category.id] != name:
            account.note("category id with several names: its annotations are dropped", category.id, repr(name))
            names[category.id] = None
        else:
            names[category.id] = name
    return names


def _images(content: Content, reading: Reading, source: Path, account: Account) -> Iterator[SourceImage]:
    names = names_by_id(content.categories, account)
    categories = Ids(names)
    frequencies = _frequencies(content.categories)
    places = _keypoint_names(content.categories) if reading.keypoints else {}
    by_image: dict[Id, list[CocoAnnotation]] = defaultdict(list)
    for item in _without_repetition(content.annotations, account):
        by_image[item.image_id].append(item)
    content.annotations.clear()
    undeclared = _join(content, by_image, source, account)
    ambiguous = _repeated_images(content.images)
    federated = not reading.partial and any(map(_is_federated, content.images))
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
        shapes = [
            shape
            for annotation in annotations
            if (shape := _shape(annotation, image, names, categories, places, reading, account))
        ]
        yield SourceImage(
            file=file_of(image),
            width=image.width,
            height=image.height,
            shapes=shapes,
            lost=len(annotations) - len(shapes) + content.lost.get(image.id, 0),
            undeclared=_FEDERATED if federated else undeclared,
            id=image.id,
            metadata=_lvis(image, shapes, names, categories, frequencies) | _named_places(shapes, places),
        )
    for image_id, annotations in by_image.items():
        account.drop_object("annotation of an image that is not listed", "image", image_id, count=len(annotations))


_CVAT_CROWD = "crowd region with CVAT's attributes, whose export makes every mask one: --crowd objects reads objects"
_FEDERATED = "no annotation, but only some categories were looked for (LVIS); --purpose evaluation keeps the image"
_NO_ANNOTATIONS = "the file has no list 'annotations': nothing says what is on its images"
_NOT_JOINED = "no annotation, in a file with annotations whose image_id is that of no image"


def _join(content: Content, by_image: dict[Id, list[CocoAnnotation]], source: Path, account: Account) -> str:
    """Put annotations under the ids of their images where the types differ. Why images without any are not empty.

    Raises InputError when no annotation finds an image.
    """
    if not content.declared:
        return _NO_ANNOTATIONS
    ids = Ids(image.id for image in content.images)
    joined, strange = 0, content.lost.pop(None, 0)
    whole = all(text_of(image.id).isdecimal() for image in content.images)
    example: Id | None = None
    for key in [*by_image, *(key for key in content.lost if key not in by_image)]:
        found = None if key is None else ids.find(key)
        if key is None or found is None:
            # A whole number that is no image's, among whole numbers, is that of an image that was left out of the file.
            strange += not (whole and key is not None and text_of(key).isdecimal() and not ids.is_ambiguous(key))
            example = key
            continue
        joined += 1
        if found != key:
            account.note("image_id written otherwise than the image's id: joined by what it says", repr(key))
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
    for annotation in annotations:
        if annotation.id in ids:
            repeated.add(annotation.id)
        elif annotation.id is not None:
            ids.add(annotation.id)
    del ids
    seen: set[Any] = set()
    for annotation in annotations:
        if annotation.id in repeated:
            content = (annotation.id, annotation.image_id, annotation.category_id, annotation.bbox)
            if content in seen:
                account.drop_object("annotation listed twice", annotation.id)
                continue
            seen.add(content)
            account.note("annotation id used several times: all are kept", annotation.id)
        yield annotation


def _repeated_images(images: list[CocoImage]) -> set[Id]:
    """The ids that stand for different images."""
    first: dict[Id, CocoImage] = {}
    return {image.id for image in images if file_of(first.setdefault(image.id, image)) != file_of(image)}


def file_of(image: CocoImage) -> str:
    if image.file_name:
        return clean_path(image.file_name)
    # LVIS: http://images.cocodataset.org/train2017/000000391895.jpg
    return "/".join((image.coco_url or "").split("/")[-2:])


def _is_federated(image: CocoImage) -> bool:
    """Whether the image is one of LVIS, which has `coco_url` for `file_name` also where its lists are missing."""
    listed = image.neg_category_ids is not None or image.not_exhaustive_category_ids is not None
    return listed or (not image.file_name and image.coco_url is not None)


def _frequencies(categories: list[CocoCategory]) -> dict[str, str]:
    """Label -> its frequency, of the categories that have one of LVIS's."""
    return {
        clean_label(str(category.name)).text: category.frequency
        for category in categories
        if category.frequency in ("r", "c", "f")
    }


def _keypoint_names(categories: list[CocoCategory]) -> dict[str, list[str]]:
    """Label -> the names of its keypoints, of the categories that have them."""
    return {
        clean_label(str(category.name)).text: category.keypoints
        for category in categories
        if isinstance(category.keypoints, list)
        and category.keypoints
        and all(isinstance(name, str) for name in category.keypoints)
    }


def _named_places(shapes: list[Shape], known: Mapping[str, list[str]]) -> dict[str, Any]:
    present = sorted({clean_label(shape.label).text for shape in shapes if shape.keypoints is not None})
    found = {label: known[label] for label in present if label in known}
    return {"keypoint_names": found} if found else {}


def _lvis(
    image: CocoImage,
    shapes: list[Shape],
    names: Mapping[Id, str | None],
    categories: Ids,
    frequencies: Mapping[str, str],
) -> dict[str, Any]:
    """What LVIS says of the labels of an image, as records write labels."""
    found: dict[str, Any] = {}
    for key, ids in (
        ("absent_categories", image.neg_category_ids),
        ("incomplete_categories", image.not_exhaustive_category_ids),
    ):
        if ids:
            listed = [names[known] for id_ in ids if (known := categories.find(id_)) is not None]
            found[key] = [clean_label(name).text for name in listed if name is not None]
    if not found and _is_federated(image):
        found["absent_categories"] = []  # which says that no other label was looked for either
    present = sorted({clean_label(shape.label).text for shape in shapes}) if frequencies else []
    if known_here := {label: frequencies[label] for label in present if label in frequencies}:
        found["category_frequencies"] = known_here
    return found


def _shape(
    item: Any,
    image: CocoImage,
    names: Mapping[Id, str | None],
    categories: Ids,
    places: Mapping[str, list[str]],
    reading: Reading,
    account: Account,
) -> Shape | None:
    """places: label -> the names of its keypoints."""
    known = categories.find(item.category_id)
    name = None if known is None else names[known]
    if not name:
        reason = "unknown category id" if known is None else "category without a name, or with several"
        account.drop_object(reason, "annotation", item.id, "category_id", item.category_id)
        return None
    if item.iscrowd and reading.crowds and "occluded" in _attributes(item):
        account.note(_CVAT_CROWD, f"annotation {item.id}")
    try:
        shape = shape_of(item, image, name, reading, account)
        if reading.keypoints:
            _add_keypoints(shape, item, places.get(clean_label(name).text), account)
        elif item.keypoints is not None and item.keypoints not in _NO_KEYPOINTS:
            account.note("keypoints: not carried without --keypoints", shape.name)
        return shape
    except UnreadableError as error:
        account.drop_object(error.reason, f"annotation {item.id}", error.detail)
        return None


_NO_KEYPOINTS: tuple[Any, ...] = (msgspec.Raw(b"null"), msgspec.Raw(b"[]"), [])


def _add_keypoints(shape: Shape, item: Any, names: list[str] | None, account: Account) -> None:
    given = parsed(item.keypoints)
    if given in (None, []):
        return
    shown = shortened(str(given), 80)
    numbers = isinstance(given, list) and all(type(value) in (int, float) for value in given)
    if not numbers or len(given) % 3:
        account.note("keypoints that are not x, y and visibility of each: not carried", shape.name, shown)
        return
    if wrong := [seen for seen in given[2::3] if seen not in (0, 1, 2)]:
        account.note("keypoint whose visibility is not 0, 1 or 2: none of its object carried", shape.name, wrong[0])
        return
    if names is not None and len(given) != 3 * len(names):
        what = f"{len(given) // 3} keypoints, and {len(names)} names of them in categories"
        account.note("another number of keypoints than their category names: not carried", shape.name, what)
        return
    labelled = sum(seen > 0 for seen in given[2::3])
    if item.num_keypoints is not None and item.num_keypoints != labelled:
        what = f"{shortened(repr(item.num_keypoints), 80)}, and {labelled} have a visibility above 0"
        account.note("num_keypoints that is not how many are labelled: not read", shape.name, what)
    shape.keypoints = [float(value) for at in range(0, len(given), 3) for value in given[at : at + 2]]
    shape.seen = [int(seen) for seen in given[2::3]]


def shape_of(item: Any, image: CocoImage, label: str | None, reading: Reading, account: Account) -> Shape:
    """What an annotation is on its image. Raises UnreadableError where it has nothing to read a box from."""
    where = f"annotation {item.id}"
    crowd = bool(item.iscrowd)
    degrees = angle(_attributes(item).get("rotation"), account, where)
    given = _segmentation(item) if reading.polygons or item.bbox is None or degrees else []
    if isinstance(given, dict) and item.bbox is None:
        box = rle_box(given, image.width, image.height)
        return Shape(label=label, box=box, area=_area(item, box, account), crowd=crowd, was="RLE mask", name=where)
    parts = _polygons(given, item, account)
    poly = parts[0] if len(parts) == 1 and reading.polygons else None
    if item.bbox is not None and not (degrees and parts):
        if len(parts) > 1:
            account.note("shape of several polygons: only its box is carried", where)
        box = corners(item.bbox, reading.boxes or "xywh")
        quad = None if isinstance(given, dict) else turned(box, degrees)  # a mask's bbox is around its pixels
        if quad:
            area = _area(item, bounds(quad), account)
            return Shape(label=label, poly=quad, area=area, crowd=crowd, was=TURNED, name=where)
        return Shape(label=label, box=box, poly=poly, area=_area(item, box, account), crowd=crowd, name=where)
    if not parts:
        raise UnreadableError("neither a bbox nor a polygon that can be read")
    outlines = None if poly is not None else parts
    was = "polygon" if len(parts) == 1 else "shape of several polygons"
    area = _area(item, None, account)
    return Shape(label=label, poly=poly, outlines=outlines, area=area, crowd=crowd, was=was, name=where)


def _attributes(item: Any) -> dict[str, Any]:
    """What Datumaro says beside COCO's own keys, where it is there and can be read."""
    if item.attributes == _NULL:  # of hundreds of thousands, in COCO itself
        return {}
    try:
        found = parsed(item.attributes)
    except UnreadableError:
        return {}
    return found if isinstance(found, dict) else {}


def _area(item: Any, box: Box | None, account: Account) -> float | None:
    """What the annotation says of its area, None where it says nothing or that of its box."""
    if item.area is None:
        return None
    if not is_area(item.area):
        account.note("area that is no number above 0: its box's counts", "annotation", item.id, repr(item.area))
        return None
    area: float = item.area
    return None if box is not None and isclose(area, (box[2] - box[0]) * (box[3] - box[1])) else area


def _segmentation(item: Any) -> Segmentation:
    """The polygons or the mask of an annotation, as they are written."""
    given = getattr(item, "segmentation", None)
    try:
        found: Segmentation
        found = _SEGMENTATIONS.decode(given) if isinstance(given, msgspec.Raw) else structure(given, Segmentation)
    except (msgspec.DecodeError, UnicodeDecodeError, UnreadableError):
        return _loose_polygons(parsed(given))
    return found


def _polygons(given: Segmentation, item: Any, account: Account) -> list[list[float]]:
    """The polygons of a segmentation; none of a mask, and of what cannot be read."""
    if isinstance(given, dict):
        if not item.iscrowd:
            account.note("RLE mask: not carried", "annotation", item.id)
        return []
    found = given or []
    if not all(found) or any(len(part) % 2 for part in found):
        account.note("segmentation that cannot be read: not carried", "annotation", item.id)
        return []
    return found


def _loose_polygons(given: Any) -> list[list[float]]:
    """Polygons with their numbers as text, their points as pairs, or the only one without a list around it."""
    if isinstance(given, list) and not any(isinstance(part, list) for part in given):
        given = [given]
    try:
        parts = [_flat(part) for part in given]
        return [[float(number(value)) for value in part] for part in parts]
    except (TypeError, ValueError):
        return [[]]


def _flat(part: Any) -> list[Any]:
    pairs = all(isinstance(point, list) and len(point) == 2 for point in part)
    return [value for point in part for value in point] if pairs else part


def repeated_ids(items: list[Any]) -> Id | None:
    """An id that occurs twice, or None."""
    seen: set[Id] = set()
    for item in items:
        if item.id in seen:
            found: Id = item.id
            return found
        seen.add(item.id)
    return None
