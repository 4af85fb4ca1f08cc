"""The fast path from a line to its answer: typed decoding in C, then one loop. `read_answer` is its reference."""

from __future__ import annotations

from collections.abc import Sequence
from json.encoder import encode_basestring as quote
from math import floor, inf, nextafter
from typing import TYPE_CHECKING, Any, NamedTuple

from coordcore import Geometry
from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.quantisation import QUANTISATIONS, Quantisation
from coordcore.records.answers import COORDJSON, Format, reserved
from coordcore.records.answers.format import Coords, Label
from coordcore.records.asking import ABSENT, INCOMPLETE
from coordcore.records.record import Record, RecordObject
from coordcore_coord_tokens.answer import UNCHANGED, Answer, Changes
from coordcore_coord_tokens.forms import NOT_PLAIN, Form, forms
from coordcore_coord_tokens.locate import is_flat

if TYPE_CHECKING:
    from coordcore_coord_tokens.config import CoordJsonlConfig

# floor(v + 0.5) would take 0.49999999999999994 to 1; with the number just below 0.5 every v >= 0 goes where it should.
_ADDED = {"nearest": nextafter(0.5, 0.0), "floor": 0.0}

# A third of an answer's time would go into the `__init__` of frozen geometries: their slots are filled directly.
_new_geometry = Geometry.__new__
_set_kind = Geometry.__dict__["kind"].__set__
_set_values = Geometry.__dict__["values"].__set__

_NOTHING_CHANGED = Answer("")

Draft = tuple[list[str], list[Geometry], list[tuple[int, int]]]
"""What an answer is made of, object by object: the text, the geometry, and (top, left) where these are to be sorted."""


def quick_reader(
    config: CoordJsonlConfig,
    quantisation: Quantisation,
    coords: CoordFormat = DEFAULT_COORDS,
    form: Format = COORDJSON,
) -> QuickBins | QuickReals | None:
    """The fast path for these settings, None where there is none: it writes objects one by one, in JSON."""
    if config.mode != "dense" or coords.order != "xy" or not _is_framed(form):
        return None
    if config.space == "bin":
        return QuickBins(config, quantisation, coords, form)
    rounds = quantisation.rounding in _ADDED and quantisation.encode_scale <= quantisation.bins == coords.bins
    return QuickReals(config, quantisation, coords, form) if rounds and not quantisation.inset else None


class _Quick:
    """Reads records that are plainly right, and leaves every other one to the reference.

    What `read` answers, `read_answer(parse_record(line), ...)` answers too, to the last bit. It has no messages.
    """

    def __init__(self, config: CoordJsonlConfig, coords: CoordFormat, form: Format) -> None:
        self._opening, self._between, self._closing = form.opening, form.between, form.closing
        self._coords = coords
        self._last = coords.bins - 1
        self._coord_tokens = config.coord_tokens
        self._most = config.max_objects
        fixed = form.geometry_first
        self._desc_first = config.field_order == "desc_first" if fixed is None else not fixed
        self._top_left = config.object_order == "top_left"
        self._arranges = self._top_left or config.max_objects is not None
        self._written = coords.written if config.coord_tokens else tuple(map(str, range(coords.bins)))
        self._frames = {kind: _frame(form, kind, self._desc_first) for kind in form.places}
        before, amid, after, between = self._frames["bbox_2d"]
        # A coordinate with what stands between it and the next: so a box is joined in one go.
        led = tuple(text + between for text in self._written)
        self._writing = before, amid, after, led, self._written, self._desc_first, self._top_left
        self._forms = forms(coords if config.space == "bin" else None, config.geometry)
        # That of the last record: those of one file are mostly alike.
        self._form = self._forms[0]

    def _decode(self, line: bytes) -> tuple[Any, Form]:
        """The record in whichever form it has, which is tried first from then on; None when it has none."""
        for form in self._forms:
            try:
                record = form.decoder.decode(line)
            except NOT_PLAIN:
                continue
            self._form = form
            return record, form
        return None, self._form

    def _add_points(self, draft: Draft, desc: str, kind: str, bins: list[int], values: Sequence[float]) -> None:
        """Add a polygon or a point."""
        texts, geometries, corners = draft
        before, amid, after, between = self._frames[kind]
        places = between.join([self._written[k] for k in bins])
        fields = (quote(desc), amid, places) if self._desc_first else (places, amid, quote(desc))
        texts.append("".join((before, *fields, after)))
        geometries.append(Geometry(kind=kind, values=tuple(values)))
        if self._top_left:
            corners.append((min(bins[1::2]), min(bins[::2])))

    def _arrange(self, draft: Draft) -> None:
        """Put the objects of an answer in their order, and leave out those that are too many."""
        texts, geometries, corners = draft
        order = sorted(range(len(corners)), key=corners.__getitem__) if self._top_left else range(len(texts))
        order = order[: self._most]
        texts[:], geometries[:] = [texts[index] for index in order], [geometries[index] for index in order]


