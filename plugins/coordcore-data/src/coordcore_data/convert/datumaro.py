"""Datumaro's JSON: a file, or a folder whose `annotations` hold one for each subset; shapes in pixels.

Boxes are x, y, width, height, and turned by the attribute `rotation` as CVAT exports them: in degrees, clockwise about
the centre. Polygons become their enclosing boxes or stay polygons, ellipses (the corners of their box) become their
enclosing boxes, as masks do (COCO's run lengths); points go under `metadata.points`, but for those of visibility 0,
which are absent whatever their place. The attribute `is_crowd` marks a crowd. Polygons and masks of one group and label
are one object, and so are they and the box of their group: this is how Datumaro keeps what several shapes are of.
An item without annotations says that nothing is there. Its image is the path, else its id.
Not carried: polylines, cuboids, skeletons (dropped), labels and captions of whole images (dropped: they say that
something is there), other attributes, z_order. Point clouds and videos are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from coordcore import InputError
from coordcore.errors import shortened
from coordcore_data.convert.core import TURNED, Account, Found, Reading, Shape, SourceImage, corners
from coordcore_data.convert.geometry import ellipse
from coordcore_data.convert.mask import rle_box
from coordcore_data.convert.text import UnreadableError, clean_path, count_in, load_whole, loose_structure, structure
from coordcore_data.convert.turning import angle, turned

_MASK = "RLE mask"


class _Label(msgspec.Struct):
    name: str


class _Labels(msgspec.Struct):
    labels: list[_Label] = []


class _Categories(msgspec.Struct):
    label: _Labels | None = None


class _Media(msgspec.Struct):
    path: str | None = None
    size: tuple[float, float] | None = None
    """Height and width."""


class _Item(msgspec.Struct):
    id: str | int
    annotations: list[Any] | None = None
    image: _Media | None = None
    media: _Media | None = None
    point_cloud: Any = None
    video: Any = None
    video_frame: Any = None


class _Attributes(msgspec.Struct):
    is_crowd: bool | None = None
    rotation: float | None = None


class _Annotation(msgspec.Struct):
    type: str
    label_id: int | None = None
    group: int | None = None
    bbox: tuple[float, float, float, float] | None = None
    points: list[float] | None = None
    visibility: list[int] | None = None
    """Of each point: 0 for one that is absent, 1 hidden, 2 visible."""
    rle: dict[str, Any] | None = None
    attributes: _Attributes | None = None


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError for a file that cannot be read as a whole, or holds no items."""
    sets = [(path, *_content(path)) for path in _files(source)]
    return Found(images=_images(sets, account), total=sum(len(items) for _, _, items in sets))


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    for folder in (source / "annotations", source, *sorted(source.glob("*/annotations"))):
        if found := sorted(folder.glob("*.json")):
            return found
    raise InputError(f"{source}: holds no annotations/*.json; name the file")


def _content(path: Path) -> tuple[list[str], list[Any]]:
    """The names of the labels, and the items."""
    content = load_whole(path)
    items = content.get("items") if isinstance(content, dict) else None
    if not isinstance(items, list):
        raise InputError(f"{path}: no list of items; Datumaro's JSON has `categories` and `items`")
    try:
        categories: _Categories = structure(content.get("categories", {}), _Categories)
    except UnreadableError as error:
        raise InputError(f"{path}: categories: {error.reason}") from error
    return [label.name for label in categories.label.labels] if categories.label else [], items


def _images(sets: Sequence[tuple[Path, list[str], list[Any]]], account: Account) -> Iterator[SourceImage]:
    for path, names, items in sets:
        for index, given in enumerate(items):
            account.images.read += 1
            where = f"item {index} of {path.name}"
            try:
                item: _Item = structure(given, _Item)
                if item.point_cloud is not None or item.video is not None or item.video_frame is not None:
                    raise UnreadableError("item that is no image")
            except UnreadableError as error:
                count = count_in(given, "annotations")
                account.objects.read += count
                account.drop_image(error.reason, where, error.detail, objects=count)
                continue
            media = item.image or item.media or _Media()
            if not media.path:
                account.note("item without the path of its image: its id is taken", item.id)
            shapes, lost = _shapes(item.annotations or [], names, media.size, where, account)
            yield SourceImage(
                file=clean_path(media.path or str(item.id)),
                stem=str(item.id),
                width=media.size[1] if media.size else None,
                height=media.size[0] if media.size else None,
                shapes=shapes,
                lost=lost,
                undeclared="item without a list of annotations" if item.annotations is None else "",
                split=path.stem,
            )


