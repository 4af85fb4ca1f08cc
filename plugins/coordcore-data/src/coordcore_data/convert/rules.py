"""From a reader's image to what is written: labels, sizes, EXIF, the edge of the image, each outcome counted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import attrs
import msgspec

from coordcore import InputError
from coordcore.records.geometry import bounds
from coordcore_data.convert.core import Account, Box, Shape, SourceImage
from coordcore_data.convert.geometry import (
    NO_EXTENT,
    NO_OVERLAP,
    NOT_FINITE,
    OVER_EDGE,
    TOO_FEW_POINTS,
    Outside,
    fit_box,
    fit_poly,
)
from coordcore_data.convert.sizes import find_size, turn
from coordcore_data.convert.text import clean_label

CROWD, POINTS = "crowd", "points"
"""The kinds of object that travel under `metadata`, and the keys they have there."""


class FinalObject(msgspec.Struct, gc=False):
    """kind: "bbox_2d", "poly" or "points". values: pixels of the upright image, inside it."""

    desc: str
    kind: str
    values: tuple[float, ...] | list[float]


class FinalImage(msgspec.Struct, kw_only=True, gc=False):
    """One image ready to be written. difficult: which of `objects` VOC calls so."""

    file: str
    width: int
    height: int
    objects: list[FinalObject]
    crowd: list[FinalObject]
    points: list[FinalObject]
    difficult: list[int]
    id: Any
    split: str | None
    summary: str | None
    metadata: dict[str, Any]


@attrs.frozen(kw_only=True)
class Rules:
    """How shapes become objects. images, check_sizes: the image files, and whether to compare their sizes."""

    geometry: Literal["box", "poly"] = "box"
    crowd: Literal["carry", "drop"] = "carry"
    outside: Outside = "clip"
    images: Path | None = None
    check_sizes: bool = False


def apply_rules(images: Iterable[SourceImage], rules: Rules, account: Account) -> Iterable[FinalImage]:
    """The images that are written, in order. Raises InputError for a shape over the edge when `outside` is "error"."""
    seen: set[str] = set()
    for image in images:
        final = _final_image(image, rules, account)
        if final is None:
            continue
        if final.file in seen:
            account.note("image file in several records", final.file)
        seen.add(final.file)
        yield final


def _final_image(image: SourceImage, rules: Rules, account: Account) -> FinalImage | None:
    count = len(image.shapes)
    if not _is_text(image.file):
        account.drop_image("no file name, or one that is no valid Unicode", repr(image.file), objects=count)
        return None
    size = find_size(image, rules.images, rules.check_sizes, account)
    if isinstance(size, str):
        account.drop_image(size, image.file, objects=count)
        return None
    stored = (size.height, size.width) if size.orientation >= 5 else (size.width, size.height)
    if image.fractions:
        _scale(image.shapes, *stored)
    if size.orientation != 1:
        _turn(image.shapes, *stored, size.orientation)
    extras = image.id, image.summary, image.metadata
    if not _can_be_written(extras):
        account.note("id, summary or metadata that JSON cannot hold: not carried", image.file)
        extras = None, None, {}
    final = FinalImage(
        file=image.file,
        width=size.width,
        height=size.height,
        objects=[],
        crowd=[],
        points=[],
        difficult=[],
        id=extras[0],
        split=image.split,
        summary=extras[1],
        metadata=extras[2],
    )
    lost = image.lost > 0
    for shape in image.shapes:
        lost |= not _add_shape(shape, final, rules, account)
    if lost and not (final.objects or final.crowd or final.points):
        account.drop_image("all of its objects were dropped", image.file)
        return None
    if not final.objects:
        account.note("image without objects: an empty record" + (" but for crowd or points" if count else ""))
    return final


def _add_shape(shape: Shape, final: FinalImage, rules: Rules, account: Account) -> bool:
    """Put one shape where it belongs. False when it is dropped; either way it is counted."""
    label = clean_label(shape.label)
    if label.problem:
        account.drop_object(label.problem, final.file, shape.name, repr(shape.label))
        return False
    if label.changed:
        account.note("label with control characters or blanks that were cleaned", repr(shape.label))
    if shape.points is not None:
        return _add_points(shape, label.text, final, account)
    if shape.crowd and rules.crowd == "drop":
        account.drop_object("crowd", final.file, shape.name)
        return False
    fitted = _fit(shape, final, rules, account)
    if fitted is None:
        return False
    fitted.desc = label.text
    if shape.crowd:
        final.crowd.append(fitted)
        return True
    if shape.difficult:
        final.difficult.append(len(final.objects))
    final.objects.append(fitted)
    return True


def _add_points(shape: Shape, desc: str, final: FinalImage, account: Account) -> bool:
    points = shape.points or []
    if not all(map(math.isfinite, points)):
        account.drop_object(NOT_FINITE, final.file, shape.name)
        return False
    pairs = zip(points[::2], points[1::2], strict=True)
    if not points or not all(0 <= x <= final.width and 0 <= y <= final.height for x, y in pairs):
        account.drop_object(NO_OVERLAP, final.file, shape.name)
        return False
    final.points.append(FinalObject(desc, "points", points))
    return True


def _fit(shape: Shape, final: FinalImage, rules: Rules, account: Account) -> FinalObject | None:
    """The shape as a box or polygon inside its image, its `desc` still empty, or None when it is dropped."""
    width, height = final.width, final.height
    values: Box | list[float] | None = None
    if shape.poly is not None and rules.geometry == "poly":
        values, how = fit_poly(shape.poly, width, height)
        kind = "poly"
        if how in (TOO_FEW_POINTS, NO_EXTENT) and shape.box is not None:
            account.note("degenerate polygon: its box is written", final.file, shape.name)
            shape.poly = None
    if shape.poly is None or rules.geometry == "box":
        if shape.box is None and len(shape.poly or ()) < 6:
            values, how = None, TOO_FEW_POINTS
        else:
            values, how = fit_box(shape.box or _enclosing(shape.poly or []), width, height)
        kind = "bbox_2d"
        if shape.was and values is not None:
            account.note(f"{shape.was}: its enclosing box is written")
    if values is not None and how and rules.outside != "clip":
        if rules.outside == "error":
            raise InputError(
                f"{final.file}: {shape.name}: {list(shape.box or shape.poly or ())} {OVER_EDGE} ({width} x {height}); "
                "--outside clip cuts it there, --outside drop leaves it out"
            )
        values, how = None, OVER_EDGE
    if values is None:
        account.drop_object(how, final.file, shape.name, list(shape.box or shape.poly or ()))
        return None
    if how:
        account.note(how, final.file, shape.name)
    return FinalObject("", kind, values)


def _enclosing(poly: list[float]) -> Box:
    # min and max would lose a NaN.
    return bounds(poly) if poly and all(map(math.isfinite, poly)) else (math.nan,) * 4


def _can_be_written(extras: Any) -> bool:
    try:
        msgspec.json.encode(extras)
    except (UnicodeEncodeError, OverflowError, RecursionError):
        return False
    return True


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return bool(path) and "\0" not in path


def _scale(shapes: list[Shape], width: float, height: float) -> None:
    for shape in shapes:
        if shape.box is not None:
            x1, y1, x2, y2 = shape.box
            shape.box = (x1 * width, y1 * height, x2 * width, y2 * height)
        for key in ("poly", "points"):
            values = getattr(shape, key)
            if values is not None:
                edges = (width, height) * (len(values) // 2)
                setattr(shape, key, [value * edge for value, edge in zip(values, edges, strict=True)])


def _turn(shapes: list[Shape], width: float, height: float, orientation: int) -> None:
    for shape in shapes:
        # A box with its corners in the wrong order, or with NaN in it, must stay one.
        if shape.box is not None and shape.box[0] <= shape.box[2] and shape.box[1] <= shape.box[3]:
            shape.box = bounds(turn(list(shape.box), width, height, orientation))
        for key in ("poly", "points"):
            values = getattr(shape, key)
            if values is not None:
                setattr(shape, key, turn(values, width, height, orientation))
