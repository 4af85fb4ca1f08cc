"""CVAT for images 1.1: one XML file, read image by image; shapes in pixels. For video 1.1: every Nth frame of tracks.

Rotation is in degrees, clockwise as one sees it, about the centre of the box (CVAT's own convention). A rotated box
becomes the polygon of its four corners, from the unrotated box's top left onwards, or its enclosing box.
Points go under `metadata.points`; ellipses (turned as boxes are) and masks become their enclosing boxes.
Not carried: polylines, cuboids, skeletons and tags (dropped), attributes, occluded, z_order, groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import attrs

from coordcore import InputError
from coordcore.errors import shortened
from coordcore.records.geometry import misordered
from coordcore.records.source import open_source
from coordcore_data.convert import cvat_video
from coordcore_data.convert.core import TURNED, Account, Box, Found, Reading, Shape, SourceImage
from coordcore_data.convert.geometry import NEGATIVE, ellipse, rotated
from coordcore_data.convert.text import clean_path, number, numbers, xml_errors, xml_problem

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_LONGEST_TAG = 1 << 22
_CORNERS = ("xtl", "ytl", "xbr", "ybr")


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError, while the images are read too, for a file that is no XML to its end, and for a video of which
    it is not said which frames to take."""
    if not source.is_file():
        raise InputError(f"{source}: no such file; a CVAT export is a zip archive that holds annotations.xml")
    return Found(images=_images(source, reading.frames, account))


def _images(source: Path, every: int | None, account: Account) -> Iterator[SourceImage]:
    """every: of a video's frames, every how many-th is an image."""
    from defusedxml import ElementTree

    root: Element | None = None
    meta: Element | None = None
    video: cvat_video.Video | None = None
    tracks: list[cvat_video.Track] = []
    try:
        with open_source(source) as file:
            watched = _Watched(file, source)
            for event, element in ElementTree.iterparse(watched, events=("start", "end")):
                watched.since = 0
                if root is None:
                    root = element
                    if root.tag != "annotations":
                        raise InputError(f"{source}: <{shortened(root.tag, 80)}> is not CVAT's <annotations>")
                if event == "end" and element.tag == "meta":
                    meta = element
                if event == "end" and element.tag == "track":
                    if every is None:
                        raise InputError(f"{source}: holds tracks of a video: --frames N takes every Nth frame")
                    video = video or cvat_video.read_video(meta, every, source)
                    tracks.append(cvat_video.read_track(element, video, source))
                    root.clear()
                if event == "end" and element.tag == "image":
                    if every is not None:
                        raise InputError(f"{source}: --frames {every}: holds images, no tracks of a video")
                    yield _image(element, account)
                    root.clear()  # what is done would pile up under the root
    except InputError:
        raise
    except xml_errors() as error:
        raise InputError(f"{source}: {xml_problem(error)}") from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    if every is not None:
        video = video or cvat_video.read_video(meta, every, source)
        yield from cvat_video.images(tracks, video, _shape, account)


@attrs.define
class _Watched:
    """An XML file that is read piece by piece. since: bytes read since the last tag. Raises InputError for too many."""

    file: BinaryIO
    source: Path
    since: int = 0

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.since += len(data)
        if self.since > _LONGEST_TAG:
            raise InputError(f"{self.source}: a tag or text of more than {_LONGEST_TAG >> 20} MiB; no export has one")
        return data


def _image(element: Element, account: Account) -> SourceImage:
    shapes = []
    file = clean_path(element.get("name", ""))
    account.images.read += 1
    account.objects.read += len(element)
    for index, item in enumerate(element):
        name = f"{item.tag} {index} of image {element.get('id', '')}"
        shape = _shape(item, name)
        if isinstance(shape, str):
            account.drop_object(shape, file, name, shortened(item.get("points", ""), 80))
        else:
            shapes.append(shape)
    identity = element.get("id", "")
    return SourceImage(
        file=file,
        width=_number(element, "width"),
        height=_number(element, "height"),
        shapes=shapes,
        # A tag counts too: it says of the whole image that something is there.
        lost=len(element) - len(shapes),
        id=int(identity) if identity.isdecimal() and identity.isascii() else None,
        split=element.get("subset"),
    )


def _shape(element: Element, name: str) -> Shape | str:
    """The shape, or why there is none."""
    label = element.get("label")
    if element.tag in ("polygon", "points"):
        flat = _points(element)
        if flat is None:
            return f"{element.tag} without pairs of numbers"
        if element.tag == "points":
            return Shape(label=label, points=flat, name=name)
        return Shape(label=label, poly=flat, was="polygon", name=name)
    if element.tag not in ("box", "ellipse", "mask"):
        cure = "; export as COCO Keypoints, and use --from coco --keypoints" if element.tag == "skeleton" else ""
        return f"{element.tag}: records have no such geometry{cure}"
    box, angle = _box(element), _number(element, "rotation", 0.0)
    if box is None or angle is None or not math.isfinite(angle):
        return f"{element.tag} without its numbers"
    if element.tag == "ellipse" and box[0] < box[2] and box[1] < box[3]:
        around, points, turned = ellipse(box, angle)
        return Shape(label=label, box=around, outlines=[points], turned=turned, was="ellipse", name=name)
    if not angle or element.tag != "box":
        return Shape(label=label, box=box, was="" if element.tag == "box" else element.tag, name=name)
    if misordered(box):
        return NEGATIVE  # turned, its corners would look right
    if not (box[0] < box[2] and box[1] < box[3]):
        return Shape(label=label, box=box, name=name)
    return Shape(label=label, poly=rotated(box, angle), was=TURNED, name=name)


def _box(element: Element) -> Box | None:
    keys = {"ellipse": ("cx", "cy", "rx", "ry"), "mask": ("left", "top", "width", "height")}.get(element.tag, _CORNERS)
    values = [_number(element, key) for key in keys]
    if any(value is None for value in values):
        return None
    a, b, c, d = (value for value in values if value is not None)
    if element.tag == "ellipse":
        return a - c, b - d, a + c, b + d
    return (a, b, a + c, b + d) if element.tag == "mask" else (a, b, c, d)


def _points(element: Element) -> list[float] | None:
    flat = numbers(element.get("points", ""))
    return flat if flat and len(flat) % 2 == 0 else None


def _number(element: Element, key: str, default: float | None = None) -> float | None:
    given = element.get(key)
    if given is None:
        return default
    try:
        return float(number(given))
    except ValueError:
        return None
