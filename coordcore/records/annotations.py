"""What the objects of a record say: descriptions and geometries, their numbers checked in a declared space."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, Literal

import attrs
import msgspec

from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.quantisation import Outside
from coordcore.records.asking import check_asked
from coordcore.records.geometry import COUNTS, KINDS, clockwise, misordered
from coordcore.records.record import (
    LEFT_OUT,
    Coordinates,
    LeftOut,
    Record,
    RecordError,
    RecordObject,
    check_text,
    parse_object,
    regions_under,
)

_ANY = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
_NAMES = {"bbox_2d": "x1, y1, x2, y2", "point": "x, y", "quad": "x1, y1 to x4, y4"}

Space = Literal["bin", "pixel", "norm1"]
"""What numbers are: bins, 0..999 by default (or coord tokens), pixels of the upright image, or fractions of it."""


@attrs.frozen(kw_only=True)
class Rules:
    """What the numbers of a record must be.

    space: None takes numbers of any, and coord tokens. ordered: the second corner of a box never lies before its first,
    and the sides of a quad never cross.
    outside: of pixels and fractions outside the image, "error" takes none, "clip" those of a shape that overlaps it,
    None all. coords: whose bins and tokens they are; x is first in a record whatever its order.
    """

    space: Space | None
    ordered: bool = True
    outside: Outside | None = "error"
    coords: CoordFormat = DEFAULT_COORDS


class Annotation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One object of a record, or one crowd region under its `metadata`, checked.

    path: of its coordinates, "objects[2].bbox_2d". index: its place among the objects, 2. kind: one of
    `geometry.KINDS`. values: bins as integers, anything else as it is written; those of a quad in `clockwise` order.
    tokens: written as coord tokens. outside: reaches over the edge of the image. keypoints: x, y, visibility of each.
    """

    path: str
    index: int
    desc: str
    kind: str
    values: tuple[float, ...]
    tokens: bool = False
    outside: bool = False
    crowd: bool = False
    keypoints: tuple[float, ...] = ()


def read_annotations(record: Record, rules: Rules, left_out: LeftOut | None = None) -> list[Annotation]:
    """The objects of a record in order, then its crowd regions.

    Raises RecordError for the first that is not right; `left_out` takes its error instead, and the others go on.
    """
    check_asked(record, rules.coords)
    objects = record.objects or []
    size = (record.width, record.height) if rules.space == "pixel" else (1, 1)
    found = []
    for index, given in enumerate([*objects, *regions_under(record, "crowd")]):
        if given is LEFT_OUT:
            continue
        number = index - len(objects)
        path = f"objects[{index}]" if number < 0 else f"metadata.crowd[{number}]"
        try:
            item = given if isinstance(given, RecordObject) else parse_object(given, path, left_out)
            aspect = (1, 1) if rules.space == "pixel" else (record.width, record.height)
            found.append(read_annotation(item, path, rules, size, aspect, index=index, crowd=number >= 0))
        except RecordError as error:
            if left_out is None:
                raise
            left_out.objects.append(error)
    return found


def read_annotation(
    item: RecordObject,
    path: str,
    rules: Rules,
    size: tuple[int, int] = (1, 1),
    aspect: tuple[int, int] = (1, 1),
    *,
    index: int = 0,
    crowd: bool = False,
) -> Annotation:
    """One object. path: "objects[2]". size: the largest x and y in pixels or fractions. Raises RecordError.

    aspect: pixels of one unit along x and y, or what they are in proportion to.
    """
    check_text(item.desc, f"{path}.desc", rules.coords)
    kind, written = _geometry(item, path)
    keypoints = () if item.keypoints is None else _keypoints(item.keypoints, f"{path}.keypoints", rules, size)
    path = f"{path}.{kind}"
    values, tokens = read_numbers(written, path, rules)
    if rules.ordered and kind == "bbox_2d" and (wrong := misordered(values)):
        cure = "corners are x1, y1, x2, y2 (COCO writes x, y, w, h)"
        raise RecordError(path, f"{wrong}: {cure}", reason=cure)
    if rules.ordered and kind == "quad":
        ordered = clockwise(values, *aspect, edge=(inf, inf) if rules.space == "bin" else size)
        if ordered is None:
            raise RecordError(path, "its sides cross; write the corners in order around it: x1, y1 to x4, y4")
        values = ordered
    outside = rules.space in ("pixel", "norm1") and rules.outside is not None and _outside(values, path, rules, size)
    return Annotation(
        path=path,
        index=index,
        desc=item.desc,
        kind=kind,
        values=values,
        tokens=tokens,
        outside=outside,
        crowd=crowd,
        keypoints=keypoints,
    )


