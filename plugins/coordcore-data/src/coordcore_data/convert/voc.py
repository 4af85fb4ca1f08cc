"""Pascal VOC: one XML file per image, boxes in pixels, 1-based with the last pixel included.

A box from xmin to xmax covers the pixels xmin..xmax of 1..width; on pixel edges that is xmin - 1 .. xmax. Many tools
write this form with positions that start at 0, and with xmax = width for the right edge: corners on pixel edges as they
are. A corner at 0 proves that for the whole source, since the first pixel of VOC is 1; so do fractions, since pixels
are whole, but for a few: VOC2012 itself has two files with some. `--origin` says it.
The attribute `rotation` turns a box, as CVAT's exports have it: in degrees, clockwise about the centre.
Not carried: pose, truncated, occluded, actions, parts of objects, segmentation masks. Rotated boxes (`robndbox`) are
dropped: their files do not declare the convention of the angle.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from coordcore_data.convert.core import TURNED, Account, Box, Found, Reading, Shape, SourceImage
from coordcore_data.convert.text import UnreadableError, clean_path, find_files, number, parse_xml, read_bytes
from coordcore_data.convert.turning import angle, turned

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_TELLING = re.compile(rb"[xy]m(?:in|ax)[^>]*>\s*[-+]?(?:[0.]|\d+\.0*[1-9])", re.IGNORECASE)
"""A corner that may be at 0 or between pixels, so that most files need not be parsed to see it."""

_ROUNDING = 1e-3
"""Pixels. Whole numbers that were computed may miss them by less than this."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError when there are no XML files. reading.origin: None to find out."""
    files = find_files(source, ".xml")
    root = source if source.is_dir() else source.parent
    origin = reading.origin if reading.origin is not None else _find_origin(files, account)
    return Found(images=_images(files, root, origin, account), total=len(files))


def _parsed(data: bytes) -> Element:
    """As `parse_xml`, with tags in lower case and without their namespaces."""
    root = parse_xml(data)
    for item in root.iter():
        item.tag = item.tag.rpartition("}")[2].lower()
    return root


def _find_origin(files: list[Path], account: Account) -> Literal[0, 1]:
    """What the files call the first pixel, which is noted."""
    boxed, fractional = 0, []
    for path in files:
        try:
            data = read_bytes(path)
            text = data.replace(b"\0", b"")  # which UTF-16 is full of
            values = _corners(data) if _TELLING.search(text) else []
        except UnreadableError:
            continue
        boxed += b"<bndbox" in text.lower()
        if any(0 <= value < 0.5 for value in values):
            account.note("origin 0: a corner at 0 shows it, VOC's first pixel is 1; --origin 1 says otherwise", path)
            return 0
        if any(abs(value - round(value)) > _ROUNDING for value in values):
            fractional.append(path)
    if len(fractional) > boxed / 100:
        reason = "origin 0: corners between pixels show it, VOC's are whole; --origin 1 says otherwise"
        account.note(reason, fractional[0])
        return 0
    if fractional:
        few = "file with corners between pixels: too few to show origin 0"
        account.note(few, fractional[0], count=len(fractional))
    if boxed:
        account.note("origin 1, VOC's own: no corner shows another, boxes start at xmin - 1; --origin 0 says otherwise")
    return 1


def _corners(data: bytes) -> list[float]:
    """Every finite number of an XML file that is a corner of an object. Raises UnreadableError."""
    found = _parsed(data).iterfind(".//object/bndbox")
    values = [_number(corner, key) for corner in found for key in _CORNERS]
    return [value for value in values if value is not None and math.isfinite(value)]


def _images(files: list[Path], folder: Path, origin: int, account: Account) -> Iterator[SourceImage]:
    for path in files:
        account.images.read += 1
        try:
            root = _parsed(read_bytes(path))
        except UnreadableError as error:
            account.drop_image(error.reason, path, error.detail)
            continue
        objects = list(root.iter("object"))  # some tools put them into a list
        count = sum(max(1, len(item.findall("bndbox"))) for item in objects)
        account.objects.read += count
        if root.tag != "annotation":
            account.drop_image("XML without a VOC annotation", path, f"<{root.tag}>", objects=count)
            continue
        shapes = [shape for index, item in enumerate(objects) for shape in _shapes(item, path, index, origin, account)]
        stem = path.relative_to(folder).with_suffix("").as_posix()
        yield SourceImage(
            file=clean_path(_text(root, "filename") or ""),
            stem=stem,
            width=_number(root, "size/width"),
            height=_number(root, "size/height"),
            shapes=shapes,
            lost=count - len(shapes),
        )


def _shapes(element: Element, path: Path, index: int, origin: int, account: Account) -> Iterator[Shape]:
    """The shape of each bndbox of an object."""
    name = f"object {index} of {path.name}"
    boxes = element.findall("bndbox")
    if not boxes:
        rotated = "robndbox: a rotated box of an undeclared angle convention"
        account.drop_object(rotated if element.find("robndbox") is not None else "no bndbox", name)
    if len(boxes) > 1:
        account.note("object with several bndbox: an object each", name)
    if element.find("part") is not None:
        account.note("parts of an object: not carried", name)
    label, difficult = _text(element, "name"), _is_difficult(element)
    degrees = angle(_rotation(element), account, name)
    for given in boxes:
        box = _box(given, origin)
        if box is None:
            account.drop_object("bndbox without four numbers", name)
            continue
        try:
            poly = turned(box, degrees)
        except UnreadableError as error:
            account.drop_object(error.reason, name, error.detail)
            continue
        if poly is None:
            yield Shape(label=label, box=box, difficult=difficult, name=name)
        else:
            yield Shape(label=label, poly=poly, difficult=difficult, was=TURNED, name=name)


def _box(given: Element, origin: int) -> Box | None:
    """On pixel edges; None without four numbers."""
    values = [_number(given, key) for key in _CORNERS]
    if any(value is None for value in values):
        return None
    x1, y1, x2, y2 = (value for value in values if value is not None)
    if origin:
        # The first pixel of the two that are included, also where it is written second.
        x1, x2 = (x1, x2 - 1) if x2 < x1 else (x1 - 1, x2)
        y1, y2 = (y1, y2 - 1) if y2 < y1 else (y1 - 1, y2)
    return x1, y1, x2, y2


def _rotation(element: Element) -> str | None:
    """The value of that attribute, as CVAT and Datumaro write attributes."""
    for attribute in element.iterfind("attributes/attribute"):
        if _text(attribute, "name") == "rotation":
            return _text(attribute, "value")
    return None


def _is_difficult(element: Element) -> bool:
    return (_text(element, "difficult") or "").lower() in ("true", "yes") or bool(_number(element, "difficult"))


def _text(element: Element, path: str) -> str | None:
    text = element.findtext(path)
    return None if text is None else text.strip()


def _number(element: Element, path: str) -> float | None:
    """The number there, None without one."""
    try:
        return float(number(element.findtext(path) or ""))
    except ValueError:
        return None
