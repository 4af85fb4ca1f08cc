"""`coordcore data check`: what the numbers of a record file give away about their convention. Torch-free.

The file is read leniently: what breaks a rule of the record format is counted and left out. What the numbers are is
found out here, so any will do.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import attrs
import msgspec
import numpy as np

from coordcore import InputError
from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.errors import shortened
from coordcore.quantisation import DEFAULT_QUANTISATION, QUANTISATIONS, Quantisation
from coordcore.quantisation import quantisation as convention
from coordcore.records.annotations import Rules, Space, read_annotations
from coordcore.records.geometry import bounds, clockwise
from coordcore.records.images import image_path
from coordcore.records.record import LeftOut, Record, RecordError, parse_record
from coordcore.records.source import all_lines
from coordcore.tasks import TASKS
from coordcore_data.convert.core import CROWD, POINTS, BoxOrder
from coordcore_data.convert.progress import shown
from coordcore_data.convert.sizes import FileSize, read_size
from coordcore_data.convert.sniff import named

Array = np.ndarray[Any, np.dtype[Any]]

_UPPER = np.array([False, False, True, True])


@attrs.frozen(kw_only=True, eq=False)
class Sample:
    """All boxes of a record file, as they are written.

    boxes: [n, 4] float64, coord tokens as their bins, polygons and quads as their enclosing boxes, points as boxes
    without extent. is_box, is_point: [n] bool. crossed: quads whose sides cross. sizes: [n, 2] width and height
    of each box's image, NaN where the record does not say. owner: [n] the record of each box. places: [n] its index
    among the objects of that. labels: n descriptions.
    keypoints: [m, 3] x, y and visibility. of_box: [m] the box of each.
    files: path, width and height of each record. lines: [n] in which line of the file each record stands. odd: records
    that hold something else than boxes, crowd regions too. unasked: the paths of those that ask no question of their
    own.
    texts: records that are answered in text. empty: others without objects; unsaid: those among them that have crowd
    regions or points under `metadata`.
    tokens: boxes written as coord tokens. repeated: boxes that occur again in the same record with the same
    description. quantisation: of its bins, as the caller says. declared: what `metadata.quantisation` says, with how
    often.
    problems: what was left out, with how often; examples: the first of each.
    """

    path: Path
    records: int
    texts: int
    empty: int
    unsaid: int
    polygons: int
    points: int
    crossed: int
    tokens: int
    repeated: int
    boxes: Array
    is_box: Array
    is_point: Array
    sizes: Array
    owner: Array
    places: Array
    labels: tuple[str, ...]
    keypoints: Array
    of_box: Array
    files: tuple[tuple[str, float, float], ...]
    lines: Array
    odd: frozenset[int]
    unasked: tuple[str, ...]
    quantisation: Quantisation | None
    declared: dict[str, int]
    problems: dict[str, int]
    examples: dict[str, str]

    @property
    def spec(self) -> Quantisation:
        """Of its bins: what the caller says, else the first convention that is declared and known, else the default."""
        found = (spec for name in self.declared if (spec := known(name)) is not None)
        return self.quantisation or next(found, DEFAULT_QUANTISATION)

    def where(self, row: int) -> str:
        """Of a box: its line and its place there."""
        return f"line {self.lines[self.owner[row]]}: objects[{self.places[row]}]"


@attrs.frozen(kw_only=True)
class RoundTrip:
    """Pixels between a coordinate and what a convention makes of it. Over all coordinates of all boxes."""

    mean: float
    p95: float
    worst: float


@attrs.frozen(kw_only=True)
class FileSizes:
    """Records against their image files."""

    checked: int
    equal: int
    problems: dict[str, int]
    examples: dict[str, str]


def collect(
    path: Path, limit: int | None = None, *, quantisation: Quantisation | None = None, progress: bool = False
) -> Sample:
    """Read a record file, its first `limit` records only if given. Raises InputError if it has no record, which
    says what it is instead.

    quantisation: of its bins; None for what the records declare. progress: show a bar on stderr.
    """
    with named(path, "records"):
        return _collect(path, limit, quantisation, progress)


def _collect(path: Path, limit: int | None, quantisation: Quantisation | None, progress: bool) -> Sample:
    values, sizes, owner, places, numbers = array("d"), array("d"), array("q"), array("q"), array("q")
    is_box, is_point, keypoints, of_box = array("b"), array("b"), array("d"), array("q")
    odd: set[int] = set()
    counts = dict.fromkeys(
        ("records", "texts", "empty", "unsaid", "polygons", "points", "crossed", "tokens", "repeated"), 0
    )
    labels: list[str] = []
    files: list[tuple[str, float, float]] = []
    unasked: list[str] = []
    declared: dict[str, int] = {}
    problems: dict[str, int] = {}
    examples: dict[str, str] = {}
    first = b""
    lines = all_lines(path)
    for number, line in shown(lines, "reading") if progress else lines:
        if limit is not None and counts["records"] == limit:
            break
        first = first or line
        counts["records"] += 1
        left_out = LeftOut()
        wrong: list[RecordError] = []
        try:
            record = parse_record(line, left_out)
            found = read_annotations(record, _any_numbers(record, quantisation), left_out)
        except RecordError as error:
            wrong.append(error)
        for left in (*wrong, *left_out.objects, *left_out.parts):
            problems[left.reason] = problems.get(left.reason, 0) + 1
            examples.setdefault(left.reason, f"line {number}: {left}")
        if wrong:
            continue
        files.append((record.images[0], record.width, record.height))
        numbers.append(number)
        if record.task in (None, "detect") and record.question is None:
            unasked.append(record.images[0])
        metadata = record.metadata or {}
        if (name := _declared(record)) is not None:
            declared[name] = declared.get(name, 0) + 1
        in_text = record.task in TASKS and TASKS[record.task].is_text
        empty = not record.objects and not in_text
        counts["texts"] += in_text
        counts["empty"] += empty
        counts["unsaid"] += empty and bool(metadata.get(CROWD) or metadata.get(POINTS))
        seen = set()
        for item in found:
            if item.crowd or item.kind != "bbox_2d" or item.keypoints:
                odd.add(len(files) - 1)
            if item.crowd:
                continue
            box = item.values if item.kind == "bbox_2d" else bounds(item.values)
            counts["polygons"] += item.kind in ("poly", "quad")
            counts["points"] += item.kind == "point"
            counts["crossed"] += item.kind == "quad" and clockwise(item.values) is None
            is_box.append(item.kind == "bbox_2d")
            is_point.append(item.kind == "point")
            counts["tokens"] += item.tokens
            labels.append(item.desc)
            key = (item.desc, item.kind, *item.values)
            counts["repeated"] += key in seen
            seen.add(key)
            values.extend(box)
            sizes.extend((record.width, record.height))
            owner.append(len(files) - 1)
            places.append(item.index)
            keypoints.extend(item.keypoints)
            of_box.extend([len(owner) - 1] * (len(item.keypoints) // 3))
    if not counts["records"]:
        raise InputError(f"{path}: holds no records; write one a line, or name another file")
    if not files:
        why = "; ".join(shortened(example, 300) for example in list(examples.values())[:3])
        if _is_summary(first):
            raise InputError(
                f'{path}: holds summaries and no objects (mode = "summary"), and this command looks at geometry; '
                "`coordcore check` of a manifest reads them"
            )
        raise InputError(
            f"{path}: holds no records, not one of {counts['records']} lines is one: {why}; mend them, or name another"
        )
    return Sample(
        path=path,
        **counts,
        boxes=np.array(values, dtype=np.float64).reshape(-1, 4),
        is_box=np.array(is_box, dtype=bool),
        is_point=np.array(is_point, dtype=bool),
        sizes=np.array(sizes, dtype=np.float64).reshape(-1, 2),
        owner=np.array(owner, dtype=np.int64),
        places=np.array(places, dtype=np.int64),
        labels=tuple(labels),
        keypoints=np.array(keypoints, dtype=np.float64).reshape(-1, 3),
        of_box=np.array(of_box, dtype=np.int64),
        files=tuple(files),
        lines=np.array(numbers, dtype=np.int64),
        odd=frozenset(odd),
        unasked=tuple(unasked),
        quantisation=quantisation,
        declared=declared,
        problems=problems,
        examples=examples,
    )


def _is_summary(line: bytes) -> bool:
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(record, dict) and isinstance(record.get("summary"), str) and "objects" not in record


def _declared(record: Record) -> str | None:
    """The name of the convention that a record declares."""
    spec = (record.metadata or {}).get("quantisation")
    return None if spec is None else str(spec.get("name") if isinstance(spec, dict) else spec)


@lru_cache(maxsize=64)
def known(name: str | None) -> Quantisation | None:
    """The convention of that name, None where there is none."""
    if name is None:
        return None
    try:
        return convention(name)
    except InputError:
        return None


def _any_numbers(record: Record, given: Quantisation | None) -> Rules:
    """For numbers of any space, and for coord tokens of the bins that are given, or that the record declares."""
    return _of_tokens((given or known(_declared(record)) or DEFAULT_QUANTISATION).bins)


@lru_cache(maxsize=64)
def _of_tokens(bins: int) -> Rules:
    return Rules(space=None, ordered=False, outside=None, coords=coords_of(bins))


def coords_of(bins: int) -> CoordFormat:
    """How so many bins are written."""
    try:
        return CoordFormat(bins=bins)
    except ValueError:  # more than there can be tokens of
        return DEFAULT_COORDS


def outlines(sample: Sample, records: Iterable[int]) -> dict[int, dict[int, Array]]:
    """Of some records: index of an object, among those in `boxes`, -> the numbers of what is no box."""
    wanted = {int(sample.lines[index]): index for index in records}
    found: dict[int, dict[int, Array]] = {}
    for number, line in all_lines(sample.path):
        if number in wanted:
            record = parse_record(line, LeftOut())
            items = read_annotations(record, _any_numbers(record, sample.quantisation), LeftOut())
            found[wanted[number]] = {
                place: np.array(item.values, dtype=np.float64)
                for place, item in enumerate(item for item in items if not item.crowd)
                if item.kind != "bbox_2d"
            }
            if len(found) == len(wanted):
                break
    return found


def in_order(boxes: Array, order: BoxOrder) -> Array:
    """[n, 4] as x1, y1, x2, y2, when they are read in `order`."""
    a, b, c, d = boxes.T
    if order == "xywh":
        return np.stack([a, b, a + c, b + d], axis=1)
    if order == "cxcywh":
        return np.stack([a - c / 2, b - d / 2, a + c / 2, b + d / 2], axis=1)
    return np.stack([b, a, d, c], axis=1) if order == "yxyx" else boxes


def ordered(sample: Sample, order: BoxOrder) -> Array:
    """`in_order` of the boxes; of anything else an order says no more than whether y comes first."""
    if order in ("xyxy", "yxyx") or sample.is_box.all():
        return in_order(sample.boxes, order)
    return np.where(sample.is_box[:, None], in_order(sample.boxes, order), sample.boxes)


def limits(sample: Sample, space: Space) -> Array:
    """[n, 4]: the largest value that each coordinate may have."""
    if space == "pixel":
        return np.tile(sample.sizes, 2)
    return np.full(sample.boxes.shape, sample.spec.bins - 1.0 if space == "bin" else 1.0)


def valid(boxes: Array, limit: Array, slack: Array | float = 0.0) -> Array:
    """[n] bool: which x1, y1, x2, y2 are in order and inside, give or take `slack`."""
    ordered = (boxes[:, :2] <= boxes[:, 2:]).all(1)
    inside = ((boxes >= -slack) & (boxes <= limit + slack)).all(1)
    return np.asarray(ordered & inside)


def to_pixels(sample: Sample, space: Space, order: BoxOrder, spec: Quantisation | None = None) -> Array:
    """[m, 4] pixels of the boxes that are valid, and [m, 2] their sizes stacked behind: [m, 6].

    spec: that reads bins, of as many as the sample's own at least; the sample's own when None.
    """
    boxes, limit = ordered(sample, order), limits(sample, space)
    good = valid(boxes, limit) & (sample.sizes > 0).all(1)
    boxes, sizes = boxes[good], sample.sizes[good]
    if space == "norm1":
        boxes = boxes * np.tile(sizes, 2)
    elif space == "bin":
        boxes = (spec or sample.spec).decode(boxes, np.tile(sizes, 2))
    return np.concatenate([boxes, sizes], axis=1)


def round_trips(pixels: Array) -> dict[str, RoundTrip]:
    """The error of every convention on boxes that `to_pixels` made of pixels or fractions."""
    boxes, sizes = pixels[:, :4], np.tile(pixels[:, 4:], 2)
    found = {}
    for name, spec in QUANTISATIONS.items():
        bins = spec.encode(boxes, sizes, outside="clip", upper=_UPPER)
        found[name] = _errors(spec.decode(bins, sizes) - boxes)
    return found


def misreadings(sample: Sample, order: BoxOrder) -> dict[str, RoundTrip]:
    """How far bins of the sample's convention move when another reads them, one that has as many."""
    truth = to_pixels(sample, "bin", order)
    return {
        name: _errors(to_pixels(sample, "bin", order, other)[:, :4] - truth[:, :4])
        for name, other in QUANTISATIONS.items()
        if other.bins == sample.spec.bins
    }


