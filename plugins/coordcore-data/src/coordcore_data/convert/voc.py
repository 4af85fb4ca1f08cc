"""Pascal VOC: one XML file per image, boxes in pixels, 1-based with the last pixel included.

A box from xmin to xmax covers the pixels xmin..xmax of 1..width; on pixel edges that is xmin - 1 .. xmax. Many tools
write this form with positions that start at 0, and with xmax = width for the right edge: corners on pixel edges as they
are. A corner at 0 proves that for the whole source, since the first pixel of VOC is 1; `--origin` says it.
Not carried: pose, truncated, occluded, actions, parts of objects, segmentation masks. Rotated boxes (`robndbox`) are
dropped: their files do not declare the convention of the angle.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from coordcore_data.convert.core import Account, Box, Found, Reading, Shape, SourceImage
from coordcore_data.convert.text import UnreadableError, clean_path, find_files, number, parse_xml, read_bytes

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_FIRST = re.compile(rb"[xy]m(?:in|ax)[^>]*>\s*[-+]?0*(?:0|\.)", re.IGNORECASE)
"""A corner that may be at 0, so that most files need not be parsed to see it."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError when there are no XML files. reading.origin: None to find out."""
    files = find_files(source, ".xml")
    root = source if source.is_dir() else source.parent
    origin = reading.origin
    if origin is None:
        proof = next((path for path in files if _starts_at_zero(path)), None)
        origin = 1 if proof is None else 0
        if proof is not None:
            account.note("origin 0: a corner at 0 shows it, VOC's first pixel is 1; --origin 1 says otherwise", proof)
    return Found(images=_images(files, root, origin, account), total=len(files))


def _parsed(data: bytes) -> Element:
    """As `parse_xml`, with tags in lower case and without their namespaces."""
    root = parse_xml(data)
    for item in root.iter():
        item.tag = item.tag.rpartition("}")[2].lower()
    return root


def _starts_at_zero(path: Path) -> bool:
    try:
        data = read_bytes(path)
        root = _parsed(data) if _FIRST.search(data.replace(b"\0", b"")) else None
    except UnreadableError:
        return False
    corners = [] if root is None else root.iterfind(".//object/bndbox")
    values = [_number(corner, key) for corner in corners for key in _CORNERS]
    return any(value is not None and 0 <= value < 0.5 for value in values)


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
    for given in boxes:
        box = _box(given, origin)
        if box is None:
            account.drop_object("bndbox without four numbers", name)
        else:
            yield Shape(label=label, box=box, difficult=difficult, name=name)


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
