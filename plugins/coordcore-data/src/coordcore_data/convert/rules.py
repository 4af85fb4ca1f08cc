"""From a reader's image to what is written: labels, sizes, EXIF, the edge of the image, each outcome counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import msgspec

from coordcore import InputError
from coordcore.records.geometry import bounds, misordered
from coordcore.tasks import TASKS
from coordcore_data.convert.core import POINTS, TURNED, Account, Box, Crowd, Purpose, Shape, SourceImage
from coordcore_data.convert.geometry import (
    NO_EXTENT,
    NO_OVERLAP,
    NOT_FINITE,
    OVER_EDGE,
    TOO_FEW_POINTS,
    Geometry,
    Outside,
    fit_around,
    fit_box,
    fit_outlines,
    fit_poly,
    fit_quad,
    quad_of,
)
from coordcore_data.convert.paths import FOUND, NOT_FOUND, ImageFolder, is_absolute, strip_prefix
from coordcore_data.convert.sizes import find_size, turn
from coordcore_data.convert.text import clean_label

_FRACTIONS = (
    "all shapes of an image within one pixel: are these fractions? --from-space norm1 reads them, of formats that take "
    "it; else multiply them by width and height"
)


class FinalObject(msgspec.Struct, gc=False):
    """kind: "points", or one of `geometry.KINDS`. values: pixels of the upright image, inside it. area: as a shape's.

    keypoints: x, y in pixels and visibility of each; empty where there are none.
    """

    desc: str
    kind: str
    values: tuple[float, ...] | list[float]
    area: float | None = None
    keypoints: list[float] = []


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
    asked: dict[str, Any] = {}


@attrs.frozen(kw_only=True)
class Rules:
    """How shapes become objects.

    geometry: "own" keeps the kind of each. reversed_corners: what becomes of a box whose second corner lies before its
    first. strip: a folder that is taken off image paths. images, check_sizes: the image files, and whether to compare
    their sizes.
    """

    geometry: Geometry | Literal["own"] = "box"
    crowd: Crowd = "carry"
    outside: Outside = "clip"
    purpose: Purpose = "training"
    reversed_corners: Literal["drop", "sort"] = "drop"
    strip: str = ""
    images: Path | None = None
    check_sizes: bool = False


def apply_rules(images: Iterable[SourceImage], rules: Rules, account: Account) -> Iterable[FinalImage]:
    """The images that are written, in order. Raises InputError for a shape over the edge when `outside` is "error"."""
    seen: set[str] = set()
    folder = ImageFolder(rules.images) if rules.images is not None else None
    for image in images:
        final = _final_image(image, rules, folder, account)
        if final is None:
            continue
        if final.file in seen and not final.asked:
            account.note("image file in several records", final.file)
        seen.add(final.file)
        yield final


def _final_image(image: SourceImage, rules: Rules, folder: ImageFolder | None, account: Account) -> FinalImage | None:
    count = len(image.shapes)
    guessed = _find_file(image, rules, folder, account)
    if not _is_text(image.file):
        account.drop_image("no file name, or one that is no valid Unicode", repr(image.file), objects=count)
        return None
    size = find_size(image, rules.images, rules.check_sizes or guessed, account)
    if isinstance(size, str):
        account.drop_image(size, image.file, objects=count)
        return None
    if rules.crowd == "objects" and (crowds := [shape for shape in image.shapes if shape.crowd]):
        account.note("crowd region: read as an object", image.file, crowds[0].name, count=len(crowds))
        for shape in crowds:
            shape.crowd = False
    if rules.reversed_corners == "sort":
        _sort(image.shapes, account)
    if not image.fractions and _within_a_pixel(image.shapes):
        account.note(_FRACTIONS, image.file)
    stored = (size.height, size.width) if size.orientation >= 5 else (size.width, size.height)
    if image.fractions:
        _move(image.shapes, lambda points: _scaled(points, *(side - image.inset for side in stored)))
    if size.orientation != 1:
        _move(image.shapes, lambda points: turn(points, *stored, size.orientation))
    extras = image.id, image.summary, image.metadata
    if not _can_be_written(image.asked):
        account.drop_image("question or answer that JSON cannot hold", image.file, objects=count)
        return None
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
        asked=image.asked,
    )
    lost = untrue = image.lost > 0
    for shape in image.shapes:
        if not _add_shape(shape, final, rules, account):
            lost, untrue = True, untrue or _is_asked(shape, final.asked)
    reason = _why_left_out(final, image.undeclared, lost, rules.purpose)
    reason = _why_untrue(final, untrue) or reason
    if reason:
        account.drop_image(reason, image.file, objects=len(final.objects) + len(final.crowd) + len(final.points))
        return None
    if final.asked.get("task") == "refer" and "question" not in final.asked:
        final.asked = {**final.asked, "question": final.objects[0].desc}
    task = final.asked.get("task")
    if not final.objects and not (task in TASKS and TASKS[task].is_text):
        account.note("image with crowd regions only" if final.crowd else "image without objects: an empty record")
    return final


def _why_left_out(final: FinalImage, undeclared: str, lost: bool, purpose: Purpose) -> str:
    """Why an image without objects is no record, "" for any other. An empty record says that nothing is there."""
    if final.objects:
        return ""
    if final.crowd:
        return "" if purpose == "evaluation" else "only crowd regions; --purpose evaluation keeps the image"
    if final.points:
        return "only points (--geometry point writes them): a record without a box would say that nothing is there"
    return "all of its objects were dropped" if lost else undeclared


def _is_asked(shape: Shape, asked: Mapping[str, Any]) -> bool:
    """Whether the answer to what a record asks may speak of a shape: of a crowd region where its label is asked for."""
    if not shape.crowd:
        return True
    return asked.get("task") == "named" and clean_label(shape.label).text in asked.get("categories", [shape.label])


def _why_untrue(final: FinalImage, lost: bool) -> str:
    """Why the answer to what a record asks would not be true, "" where it is."""
    task = final.asked.get("task")
    if task == "named" and lost:
        return "an object was dropped of a category that is asked for, which would then count as absent"
    if any(item.desc in final.asked.get("categories", ()) for item in final.points):
        return (
            "points of a category that is asked for, which would then count as absent; --geometry point writes them "
            "as objects"
        )
    if task in ("refer", "point") and lost and final.objects:
        return "one of several objects that a phrase asks for was dropped: the answer would lack it"
    return ""


def _find_file(image: SourceImage, rules: Rules, folder: ImageFolder | None, account: Account) -> bool:
    """Let `image.file` name a file of the folder. Whether that is a guess, which the size must confirm."""
    if rules.strip and image.file:
        stripped = strip_prefix(image.file, rules.strip)
        if stripped:
            image.file = stripped
        else:
            account.note("image path that does not start with what --strip-prefix says", image.file)
    there = folder is None or image.path is not None or folder.has(image.file)
    if folder is not None and not (there and ".." not in image.file.split("/")):
        found = folder.find(image.file, image.stem)
        if found is not None and _is_text(found):
            account.note(FOUND, image.file, "->", found)
            image.file = found
            return True
        if image.file and not there:
            account.note(NOT_FOUND, image.file)
    if is_absolute(image.file):
        account.note("absolute image path: --strip-prefix takes off what other machines do not have", image.file)
    return False


def _add_shape(shape: Shape, final: FinalImage, rules: Rules, account: Account) -> bool:
    """Put one shape where it belongs. False when it is dropped; either way it is counted."""
    label = clean_label(shape.label)
    if label.problem:
        account.drop_object(label.problem, final.file, shape.name, repr(shape.label))
        return False
    if label.changed:
        account.note("label with control characters or blanks that were cleaned", repr(shape.label))
    if rules.geometry == "own":
        rules = attrs.evolve(rules, geometry=_own_geometry(shape))
    if shape.crowd and rules.crowd == "drop":
        account.drop_object("crowd", final.file, shape.name)
        return False
    if shape.points is not None:
        return _add_points(shape, label.text, final, rules, account)
    fitted = _fit(shape, final, rules, account)
    if fitted is None:
        return False
    fitted.desc = label.text
    fitted.area = shape.area
    if shape.keypoints is not None and not shape.crowd:
        fitted.keypoints = _keypoints(shape, final, account)
    if shape.crowd:
        final.crowd.append(fitted)
        return True
    if shape.difficult:
        final.difficult.append(len(final.objects))
    final.objects.append(fitted)
    return True


def _own_geometry(shape: Shape) -> Geometry:
    """That under which a shape stays what it is."""
    if shape.points is not None:
        return "box" if shape.was == POINTS else "point"
    if shape.poly is None:
        return "box"
    return "quad" if shape.was == TURNED else "poly"


def _keypoints(shape: Shape, final: FinalImage, account: Account) -> list[float]:
    """x, y and visibility of each, at the edge of the image where they lie beyond it; 0, 0, 0 for one not labelled."""
    places = shape.keypoints or []
    found: list[float] = []
    moved = 0
    for x, y, seen in zip(places[::2], places[1::2], shape.seen, strict=True):
        if not seen or not (math.isfinite(x) and math.isfinite(y)):
            found += (0, 0, 0)
            continue
        inside = min(max(x, 0.0), final.width), min(max(y, 0.0), final.height)
        moved += inside != (x, y)
        found += (*inside, seen)
    if moved:
        account.note("keypoint outside the image: moved to its edge", final.file, shape.name, count=moved)
    return found


def _add_points(shape: Shape, desc: str, final: FinalImage, rules: Rules, account: Account) -> bool:
    points = shape.points or []
    if not all(map(math.isfinite, points)):
        account.drop_object(NOT_FINITE, final.file, shape.name)
        return False
    pairs = zip(points[::2], points[1::2], strict=True)
    if not points or not all(0 <= x <= final.width and 0 <= y <= final.height for x, y in pairs):
        account.drop_object(NO_OVERLAP, final.file, shape.name)
        return False
    if rules.geometry == "point" and not shape.crowd:
        count = len(points) // 2
        if count > 1:
            account.objects.read += count - 1
            account.note("shape of several points: an object for each", final.file, shape.name)
        final.objects += [FinalObject(desc, "point", points[at : at + 2]) for at in range(0, len(points), 2)]
        return True
    final.points.append(FinalObject(desc, "points", points))
    return True


def _fit(shape: Shape, final: FinalImage, rules: Rules, account: Account) -> FinalObject | None:
    """The shape as a box or polygon inside its image, its `desc` still empty, or None when it is dropped."""
    width, height = final.width, final.height
    values: Box | list[float] | None = None
    if rules.geometry == "quad":
        outlines = shape.outlines if shape.outlines is not None and shape.poly is None else [_corners(shape)]
        quad = quad_of(outlines[0]) if len(outlines) == 1 else None
        if quad is not None:
            values, how = fit_quad(quad, width, height)
        else:
            box = shape.box if shape.turned is not None else None
            values, how = fit_around(outlines, width, height, box, shape.turned)
        kind = "quad"
        if quad is None and values is not None:
            account.note(f"{shape.was or 'polygon'}: a box around it, turned as it is smallest, is written")
    elif shape.poly is not None and rules.geometry == "poly":
        values, how = fit_poly(shape.poly, width, height)
        kind = "poly"
        if how in (TOO_FEW_POINTS, NO_EXTENT) and shape.box is not None:
            account.note("degenerate polygon: its box is written", final.file, shape.name)
            shape.poly = None
    if rules.geometry != "quad" and (shape.poly is None or rules.geometry != "poly"):
        kind = "bbox_2d"
        if shape.outlines is not None:
            values, how = fit_outlines(shape.outlines, width, height, shape.box)
        elif shape.box is not None:
            values, how = fit_box(shape.box, width, height)
        else:
            values, how = fit_outlines([shape.poly or []], width, height)
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


def _within_a_pixel(shapes: Iterable[Shape]) -> bool:
    """Whether all numbers lie about 0..1 and some are not whole, as those of fractions that are read as pixels."""
    whole = True
    for shape in shapes:
        for value in _corners(shape) if shape.points is None else shape.points:
            if not -1 <= value <= 1:  # VOC's start at 1
                return False
            whole &= value % 1 == 0
    return not whole


def _corners(shape: Shape) -> list[float]:
    """The points of a polygon, of outlines, or of a box."""
    if shape.poly is not None:
        return shape.poly
    if shape.outlines is not None:
        return [value for outline in shape.outlines for value in outline]
    x1, y1, x2, y2 = shape.box or (math.nan,) * 4
    return [x1, y1, x2, y1, x2, y2, x1, y2]


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


def _sort(shapes: list[Shape], account: Account) -> None:
    for shape in shapes:
        if shape.box is not None and misordered(shape.box):
            x1, y1, x2, y2 = shape.box
            shape.box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
            account.note("corners in reverse order: sorted", shape.name)


def _scaled(points: list[float], width: float, height: float) -> list[float]:
    edges = (width, height) * (len(points) // 2)
    return [value * edge for value, edge in zip(points, edges, strict=True)]


def _move(shapes: list[Shape], to: Callable[[list[float]], list[float]]) -> None:
    """Every point of the shapes to where `to` says."""
    for shape in shapes:
        # A box with its corners in the wrong order, or with NaN in it, must stay one.
        if shape.box is not None and shape.box[0] <= shape.box[2] and shape.box[1] <= shape.box[3]:
            shape.box = bounds(to(list(shape.box)))
        if shape.poly is not None:
            shape.poly = to(shape.poly)
        if shape.points is not None:
            shape.points = to(shape.points)
        if shape.keypoints is not None:
            shape.keypoints = to(shape.keypoints)
        if shape.turned is not None:
            shape.turned = to(shape.turned)
        if shape.outlines is not None:
            shape.outlines = [to(outline) for outline in shape.outlines]