def _errors(difference: Array) -> RoundTrip:
    error = np.abs(difference)
    return RoundTrip(mean=float(error.mean()), p95=float(np.percentile(error, 95)), worst=float(error.max()))


def check_files(sample: Sample, folder: Path) -> FileSizes:
    """Compare the sizes in the records with those of the image files (their headers; EXIF orientation applied)."""
    problems: dict[str, int] = {}
    examples: dict[str, str] = {}
    known: dict[str, FileSize | str] = {}
    equal = 0
    for name, width, height in sample.files:
        if name not in known:
            known[name] = _size_of(folder, name) if name and "\0" not in name else "image file missing"
        size = known[name]
        if not isinstance(size, str) and (width, height) == size.upright:
            equal += 1
            continue
        problem, seen = _difference(size, width, height)
        problems[problem] = problems.get(problem, 0) + 1
        examples.setdefault(problem, f"{name}: {seen}")
    return FileSizes(checked=len(sample.files), equal=equal, problems=problems, examples=examples)


def _size_of(folder: Path, name: str) -> FileSize | str:
    try:
        return read_size(image_path(folder, name))
    except InputError:
        return "image path leaves the folder that paths start from"


def _difference(size: FileSize | str, width: float, height: float) -> tuple[str, str]:
    if isinstance(size, str):
        return size, "the record names it"
    upright = size.upright
    seen = f"{width:g} x {height:g} in the record, {upright[0]} x {upright[1]} in the file"
    if (width, height) == (size.width, size.height):
        return "record has the size before the EXIF orientation", seen
    if (height, width) == upright:
        return "width and height are swapped", seen
    if abs(width * upright[1] - height * upright[0]) <= max(width, height, *upright):
        return "image or record was resized", seen
    return "image has another shape than the record says", seen
