"""What readers hand over: images and their shapes; the settings they read under; the account of what became of each.

Torch-free. Positions are on pixel edges: an image of width W spans 0..W, and a box that covers it is (0, 0, W, H).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import attrs
import msgspec

from coordcore import InputError
from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.quantisation import Quantisation
from coordcore.records.annotations import Space
from coordcore.records.record import LARGEST

Box = tuple[float, float, float, float]
BoxOrder = Literal["xyxy", "xywh", "cxcywh", "yxyx"]
"""What four numbers are: two corners, corner and size, centre and size, or two corners with y first."""

Purpose = Literal["training", "evaluation"]
"""What records are for. Of an image that has crowd regions only, evaluation knows what not to count; training would
learn that nothing is there."""

CROWD, POINTS = "crowd", "points"
"""The kinds of object that travel under `metadata`, and the keys they have there."""

AREAS = "object_areas"
"""The key under `metadata` of the areas of a record's objects, null for one that its box speaks for."""

ASKED = ("task", "question", "answer", "categories")
"""The keys of a record that say what it asks."""

TURNED = "rotated box"
"""What `Shape.was` says of the four corners of a rotated box: those of any other polygon say "polygon"."""

Crowd = Literal["carry", "drop", "objects"]
"""What becomes of regions of several objects. As objects they are read where a tool calls every mask a crowd."""

Per = Literal["expression", "image"]
"""What a record is made of, where referring expressions are converted."""

EXAMPLES = 3


class Shape(msgspec.Struct, kw_only=True, gc=False):
    """One annotated shape, in pixels of the image as it was annotated (or in fractions of it: SourceImage.fractions).

    box: x1, y1, x2, y2. poly: x1, y1, x2, y2, ... of one polygon. points: x, y, ... that enclose nothing. outlines:
    polygons that are never written, but by which the shape is cut at the edge of its image: an ellipse's beside its
    box, or several in place of a box. At least one of the four is there, a shape with points has nothing else, and x
    and y come in pairs; anything else may be wrong.
    turned: of an ellipse, the corners of the box that it is inscribed in, turned as it is.
    keypoints, seen: x, y, ... of named places of the object, and how well each is to be seen (2, 1, or 0 for one that
    is not labelled).
    area: of the object itself in square pixels, of its mask for instance; None where it is the box's.
    crowd: a region of several objects. difficult: VOC's mark. was: what the source held when that is no box ("polygon",
    "rotated box"), for the account. name: what messages call it ("annotation 17").
    """

    label: str | None
    box: Box | None = None
    poly: list[float] | None = None
    points: list[float] | None = None
    outlines: list[list[float]] | None = None
    turned: list[float] | None = None
    keypoints: list[float] | None = None
    seen: list[int] = []
    area: float | None = None
    crowd: bool = False
    difficult: bool = False
    was: str = ""
    name: str = ""


class SourceImage(msgspec.Struct, kw_only=True, gc=False):
    """One image and its shapes, as a reader found them.

    file: its path as the source writes it, with forward slashes. stem: another name without suffix that the file may
    have, as its annotation file has it. width, height: as the source states them, None when it does not. fractions: the
    shapes are in fractions of the image, of its sides less `inset` pixels. path: the file itself, where the reader
    knows it. id, split: the source's own. summary, metadata: for the record, and asked, its keys of a task (`ASKED`);
    a phrase without a question is asked for by the label of its object.

    An image without shapes becomes a record that says "nothing is there" only where the source says so. lost: how many
    of its objects the reader has dropped (`Account.drop_object`, each under its reason), those among them that may be
    this image's or another's. undeclared: why the source does not say that an image without objects is empty, as the
    reason under which it is dropped; "" where it does.
    """

    file: str
    width: float | None
    height: float | None
    shapes: list[Shape]
    stem: str = ""
    fractions: bool = False
    inset: float = 0.0
    path: Path | None = None
    lost: int = 0
    undeclared: str = ""
    id: Any = None
    split: str | None = None
    summary: str | None = None
    metadata: dict[str, Any] = {}
    asked: dict[str, Any] = {}


@attrs.frozen(kw_only=True)
class Reading:
    """How a source is read.

    images: folder of the image files. classes: file with the class names. instances: COCO file that REFER's refs point
    into. space, boxes, quantisation: what the numbers are, where the format does not say. origin: what VOC calls the
    first pixel, None to find out. attribute: of VIA's regions, the one that holds the label. frames: of a video, every
    how many-th is an image. polygons, points, keypoints: whether these are wanted, so that they need not be read
    otherwise. crowds: whether regions of several objects are wanted as such. partial: whether images are wanted on
    which only some categories were looked for. per: of referring expressions, what a record is for; every expression
    when None.
    """

    images: Path | None = None
    classes: Path | None = None
    instances: Path | None = None
    space: Space | None = None
    boxes: BoxOrder | None = None
    quantisation: Quantisation | None = None
    origin: Literal[0, 1] | None = None
    attribute: str | None = None
    frames: int | None = None
    per: Per | None = None
    polygons: bool = False
    points: bool = False
    keypoints: bool = False
    crowds: bool = True
    partial: bool = False

    @property
    def coords(self) -> CoordFormat:
        """Of bins in the source, the usual where it has none. Raises InputError for more bins than there are tokens."""
        if self.space != "bin" or self.quantisation is None:
            return DEFAULT_COORDS
        try:
            return CoordFormat(bins=self.quantisation.bins)
        except ValueError as error:
            name = self.quantisation.name
            raise InputError(f"--from-quantisation {name}: {error.args[0]}; convert from pixels") from error


