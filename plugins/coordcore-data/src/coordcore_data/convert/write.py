"""Writing records in the declared space, and which split an image goes to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import attrs
import msgspec

from coordcore import InputError
from coordcore.quantisation import Quantisation, encode_boxes
from coordcore.records.annotations import Space
from coordcore_data.convert.core import AREAS, CROWD, POINTS, Account
from coordcore_data.convert.geometry import uncrossed
from coordcore_data.convert.rules import FinalImage, FinalObject

Splits = tuple[tuple[str, float], ...]

_BATCH = 4096
_NO_SPLIT = "no split of its own in the source, or one that cannot be part of a file name"


def choose_split(key: str, splits: Splits) -> str:
    """The split of an image, by a hash of its file name: the same in every file, in every order, on every machine."""
    position = int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) / 2**64
    passed = 0.0
    for name, share in splits:
        passed += share
        if position < passed:
            return name
    return splits[-1][0]  # the shares add up to 1 but for rounding


class Writer(Protocol):
    """Writes the images of one output file."""

    images: int
    """How many are written."""

    def add(self, image: FinalImage, path: str) -> None:
        """Take one image; it may be written later."""

    def finish(self) -> None:
        """Write everything that was added."""


class _RecordObject(msgspec.Struct, omit_defaults=True, gc=False):
    desc: str
    bbox_2d: Any = None
    poly: Any = None
    poly_points: int | None = None
    point: Any = None
    quad: Any = None
    keypoints: Any = None


class _Record(msgspec.Struct, omit_defaults=True, gc=False):
    images: list[str]
    width: int
    height: int
    objects: list[_RecordObject]
    summary: str | None = None
    task: str | None = None
    question: str | None = None
    answer: str | None = None
    categories: list[str] | None = None
    metadata: dict[str, Any] | None = None


@attrs.define
class RecordWriter:
    """One JSONL file of records. quantisation: for the space "bin" only. source: what they are made of."""

    file: BinaryIO
    space: Space
    quantisation: Quantisation | None
    account: Account
    source: Path
    pending: list[tuple[FinalImage, str]] = attrs.field(factory=list)
    images: int = 0
    _declared: dict[str, Any] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._declared = self.quantisation.as_dict() if self.quantisation is not None else {}

    def add(self, image: FinalImage, path: str) -> None:
        self.pending.append((image, path))
        if len(self.pending) == _BATCH:
            self.finish()

    def finish(self) -> None:
        """Write what is pending."""
        encode = msgspec.json.Encoder().encode
        objects = [(item, image) for image, _ in self.pending for item in (*image.objects, *image.crowd, *image.points)]
        values = iter(self._values(objects))
        for image, path in self.pending:
            self.file.write(encode(self._record(image, path, values)))
            self.file.write(b"\n")
        self.images += len(self.pending)
        self.account.images.written += len(self.pending)
        self.pending.clear()

    def _record(self, image: FinalImage, path: str, values: Iterator[Any]) -> _Record:
        objects = [_record_object(item, next(values), self._keypoints(item, image)) for item in image.objects]
        self.account.objects.written += len(objects)
        metadata = dict(image.metadata)
        if self.quantisation is not None:
            metadata["quantisation"] = self._declared
        if image.id is not None:
            metadata["image_id"] = image.id
        if any(item.area is not None for item in image.objects):
            metadata[AREAS] = [item.area for item in image.objects]
        if image.difficult:
            metadata["difficult"] = image.difficult
        for key, shapes in ((CROWD, image.crowd), (POINTS, image.points)):
            if shapes:
                metadata[key] = [{"desc": shape.desc, shape.kind: next(values)} for shape in shapes]
                self.account.carry_objects(key, len(shapes))
        size = image.width, image.height
        return _Record([path], *size, objects, image.summary, metadata=metadata or None, **image.asked)

    def _keypoints(self, item: FinalObject, image: FinalImage) -> list[float] | None:
        if not item.keypoints or self.space == "pixel":
            return item.keypoints or None
        places = [value for at in range(0, len(item.keypoints), 3) for value in item.keypoints[at : at + 2]]
        written = fractions(places, image.width, image.height)
        if self.quantisation is not None:
            written = [*self._bins(self.quantisation, places, f"keypoints of {item.desc!r}", image)]
        pairs = zip(written[::2], written[1::2], item.keypoints[2::3], strict=True)
        return [value for triple in pairs for value in triple]

    def _bins(self, spec: Quantisation, places: Sequence[float], what: str, image: FinalImage) -> list[int]:
        """The bins of x, y, ... Raises InputError where the convention has none for points."""
        try:
            found: list[int] = spec.encode(places, [image.width, image.height] * (len(places) // 2)).tolist()
        except InputError as error:
            raise InputError(f"{self.source}: {image.file}: {what}: {error}") from error
        return found

    def _values(self, objects: Sequence[tuple[FinalObject, FinalImage]]) -> list[Any]:
        """The coordinates of each in the file's space."""
        if self.space == "pixel":
            return [item.values for item, _ in objects]
        if self.quantisation is None:
            return [fractions(item.values, image.width, image.height) for item, image in objects]
        found: list[Any] = [None] * len(objects)
        boxes: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, (item, image) in enumerate(objects):
            if item.kind == "bbox_2d":
                boxes[image.width, image.height].append(index)
            else:
                bins = self._bins(self.quantisation, item.values, f"{item.kind} of {item.desc!r}", image)
                found[index] = uncrossed(bins) if item.kind == "quad" else bins
        # The boxes of all images of one size at once: encoding one image at a time takes longer than all the rest.
        for (width, height), indices in boxes.items():
            values = [objects[index][0].values for index in indices]
            encoded = encode_boxes(values, width, height, quantisation=self.quantisation)
            if encoded.widened:
                self.account.note("box smaller than a bin: widened by one", count=encoded.widened)
            for index, bins in zip(indices, encoded.bins.tolist(), strict=True):
                found[index] = bins
        return found


def fractions(values: Sequence[float], width: int, height: int) -> list[float]:
    """x, y, ... in pixels as fractions of the image."""
    return [value / (height if index % 2 else width) for index, value in enumerate(values)]


def _record_object(item: FinalObject, values: Any, keypoints: list[float] | None) -> _RecordObject:
    if item.kind == "poly":
        return _RecordObject(item.desc, None, values, len(values) // 2, keypoints=keypoints)
    return _RecordObject(item.desc, **{item.kind: values}, keypoints=keypoints)


def split_of(image: FinalImage, splits: Splits | str | None, account: Account) -> tuple[str | None, bool]:
    """The split an image goes to (None for a single file), and whether it goes anywhere.

    splits: shares by name, "source" for the source's own splits, or None for one file.
    """
    if splits is None:
        return None, True
    if not isinstance(splits, str):
        return choose_split(image.file, splits), True
    if image.split is None or not re.fullmatch(r"[\w-]+", image.split):
        count = len(image.objects) + len(image.crowd) + len(image.points)
        account.drop_image(_NO_SPLIT, image.file, objects=count)
        return None, False
    return image.split, True