def _shapes(
    given: list[Any], names: list[str], size: tuple[float, float] | None, where: str, account: Account
) -> tuple[list[Shape], int]:
    """The objects of an image, and how many of them were dropped. size: its height and width."""
    alone: list[Shape] = []
    groups: dict[tuple[int, int | None, bool], list[Shape]] = {}
    lost = 0
    for index, entry in enumerate(given):
        name = f"annotation {index} of {where}"
        try:
            annotation: _Annotation = loose_structure(entry, _Annotation)
            shape = _shape(annotation, names, size, name, account)
        except UnreadableError as error:
            account.objects.read += 1
            account.drop_object(error.reason, name, error.detail)
            lost += 1
            continue
        if annotation.group and annotation.type in ("bbox", "polygon", "mask"):
            groups.setdefault((annotation.group, annotation.label_id, shape.crowd), []).append(shape)
        else:
            alone.append(shape)
    joined = [shape for members in groups.values() for shape in _joined(members, account)]
    account.objects.read += len(alone) + len(joined)
    return alone + joined, lost


def _joined(members: list[Shape], account: Account) -> list[Shape]:
    """The shapes of one group and label as one object, if their polygons and masks have at most one box."""
    boxes = [shape for shape in members if shape.box is not None and not shape.was]
    polygons = [shape.poly for shape in members if shape.was == "polygon" and shape.poly is not None]
    masks = [shape.box for shape in members if shape.was == _MASK and shape.box is not None]
    if len(members) == 1 or len(boxes) > 1 or len(boxes) + len(polygons) + len(masks) < len(members):
        return members
    account.note("shapes of one group and label: one object", members[0].name, count=len(members))
    return [
        msgspec.structs.replace(
            members[0],
            box=boxes[0].box if boxes else None,
            poly=polygons[0] if len(polygons) == 1 and not masks else None,
            outlines=[*polygons, *([x1, y1, x2, y1, x2, y2, x1, y2] for x1, y1, x2, y2 in masks)],
            was="" if boxes else "polygon" if polygons else _MASK,
        )
    ]


def _shape(item: _Annotation, names: list[str], size: tuple[float, float] | None, name: str, account: Account) -> Shape:
    """Raises UnreadableError for an annotation that is no object, or has no numbers."""
    if item.type in ("label", "caption"):
        raise UnreadableError(f"{item.type} of the whole image: what is where is not said")
    if item.type not in ("bbox", "polygon", "points", "ellipse", "mask"):
        known = item.type.isidentifier() and len(item.type) < 40
        cure = "; export as COCO Keypoints, and use --from coco --keypoints" if item.type == "skeleton" else ""
        raise UnreadableError(f"{item.type}: records have no such geometry{cure}" if known else "type that is no name")
    label = None
    if item.label_id is not None:
        if not 0 <= item.label_id < len(names):
            raise UnreadableError("label_id without a name", str(item.label_id))
        label = names[item.label_id]
    attributes = item.attributes or _Attributes()
    crowd = bool(attributes.is_crowd)
    if item.type == "bbox":
        if item.bbox is None:
            raise UnreadableError("bbox without its numbers")
        box = corners(item.bbox, "xywh")
        if poly := turned(box, angle(attributes.rotation, account, name)):
            return Shape(label=label, poly=poly, crowd=crowd, was=TURNED, name=name)
        return Shape(label=label, box=box, crowd=crowd, name=name)
    if item.type == "mask":
        height, width = size or (None, None)
        return Shape(label=label, box=rle_box(item.rle or {}, width, height), crowd=crowd, was=_MASK, name=name)
    points = item.points or []
    if not points or len(points) % 2 or (item.type == "ellipse" and len(points) != 4):
        raise UnreadableError(f"{item.type} without pairs of numbers", shortened(str(points), 80))
    if item.type == "points":
        return Shape(label=label, points=_present(points, item.visibility, name, account), name=name)
    if item.type == "polygon":
        return Shape(label=label, poly=points, crowd=crowd, was="polygon", name=name)
    x1, y1, x2, y2 = points
    if not (x1 < x2 and y1 < y2):
        return Shape(label=label, box=(x1, y1, x2, y2), crowd=crowd, was="ellipse", name=name)
    around, outline, quad = ellipse((x1, y1, x2, y2), 0.0)
    return Shape(label=label, box=around, outlines=[outline], turned=quad, crowd=crowd, was="ellipse", name=name)


def _present(points: list[float], visibility: list[int] | None, name: str, account: Account) -> list[float]:
    """The points that are there. Raises UnreadableError where none is, or where it is not said of each."""
    if visibility is None:
        return points
    if len(visibility) != len(points) // 2 or any(seen not in (0, 1, 2) for seen in visibility):
        raise UnreadableError("visibility that is not 0, 1 or 2 of each point", str(visibility))
    found = [value for at, seen in enumerate(visibility) if seen for value in points[2 * at : 2 * at + 2]]
    if not found:
        raise UnreadableError("points that are all absent (visibility 0)")
    if absent := visibility.count(0):
        account.note("point that is absent (visibility 0): left out", name, count=absent)
    return found