@attrs.frozen(kw_only=True)
class Found:
    """What a reader returns: the images, and how many there will be where that is known, for the progress bar."""

    images: Iterator[SourceImage]
    total: int | None = None


@attrs.define(kw_only=True)
class Tally:
    """Counts of one kind of thing. `read` is counted where it is read, the others where each thing ends."""

    read: int = 0
    written: int = 0
    carried: dict[str, int] = attrs.Factory(dict)
    dropped: dict[str, int] = attrs.Factory(dict)

    @property
    def balanced(self) -> bool:
        """Whether everything that was read was written, carried elsewhere, or dropped for a reason."""
        return self.read == self.written + sum(self.carried.values()) + sum(self.dropped.values())


@attrs.define
class Account:
    """What became of every image and object of a conversion, with up to three examples for each reason."""

    images: Tally = attrs.Factory(Tally)
    objects: Tally = attrs.Factory(Tally)
    notes: dict[str, int] = attrs.Factory(dict)
    examples: dict[str, list[str]] = attrs.Factory(dict)

    def drop_image(self, reason: str, *where: Any, objects: int = 0) -> None:
        """Count an image as dropped, with the objects that go with it. where: joined by spaces when it is shown."""
        reason = _text(reason)
        _add(self.images.dropped, reason)
        if objects:
            _add(self.objects.dropped, f"image dropped: {reason}", objects)
        self._example(reason, where)

    def drop_object(self, reason: str, *where: Any, count: int = 1) -> None:
        reason = _text(reason)
        _add(self.objects.dropped, reason, count)
        self._example(reason, where)

    def carry_objects(self, kind: str, count: int) -> None:
        """Count objects that go under `metadata`."""
        _add(self.objects.carried, kind, count)

    def carry_image(self, kind: str) -> None:
        """Count a record that goes into another of its image."""
        _add(self.images.carried, kind)

    def note(self, what: str, *where: Any, count: int = 1) -> None:
        """Count something that was changed or is worth knowing, and drops nothing."""
        what = _text(what)
        _add(self.notes, what, count)
        self._example(what, where)

    def _example(self, reason: str, where: tuple[Any, ...]) -> None:
        known = self.examples.setdefault(reason, [])
        if where and len(known) < EXAMPLES:
            known.append(_text(" ".join(text for item in where if (text := str(item)))))

    def rename(self, written: str, shown: str) -> None:
        """Say `shown` for the path `written` in the examples."""
        self.examples = {key: [item.replace(written, shown) for item in found] for key, found in self.examples.items()}

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in attrs.asdict(self).items() if key != "examples"} | {
            "examples": {key: shown for key, shown in self.examples.items() if shown}
        }

    def lines(self) -> list[str]:
        """The account as a table for the terminal."""
        kinds = {"images": self.images, "objects": self.objects}
        carried = sorted({key for tally in kinds.values() for key in tally.carried})
        rows = [["", "read", "written", *carried, "dropped"]]
        for name, tally in kinds.items():
            under = [str(tally.carried.get(key, 0)) for key in carried]
            rows.append([name, str(tally.read), str(tally.written), *under, str(sum(tally.dropped.values()))])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = []
        for head, *cells in rows:
            numbers = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
            lines.append("  ".join([head.ljust(widths[0]), *numbers]))
        for title, reasons in (
            ("images dropped", self.images.dropped),
            ("objects dropped", self.objects.dropped),
            ("notes", self.notes),
        ):
            if reasons:
                lines += ["", title, *self._reasons(reasons)]
        return lines

    def _reasons(self, reasons: dict[str, int]) -> list[str]:
        width = max(len(str(count)) for count in reasons.values())
        lines = []
        for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
            shown = self.examples.get(reason, [])
            example = f" (e.g. {_short(shown[0])})" if shown else ""
            lines.append(f"  {count:>{width}}  {_short(reason, 300)}{example}")
        return lines


Reader = Callable[[Path, Reading, Account], Found]


def corners(values: tuple[float, ...] | list[float], order: BoxOrder) -> Box:
    """Four numbers of `order` as x1, y1, x2, y2."""
    a, b, c, d = values
    if order == "xywh":
        return a, b, a + c, b + d
    if order == "cxcywh":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if order == "yxyx":
        return b, a, d, c
    return a, b, c, d


def is_area(given: Any) -> bool:
    """Whether it is the area of something: a number above 0, and none that a float cannot hold exactly."""
    return type(given) in (int, float) and 0 < given <= LARGEST


def _text(given: str) -> str:
    """`given` as it fits into a UTF-8 account, whatever a broken file calls itself or its parts."""
    return given if given.isascii() else given.encode("utf-8", "replace").decode()


def _add(counts: dict[str, int], key: str, count: int = 1) -> None:
    counts[key] = counts.get(key, 0) + count


def printable(text: str) -> str:
    """`text` without what a terminal would take for a command."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _short(text: str, limit: int = 100) -> str:
    """One line of printable text."""
    plain = printable(text)
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"