# Both loops write a box out in full: a call for each one would take as long as what it does.


class QuickBins(_Quick):
    """Records in bins, or coord tokens."""

    def __init__(self, config: CoordJsonlConfig, quantisation: Quantisation, coords: CoordFormat, form: Format) -> None:
        super().__init__(config, coords, form)
        self._bins, self._reals = coords.bin_of, tuple(map(float, range(coords.bins)))
        named = QUANTISATIONS.get(quantisation.name) == quantisation
        self._names = (None, quantisation.name) if named else (None,)
        self._spec = quantisation.as_dict()

    def read(self, line: bytes, *, text: bool = True) -> tuple[Record, Answer] | None:
        """A record and its answer, or None for a line that only the reference can judge.

        text: False checks and counts alone; the answer is empty then.
        """
        form = self._form
        try:
            record = form.decoder.decode(line)
        except NOT_PLAIN:
            record, form = self._decode(line)
        if record is None or (record.metadata is not None and not self._is_plain(record.metadata, record.objects)):
            return None
        boxes_only, tokens = form.boxes_only, form.tokens
        before, amid, after, led, written, desc_first, top_left = self._writing
        coords, bin_of, reals = self._coords, self._bins, self._reals
        draft: Draft = ([], [], [])
        texts, geometries, corners = draft
        for item in record.objects:
            desc = item.desc
            if not desc.strip() or reserved(desc, coords):
                return None
            if not boxes_only:
                if not _one_geometry(item):
                    return None
                if item.bbox_2d is None:
                    kind, points = ("point", item.point) if item.poly is None else ("poly", item.poly)
                    if kind not in self._frames:
                        return None
                    if text:
                        bins = [self._bins[token] for token in points] if tokens else points
                        self._add_points(draft, desc, kind, bins, [self._reals[k] for k in bins])
                    continue
            x1, y1, x2, y2 = item.bbox_2d
            if tokens:
                x1, y1, x2, y2 = bin_of[x1], bin_of[y1], bin_of[x2], bin_of[y2]
            if x1 > x2 or y1 > y2:
                return None
            if not text:
                continue
            texts.append(
                f"{before}{quote(desc)}{amid}{led[x1]}{led[y1]}{led[x2]}{written[y2]}{after}"
                if desc_first
                else f"{before}{led[x1]}{led[y1]}{led[x2]}{written[y2]}{amid}{quote(desc)}{after}"
            )
            geometry = _new_geometry(Geometry)
            _set_kind(geometry, "bbox_2d")
            _set_values(geometry, (reals[x1], reals[y1], reals[x2], reals[y2]))
            geometries.append(geometry)
            if top_left:
                corners.append((y1, x1))
        if not text:
            return record, _NOTHING_CHANGED
        if self._arranges:
            self._arrange(draft)
        said = tuple(geometries) if self._coord_tokens else ()
        return record, Answer(f"{self._opening}{self._between.join(texts)}{self._closing}", said)

    def _is_plain(self, metadata: dict[str, Any], objects: Sequence[RecordObject]) -> bool:
        """Whether a declared quantisation is plainly this one; 1000.0 for 1000 is for the reference to refuse."""
        declared, spec = metadata.get("quantisation"), self._spec
        return _is_plain(metadata, objects) and (
            declared in self._names
            or (declared == spec and all(type(declared[key]) is type(value) for key, value in spec.items()))
        )