def _geometry(item: RecordObject, path: str) -> tuple[str, Coordinates]:
    """The kind and the coordinates of an object's one geometry, counted but not yet read."""
    if item.line is not None:
        raise RecordError(f"{path}.line", f"lines are not supported; write a {_ANY}")
    given = [(kind, values) for kind in KINDS if (values := getattr(item, kind)) is not None]
    if len(given) != 1:
        found = " and ".join(kind for kind, _ in given) if given else "none"
        raise RecordError(path, f"needs exactly one geometry, {_ANY}, got {found}")
    kind, values = given[0]
    where = f"{path}.{kind}"
    if kind in _NAMES:
        if len(values) != COUNTS[kind]:
            raise RecordError(where, f"needs {COUNTS[kind]} numbers ({_NAMES[kind]}), got {len(values)}")
        if item.poly_points is not None:
            raise RecordError(f"{path}.poly_points", f"belongs to a poly; remove it from this {kind}")
        return kind, values
    points = len(values) // 2
    if len(values) % 2:
        raise RecordError(where, f"needs pairs x, y, got an odd count of {len(values)} numbers")
    if points < 3:
        raise RecordError(where, f"needs at least 3 points, got {points}")
    if item.poly_points is not None and item.poly_points != points:
        raise RecordError(
            f"{path}.poly_points",
            f"says {item.poly_points}, but poly holds {points} points",
            reason="says another count than poly holds",
        )
    return kind, values


def _keypoints(written: Coordinates, path: str, rules: Rules, size: tuple[int, int]) -> tuple[float, ...]:
    """x, y and visibility (as COCO has it: 0 not labelled, 1 hidden, 2 visible) of each. Raises RecordError."""
    seen = written[2::3]
    if not written or len(written) % 3:
        raise RecordError(path, f"needs x, y and visibility of each, got {len(written)} numbers")
    if wrong := [value for value in seen if value not in (0, 1, 2)]:
        cure = "write 0 for one not labelled, 1 hidden, 2 visible"
        raise RecordError(path, f"visibility is 0, 1 or 2, got {wrong[0]!r}; {cure}", reason="visibility is 0, 1 or 2")
    places = [value for at in range(0, len(written), 3) for value in written[at : at + 2]]
    values, _ = read_numbers(places, path, rules)
    if rules.space in ("pixel", "norm1") and rules.outside is not None:
        _outside(values, path, attrs.evolve(rules, outside="error"), size)
    return tuple(value for at, flag in enumerate(seen) for value in (*values[2 * at : 2 * at + 2], int(flag)))


def read_numbers(written: Coordinates, path: str, rules: Rules) -> tuple[tuple[float, ...], bool]:
    """The numbers, and whether they were written as coord tokens. Raises RecordError; their order is not looked at."""
    texts = [value for value in written if isinstance(value, str)]
    if texts and rules.space in ("pixel", "norm1"):
        rest = f'is text, but `space` is "{rules.space}"; write numbers, or set "bin"'
        raise RecordError(path, f"{texts[0]!r} {rest}", reason=rest)
    if texts and len(texts) < len(written):
        raise RecordError(path, "mixes numbers and coord tokens; write one form throughout")
    if texts:
        return tuple([_bin_of(text, path, rules.coords) for text in texts]), True
    numbers: Sequence[Any] = written
    return tuple(
        [_bin(value, path, rules.coords.bins - 1) for value in numbers] if rules.space == "bin" else numbers
    ), False


def _bin_of(text: str, path: str, coords: CoordFormat) -> int:
    if text in coords.bin_of:
        return coords.bin_of[text]
    what = "the wildcard, not a coordinate" if text == "<|coord_*|>" else "no coord token"
    rest = f"is {what}; write {coords.written[0]} to {coords.written[-1]}"
    raise RecordError(path, f"{text!r} {rest}", reason=rest)


def _bin(value: float, path: str, last: int) -> int:
    """The bin that a number is; 10.0 is 10."""
    if value % 1:
        rest = "is not a whole number, as bins are; if these are pixels or fractions, set `space`"
    elif value > last:
        rest = (
            f"> {last}: this looks like absolute pixels; convert to bins 0..{last} first "
            '(`space = "pixel"` converts on reading)'
        )
    elif value < 0:
        rest = f"< 0: bins are 0..{last}"
    else:
        return int(value)
    raise RecordError(path, f"{value} {rest}", reason=rest)


def _outside(values: Sequence[float], path: str, rules: Rules, size: tuple[int, int]) -> bool:
    """Whether any of the numbers lies outside the image, where the rules allow that."""
    outside = False
    for axis, limit, along in (("x", size[0], values[::2]), ("y", size[1], values[1::2])):
        low, high = min(along), max(along)
        if low >= 0 and high <= limit:
            continue
        outside = True
        if rules.outside == "error":
            value = high if high > limit else low
            cure = '`outside = "clip"` moves such corners to the edge'
            if path.endswith(".keypoints"):  # which `outside` leaves alone
                cure = "`coordcore data convert --keypoints` moves them to the edge"
            if rules.space == "norm1" and value > limit:
                cure = 'if these are pixels, set `space = "pixel"`'
            raise RecordError(path, f"{axis} = {value:.15g} lies outside 0..{limit}; {cure}", reason=f"outside; {cure}")
        if (high <= 0 and low < 0) or (low >= limit and high > limit):
            raise RecordError(path, f"{axis} = {low:g}..{high:g} does not overlap 0..{limit}; remove the object")
    return outside
