"""Pascal VOC: one XML file per image, boxes in pixels, 1-based with the last pixel included.

A box from xmin to xmax covers the pixels xmin..xmax of 1..width; on pixel edges that is xmin - 1 .. xmax.
Not carried: pose, truncated, occluded, actions, parts of objects, segmentation masks. Rotated boxes (`robndbox`) are
dropped: their files do not declare the convention of the angle.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from coordcore_data.convert.core import Account, Found, Reading, Shape, SourceImage
from coordcore_data.convert.text import UnreadableError, clean_path, find_files, parse_xml, read_bytes

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError when there are no XML files."""
    files = find_files(source, ".xml")
    return Found(images=_images(files, account), total=len(files))


def _images(files: list[Path], account: Account) -> Iterator[SourceImage]:
    for path in files:
        account.images.read += 1
        try:
            root = parse_xml(read_bytes(path))
        except UnreadableError as error:
            account.drop_image(error.reason, path, error.detail)
            continue
        objects = root.findall("object")
        account.objects.read += len(objects)
        if root.tag != "annotation":
            account.drop_image("XML without a VOC annotation", path, f"<{root.tag}>", objects=len(objects))
            continue
        shapes = [shape for index, one in enumerate(objects) if (shape := _shape(one, path, index, account))]
        yield SourceImage(
            file=clean_path(_text(root, "filename") or ""),
            width=_number(root, "size/width"),
            height=_number(root, "size/height"),
            shapes=shapes,
            lost=len(objects) - len(shapes),
        )


def _shape(one: Element, path: Path, index: int, account: Account) -> Shape | None:
    name = f"object {index} of {path.name}"
    if one.find("bndbox") is None:
        rotated = "robndbox: a rotated box of an undeclared angle convention"
        account.drop_object(rotated if one.find("robndbox") is not None else "no bndbox", name)
        return None
    values = [_number(one, f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
    if any(value is None for value in values):
        account.drop_object("bndbox without four numbers", name)
        return None
    x1, y1, x2, y2 = (value for value in values if value is not None)
    if one.find("part") is not None:
        account.note("parts of an object: not carried", name)
    difficult = (_text(one, "difficult") or "0") not in ("0", "false", "False")
    return Shape(label=_text(one, "name"), box=(x1 - 1, y1 - 1, x2, y2), difficult=difficult, name=name)


def _text(element: Element, path: str) -> str | None:
    text = element.findtext(path)
    return None if text is None else text.strip()


def _number(element: Element, path: str) -> float | None:
    """The number there, None without one."""
    try:
        return float(element.findtext(path) or "")
    except ValueError:
        return None