class QuickReals(_Quick):
    """Records in pixels or fractions."""

    def __init__(self, config: CoordJsonlConfig, quantisation: Quantisation, coords: CoordFormat, form: Format) -> None:
        super().__init__(config, coords, form)
        self._pixels = config.space == "pixel"
        self._clips = config.outside == "clip"
        self._quantisation = quantisation
        self._scale = quantisation.encode_scale
        self._added = _ADDED[quantisation.rounding]
        scales = (quantisation.encode_scale, quantisation.decode_scale, quantisation.decode_shift)
        # Then the unrounded place in bin units is the very number that is rounded.
        self._one_scale = scales == (self._last, self._last, 0)

    def read(self, line: bytes, *, text: bool = True) -> tuple[Record, Answer] | None:
        """A record and its answer, or None for a line that only the reference can judge.

        text: False checks and counts alone; the answer is empty then.
        """
        form = self._form
        try:
            record = form.decoder.decode(line)
        except NOT_PLAIN:
            record, form = self._decode(line)
        if record is None or (record.metadata is not None and not _is_plain(record.metadata, record.objects)):
            return None
        boxes_only = form.boxes_only
        width, height = (record.width * 1.0, record.height * 1.0) if self._pixels else (1.0, 1.0)
        scale, added = self._scale, self._added
        if self._one_scale or not text:
            # A box of two bins and more does not collapse, wherever its corners are rounded to.
            thin_x, thin_y = 2.0 * width / scale, 2.0 * height / scale
        else:
            thin_x = thin_y = inf
        before, amid, after, led, written, desc_first, top_left = self._writing
        coords = self._coords
        draft: Draft = ([], [], [])
        texts, geometries, corners = draft
        widened = clipped = 0
        for item in record.objects:
            desc = item.desc
            if not desc.strip() or reserved(desc, coords):
                return None
            if not boxes_only:
                if not _one_geometry(item):
                    return None
                if item.bbox_2d is None:
                    kind, points = ("point", item.point) if item.poly is None else ("poly", item.poly)
                    xs, ys = points[::2], points[1::2]
                    if kind not in self._frames:
                        return None
                    if min(xs) < 0.0 or max(xs) > width or min(ys) < 0.0 or max(ys) > height:
                        return None
                    bins, units = self._encode(points, width, height)
                    if is_flat(kind, bins):
                        return None
                    if text:
                        self._add_points(draft, desc, kind, bins, units)
                    continue
            x1, y1, x2, y2 = item.bbox_2d
            if x2 - x1 >= thin_x and y2 - y1 >= thin_y and x1 >= 0.0 and y1 >= 0.0 and x2 <= width and y2 <= height:
                if not text:
                    continue
                u1, v1, u2, v2 = x1 * scale / width, y1 * scale / height, x2 * scale / width, y2 * scale / height
                x1, y1, x2, y2 = floor(u1 + added), floor(v1 + added), floor(u2 + added), floor(v2 + added)
            else:
                found = self._encode_box(item.bbox_2d, width, height)
                if found is None:
                    return None
                (x1, y1, x2, y2), (u1, v1, u2, v2), cut, wider = found
                clipped += cut
                widened += wider
            texts.append(
                f"{before}{quote(desc)}{amid}{led[x1]}{led[y1]}{led[x2]}{written[y2]}{after}"
                if desc_first
                else f"{before}{led[x1]}{led[y1]}{led[x2]}{written[y2]}{amid}{quote(desc)}{after}"
            )
            geometry = _new_geometry(Geometry)
            _set_kind(geometry, "bbox_2d")
            _set_values(geometry, (u1, v1, u2, v2))
            geometries.append(geometry)
            if top_left:
                corners.append((y1, x1))
        changes = Changes(widened, clipped) if widened or clipped else UNCHANGED
        if not text:
            return record, Answer("", (), changes)
        if self._arranges:
            self._arrange(draft)
        said = tuple(geometries) if self._coord_tokens else ()
        return record, Answer(f"{self._opening}{self._between.join(texts)}{self._closing}", said, changes)

    def _encode_box(
        self, box: Sequence[float], width: float, height: float
    ) -> tuple[list[int], list[float], bool, bool] | None:
        """As `_encode`, for any box; whether it was cut at the image's edge, and whether it was widened by one bin.

        None for a box that the reference has something to say about.
        """
        x1, y1, x2, y2 = box
        cut = not (0.0 <= x1 <= x2 <= width and 0.0 <= y1 <= y2 <= height)
        if cut:
            part = _part_inside(box, width, height) if self._clips else None
            if part is None:
                return None
            box = part
        bins, units = self._encode(box, width, height)
        wider = False
        for low, high in ((0, 2), (1, 3)):
            if bins[high] <= bins[low]:
                moved, step = (high, 1) if bins[low] < self._last else (low, -1)
                bins[moved] += step
                units[moved] = float(bins[moved])
                wider = True
        return bins, units, cut, wider

    def _encode(self, shape: Sequence[float], width: float, height: float) -> tuple[list[int], list[float]]:
        """The bins of coordinates within the image, and the same places unrounded, in bin units."""
        spec = self._quantisation
        scaled = list(shape)
        scaled[::2] = [x * spec.encode_scale / width for x in shape[::2]]
        scaled[1::2] = [y * spec.encode_scale / height for y in shape[1::2]]
        bins = [floor(value + self._added) for value in scaled]
        if self._one_scale:
            return bins, scaled
        units = list(shape)
        units[::2] = [x * spec.decode_scale / width - spec.decode_shift for x in shape[::2]]
        units[1::2] = [y * spec.decode_scale / height - spec.decode_shift for y in shape[1::2]]
        return [min(k, self._last) for k in bins], [min(max(unit, 0.0), float(self._last)) for unit in units]


