"""From the numbers of a record to bins: the declared space, the image's size and the run's quantisation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs
import msgspec

from coordcore import InputError
from coordcore.coords import CoordFormat
from coordcore.quantisation import Quantisation, encode_boxes
from coordcore.records.annotations import Annotation, Rules, read_annotations
from coordcore.records.answers import Located
from coordcore.records.record import Record, RecordError, check_declared
from coordcore_coord_tokens.answer import UNCHANGED, Changes

if TYPE_CHECKING:
    from coordcore_coord_tokens.config import CoordJsonlConfig


@attrs.frozen(kw_only=True)
class Placed:
    """The objects of one record in bins, and what had to be changed for it."""

    objects: tuple[Located, ...]
    changes: Changes = UNCHANGED


def locate(record: Record, config: CoordJsonlConfig, ours: Quantisation, coords: CoordFormat) -> Placed:
    """The objects of `record`, in its order. Bins are kept as they are written, degenerate boxes included.

    A box of the task "point" is the point in the middle of its part in the image, of bins in the one before it.
    Pixels and fractions are encoded with `ours`; a box that collapses there is widened by one bin, and counted;
    a polygon or quad that does is counted alone: which of its corners to move, nothing says.
    Raises RecordError for the first object that the format, `config.geometry` or `config.outside` does not allow, and
    for crowd regions under its metadata that are not right, though nothing is trained on them.
    """
    if config.space == "bin":
        check_declared(record, ours, "this run")
    rules = Rules(space=config.space, outside=config.outside, coords=coords)
    objects = [item for item in read_annotations(record, rules) if not item.crowd]
    if record.task == "point":
        objects = [_middle(item, record, config) if item.kind == "bbox_2d" else item for item in objects]
    for item in objects:
        if item.kind not in config.geometry:
            allowed = ", ".join(config.geometry)
            what = "" if item.path.endswith(item.kind) else f"its middle is what is trained, and a {item.kind} is "
            raise RecordError(
                item.path, f"{what}not among the kinds `geometry` allows: {allowed}; add it there to train it"
            )
    if config.space == "bin":
        return Placed(objects=tuple(_located(item, item.values, item.values) for item in objects))
    size = (record.width, record.height) if config.space == "pixel" else (1, 1)
    boxes = [item.values for item in objects if item.kind == "bbox_2d"]
    encoded = encode_boxes(boxes, *size, quantisation=ours, outside=config.outside)
    rows = iter(zip(encoded.bins.tolist(), encoded.values.tolist(), strict=True))
    placed = []
    for item in objects:
        bins, units = next(rows) if item.kind == "bbox_2d" else _encode_points(item, size, config, ours)
        placed.append(_located(item, bins, units))
    clipped = sum(item.outside for item in objects)
    flat = sum(is_flat(item.kind, item.bins) for item in placed)
    return Placed(objects=tuple(placed), changes=Changes(encoded.widened, clipped, flat))


def _middle(item: Annotation, record: Record, config: CoordJsonlConfig) -> Annotation:
    x1, y1, x2, y2 = item.values
    if config.space == "bin":
        values: tuple[float, ...] = ((x1 + x2) // 2, (y1 + y2) // 2)
    else:
        width, height = (record.width, record.height) if config.space == "pixel" else (1, 1)
        values = (max(x1, 0) + min(x2, width)) / 2, (max(y1, 0) + min(y2, height)) / 2
    return msgspec.structs.replace(item, kind="point", values=values)


def are_fractions(numbers: Iterable[float]) -> bool:
    """Whether all lie in 0..1 and some are no whole numbers: as fractions of an image, and hardly as pixels of one."""
    has_part = False
    for number in numbers:
        if not 0 <= number <= 1:
            return False
        has_part = has_part or number % 1 != 0
    return has_part


def is_flat(kind: str, bins: Sequence[int]) -> bool:
    """Whether the corners of a polygon or quad lie on one line, or in one place."""
    if kind not in ("poly", "quad"):
        return False
    ways = [(x - bins[0], y - bins[1]) for x, y in zip(bins[2::2], bins[3::2], strict=True)]
    along = next((way for way in ways if way != (0, 0)), (0, 0))
    return all(x * along[1] == y * along[0] for x, y in ways)


def _located(item: Annotation, bins: Sequence[float], units: Sequence[float]) -> Located:
    return Located(desc=item.desc, kind=item.kind, bins=tuple(map(int, bins)), values=tuple(map(float, units)))


def _encode_points(
    item: Annotation, size: tuple[int, int], config: CoordJsonlConfig, ours: Quantisation
) -> tuple[list[int], list[float]]:
    sizes = size * (len(item.values) // 2)
    try:
        bins = ours.encode(item.values, sizes, outside=config.outside)
    except InputError as error:  # outward rounding has no meaning for a single point
        raise RecordError(item.path, str(error)) from error
    return bins.tolist(), ours.to_bin_units(item.values, sizes, outside=config.outside).tolist()
