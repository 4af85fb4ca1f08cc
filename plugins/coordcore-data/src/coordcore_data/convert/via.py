"""VIA 2, the VGG Image Annotator: its project, or its annotations exported as JSON; shapes in pixels.

Rectangles are boxes; polygons become their enclosing boxes or stay polygons; circles and ellipses, which `theta` turns
in radians and clockwise as one sees it, become their enclosing boxes; points go under `metadata.points`. VIA 1 numbers
its regions in an object, VIA 2 lists them.
A region's label is the value of its one attribute, or of the one that `--attribute` names. Where the project describes
the options of an attribute (dropdown, radio, checkbox), the label is the description of the one that was chosen, as in
VIA's own COCO export, or its id where that is empty. A region with several boxes ticked is one object for each.
An image without regions says that nothing is there, as in COCO: VIA lists every image of a project.
Sizes come from the image files, which lie beside the JSON file or in `--image-root`.
Not carried: polylines (dropped), other attributes, attributes of files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import msgspec

from coordcore import InputError
from coordcore_data.convert.core import Account, Found, Reading, Shape, SourceImage
from coordcore_data.convert.geometry import ellipse
from coordcore_data.convert.text import UnreadableError, clean_path, load_unique, loose_structure, structure


class _Image(msgspec.Struct):
    filename: str
    regions: list[Any] | dict[str, Any]


class _Region(msgspec.Struct):
    shape_attributes: dict[str, Any]
    region_attributes: dict[str, Any] = {}


class _Numbers(msgspec.Struct):
    """Those of any shape; which of them a shape has follows from its name."""

    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None
    cx: float | None = None
    cy: float | None = None
    r: float | None = None
    rx: float | None = None
    ry: float | None = None
    theta: float = 0.0
    all_points_x: list[float] | None = None
    all_points_y: list[float] | None = None


@attrs.frozen(kw_only=True)
class _Labels:
    """Where the label of a region stands. attribute: None when no region has any. options: id -> description."""

    attribute: str | None
    options: Mapping[str, str]


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError for a file that is none of VIA's, and where it is not clear which attribute is the label."""
    content = load_unique(source)
    listed = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not any(
        isinstance(item, dict) and "regions" in item for item in listed.values()
    ):
        raise InputError(f"{source}: no images with regions; save the project of VIA 2, or export annotations as JSON")
    described = _part(content, "_via_attributes", "region")
    labels = _labels(listed, described, reading.attribute, source)
    prefix = _part(content, "_via_settings", "core").get("default_filepath")
    folder = source.parent if reading.images is None else None
    images = _images(listed, labels, prefix if isinstance(prefix, str) else "", folder, account)
    return Found(images=images, total=len(listed))


def _part(content: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def _labels(listed: Mapping[str, Any], described: Mapping[str, Any], wanted: str | None, source: Path) -> _Labels:
    regions = [region for image in listed.values() for region in _regions(image)]
    # A dict keeps the order in which they come.
    used = dict.fromkeys(
        name
        for region in regions
        for name, value in _part(region, "region_attributes").items()
        if value not in ("", None, {})
    )
    if wanted is not None and wanted not in (*described, *used):
        raise InputError(f"{source}: --attribute {wanted}: regions have {', '.join(used) or 'no attributes'}")
    if wanted is None and len(used) > 1:
        raise InputError(
            f"{source}: regions have the attributes {', '.join(used)}; say which is the label, --attribute NAME"
        )
    if regions and not used:
        raise InputError(f"{source}: regions have no attribute that could be their label; give them one in VIA")
    attribute = wanted if wanted is not None else next(iter(used), None)
    options = _part(described, attribute or "", "options")
    return _Labels(
        attribute=attribute,
        options={key: text for key, text in options.items() if isinstance(text, str) and text.strip()},
    )


def _regions(image: Any) -> list[Any]:
    given = image.get("regions") if isinstance(image, dict) else None
    return list(given.values()) if isinstance(given, dict) else given if isinstance(given, list) else []


def _images(
    listed: Mapping[str, Any], labels: _Labels, prefix: str, folder: Path | None, account: Account
) -> Iterator[SourceImage]:
    """folder: where the image files lie; None for --image-root."""
    for key, given in listed.items():
        account.images.read += 1
        regions = _regions(given)
        named = [_named(region, labels) for region in regions]
        count = sum(max(len(item), 1) for item in named)
        account.objects.read += count
        try:
            image: _Image = structure(given, _Image)
        except UnreadableError as error:
            account.drop_image(error.reason, repr(key), error.detail, objects=count)
            continue
        shapes: list[Shape] = []
        lost = 0
        for index, (region, texts) in enumerate(zip(regions, named, strict=True)):
            name = f"region {index} of {image.filename}"
            try:
                shape = _shape(region, name)
            except UnreadableError as error:
                account.drop_object(error.reason, name, error.detail, count=max(len(texts), 1))
                lost += 1
                continue
            shapes += [msgspec.structs.replace(shape, label=text) for text in texts] or [shape]
        file = clean_path(prefix + image.filename)
        yield SourceImage(
            file=file,
            width=None,
            height=None,
            shapes=shapes,
            path=folder / file if folder is not None else None,
            lost=lost,
        )


def _named(region: Any, labels: _Labels) -> list[str]:
    """The labels of a region."""
    value = _part(region, "region_attributes").get(labels.attribute or "")
    if isinstance(value, dict):
        given = [key for key, ticked in value.items() if ticked is True]
    else:
        given = [str(value)] if isinstance(value, (str, int, float)) and value != "" else []
    return [labels.options.get(entry, entry) for entry in given]


def _shape(given: Any, name: str) -> Shape:
    """A region without its label. Raises UnreadableError."""
    region: _Region = structure(given, _Region)
    kind = region.shape_attributes.get("name")
    if kind not in ("rect", "circle", "ellipse", "polygon", "point"):
        known = isinstance(kind, str) and kind.isidentifier() and len(kind) < 20
        raise UnreadableError(f"{kind}: records have no such geometry" if known else "shape without a name")
    n: _Numbers = loose_structure(region.shape_attributes, _Numbers)
    if kind == "polygon":
        if not n.all_points_x or not n.all_points_y or len(n.all_points_x) != len(n.all_points_y):
            raise UnreadableError("polygon without pairs of numbers")
        flat = [value for pair in zip(n.all_points_x, n.all_points_y, strict=True) for value in pair]
        return Shape(label=None, poly=flat, was="polygon", name=name)
    if kind == "rect":
        x, y, width, height = _all(kind, n.x, n.y, n.width, n.height)
        return Shape(label=None, box=(x, y, x + width, y + height), name=name)
    if kind == "point":
        return Shape(label=None, points=_all(kind, n.cx, n.cy), name=name)
    cx, cy, rx, ry = _all(kind, n.cx, n.cy, *((n.r, n.r) if kind == "circle" else (n.rx, n.ry)))
    if not math.isfinite(n.theta):
        raise UnreadableError("ellipse without its numbers", f"theta {n.theta}")
    box = (cx - rx, cy - ry, cx + rx, cy + ry)
    if not (rx > 0 and ry > 0):
        return Shape(label=None, box=box, was=kind, name=name)  # dropped for what its box is
    around, points, turned = ellipse(box, math.degrees(n.theta))
    return Shape(label=None, box=around, outlines=[points], turned=turned, was=kind, name=name)


def _all(kind: str, *values: float | None) -> list[float]:
    found = [value for value in values if value is not None]
    if len(found) < len(values):
        raise UnreadableError(f"{kind} without its numbers")
    return found
