"""Writing COCO instances files: which records they can hold, an entry for each image, ids and categories.

A COCO file says what is in an image, and asks nothing. Records that ask for every object, or for those of some
categories, become its images, all of an image one; records of any other task are dropped and counted under its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import attrs
import msgspec

from coordcore.records.geometry import bounds
from coordcore_data.convert.core import Account
from coordcore_data.convert.geometry import poly_area
from coordcore_data.convert.rules import FinalImage, FinalObject

_POINTS = "points: COCO's keypoints belong to a box"
_SOME = "named"
"""The task of a record that asks for some categories, so that it does not say that nothing else is there."""


@attrs.define
class CocoWriter:
    """One COCO instances file. The images and boxes are held until `finish`, for their ids and categories.

    categories: name -> id where they are given; a label without one is dropped and counted. Otherwise the ids are
    1, 2, ... by name over `labels`, which the files of all splits share.
    """

    file: BinaryIO
    categories: Mapping[str, int] | None
    labels: set[str]
    account: Account
    held: list[tuple[FinalImage, str]] = attrs.field(factory=list)
    images: int = 0
    _by_path: dict[str, list[FinalImage]] = attrs.field(init=False, factory=dict)

    def add(self, image: FinalImage, path: str) -> None:
        task, count = image.asked.get("task", "detect"), _count(image)
        if task not in ("detect", _SOME):
            reason = f'the task "{task}", which a COCO file cannot say'
            self.account.drop_image(reason, path, image.asked.get("question", ""), objects=count)
            return
        if task == _SOME:
            self.account.note('the task "named": a COCO file does not say which categories were looked for', path)
        if "question" in image.asked:
            self.account.note("question: a COCO file asks none", path)
        entries = self._by_path.setdefault(path, [])
        entry = next((item for item in entries if item.id is None or image.id is None or item.id == image.id), None)
        if entry is None:
            entries.append(image)
            self.held.append((image, path))
        elif (entry.width, entry.height) != (image.width, image.height):
            reason = "of another size than an earlier record of its image"
            self.account.drop_image(reason, path, f"{image.width} x {image.height}", objects=count)
            return
        else:
            self.account.carry_image("merged")
            self._merge(entry, image, path)
        self.labels.update(item.desc for item in (*image.objects, *image.crowd) if item.kind != "point")

    def _merge(self, entry: FinalImage, image: FinalImage, path: str) -> None:
        """Add what a further record of an image says is there to what is known."""
        repeated = 0
        for known, found in ((entry.objects, image.objects), (entry.crowd, image.crowd), (entry.points, image.points)):
            there: dict[tuple[Any, ...], list[FinalObject]] = {}
            for item in known:
                there.setdefault(_said(item), []).append(item)
            for item in found:
                if same := there.get(_said(item)):
                    repeated += 1
                    # One of them may have been annotated further than the other.
                    first = same.pop(0)
                    first.keypoints = first.keypoints or item.keypoints
                    first.area = item.area if first.area is None else first.area
                else:
                    known.append(item)
        if repeated:
            self.account.drop_object("in several records of its image: written once", path, count=repeated)
        entry.difficult += image.difficult
        entry.id = image.id if entry.id is None else entry.id
        if image.asked.get("task") != _SOME:
            entry.asked = {}

    def finish(self) -> None:
        self.held = [item for item in self.held if self._says_something(*item)]
        categories = self.categories
        if categories is None:
            categories = {name: number for number, name in enumerate(sorted(self.labels), 1)}
        else:
            self.held = [item for item in self.held if self._keeps_objects(*item, categories)]
        self.images = len(self.held)
        self.account.images.written += self.images
        ids = self._image_ids()
        encode = msgspec.json.Encoder().encode
        images = (
            {"id": number, "file_name": path, "width": image.width, "height": image.height}
            for number, (image, path) in zip(ids, self.held, strict=True)
        )
        self.file.write(b'{"images": [')
        self._write_all(map(encode, images))
        self.file.write(b'],\n"annotations": [')
        self._write_all(map(encode, self._annotations(ids, categories)))
        listed = [{"id": number, "name": name} for name, number in categories.items()]
        self.file.write(b'],\n"categories": ' + encode(listed) + b"}\n")

    def _says_something(self, image: FinalImage, path: str) -> bool:
        """Whether an image without annotations may say that nothing is there."""
        if image.asked.get("task") == _SOME and not (image.objects or image.crowd):
            reason = "asked for some categories, and none is there: COCO would say that nothing is"
            self.account.drop_image(reason, path, objects=_count(image))
            return False
        if image.objects and all(item.kind == "point" for item in image.objects) and not image.crowd:
            self.account.drop_image(_POINTS, path, objects=_count(image))
            return False
        return True

    def _keeps_objects(self, image: FinalImage, path: str, categories: Mapping[str, int]) -> bool:
        """Whether the image still says what is there, once the objects without a category are gone."""
        held = [*image.objects, *image.crowd]
        if not held or any(item.desc in categories for item in held if item.kind != "point"):
            return True
        reason = "none of its labels is among the given categories"
        self.account.drop_image(reason, path, objects=_count(image))
        return False

    def _write_all(self, items: Iterable[bytes]) -> None:
        separator = b"\n"
        for item in items:
            self.file.write(separator + item)
            separator = b",\n"

    def _image_ids(self) -> Sequence[int]:
        """The images' own ids when every image has a whole number of its own, else 1, 2, ..."""
        own = [image.id for image, _ in self.held]
        if all(type(item) is int for item in own) and len(set(own)) == len(own):
            return own
        if any(item is not None for item in own):
            self.account.note("image id numbered anew: not every image has a whole number of its own", count=len(own))
        return range(1, len(own) + 1)

    def _annotations(self, ids: Sequence[int], categories: Mapping[str, int]) -> Iterable[dict[str, Any]]:
        number = 0
        for image_id, (image, path) in zip(ids, self.held, strict=True):
            if image.points:
                self.account.drop_object(_POINTS, path, count=len(image.points))
            if image.difficult:
                self.account.note("difficult: COCO has no such mark", path, count=len(image.difficult))
            for item, crowd in [*((item, 0) for item in image.objects), *((region, 1) for region in image.crowd)]:
                if item.kind == "point":
                    self.account.drop_object(_POINTS, path)
                    continue
                category = categories.get(item.desc)
                if category is None:
                    self.account.drop_object("label is not among the given categories", path, repr(item.desc))
                    continue
                number += 1
                self.account.objects.written += 1
                yield _annotation(item, number, image_id, category, crowd)


def _count(image: FinalImage) -> int:
    return len(image.objects) + len(image.crowd) + len(image.points)


def _said(item: FinalObject) -> tuple[Any, ...]:
    return item.desc, item.kind, *item.values


def _annotation(item: FinalObject, number: int, image_id: int, category: int, crowd: int) -> dict[str, Any]:
    x1, y1, x2, y2 = item.values if item.kind == "bbox_2d" else bounds(list(item.values))
    annotation: dict[str, Any] = {
        "id": number,
        "image_id": image_id,
        "category_id": category,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": crowd,
    }
    if item.keypoints:
        shown = sum(seen > 0 for seen in item.keypoints[2::3])
        annotation |= {"keypoints": item.keypoints, "num_keypoints": shown}
    if item.kind != "bbox_2d":
        annotation |= {"segmentation": [item.values], "area": poly_area(list(item.values))}
    if item.area is not None:
        annotation["area"] = item.area
    return annotation