class _Frame(NamedTuple):
    """The texts around an object's description and coordinates in an answer, and the one between coordinates."""

    before: str
    amid: str
    after: str
    between: str


def _is_framed(form: Format) -> bool:
    """Whether an object is a key with a description in quotes, and a key with coordinates in brackets."""
    shapes = [form.label, *form.places.values()]
    types = [tuple(map(type, shape)) for shape in shapes]
    alone = form.again is None and not form.nothing and form.label[-1] == Label()
    return alone and "bbox_2d" in form.places and types == [(str, Label), *[(str, Coords, str)] * len(form.places)]


def _frame(form: Format, kind: str, desc_first: bool) -> _Frame:
    """The texts of a format in JSON, its place among them."""
    opening, coords, closing = form.places[kind]
    key, _ = form.label
    assert isinstance(opening, str)
    assert isinstance(coords, Coords)
    assert isinstance(closing, str)
    assert isinstance(key, str)
    if not desc_first:
        return _Frame(form.before + opening, closing + form.amid + key, form.after, coords.between)
    return _Frame(form.before + key, form.amid + opening, closing + form.after, coords.between)


def _is_plain(metadata: dict[str, Any], objects: Sequence[RecordObject]) -> bool:
    """Whether nothing is said of crowd regions, lists are of labels, and none of the objects is listed as absent."""
    lists = [metadata[key] for key in (ABSENT, INCOMPLETE) if metadata.get(key) is not None]
    if not all(type(labels) is list and all(type(label) is str for label in labels) for labels in lists):
        return False
    absent = metadata.get(ABSENT)
    return "crowd" not in metadata and not (absent and {*absent}.intersection([item.desc for item in objects]))


def _one_geometry(item: RecordObject) -> bool:
    """Whether there is one geometry of those that a form has, with `poly_points` that are right."""
    poly = item.poly
    if poly is None:
        return (item.bbox_2d is None) != (item.point is None) and item.poly_points is None
    alone = item.bbox_2d is None and item.point is None
    return alone and len(poly) % 2 == 0 and item.poly_points in (None, len(poly) // 2)


def _part_inside(box: Sequence[float], width: float, height: float) -> tuple[float, ...] | None:
    """The part of a box within the image; None where there is none, or the corners are not right."""
    x1, y1, x2, y2 = box
    for low, high, limit in ((x1, x2, width), (y1, y2, height)):
        overlaps = (high > 0 or low >= 0) and (low < limit or high <= limit)
        if low > high or not overlaps:
            return None
    return max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
