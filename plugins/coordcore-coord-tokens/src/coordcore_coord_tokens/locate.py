"""From the numbers of a record to bins: the declared space, the image's size and the run's quantisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from coordcore import InputError
from coordcore.coords import Quantisation, encode_boxes, quantisation, require_same
from coordcore_coord_tokens.answer import Located
from coordcore_coord_tokens.records import (
    Coordinates,
    Record,
    RecordError,
    check_corners,
    check_text,
    geometry_of,
    read_bins,
)

if TYPE_CHECKING:
    from coordcore_coord_tokens.plugin import CoordJsonlConfig


@attrs.frozen(kw_only=True)
class Placed:
    """The objects of one record in bins.

    widened: boxes whose corners fell into one bin and were widened by one. clipped: objects cut at the image's edge.
    """

    objects: tuple[Located, ...]
    widened: int = 0
    clipped: int = 0


def locate(record: Record, config: CoordJsonlConfig, ours: Quantisation) -> Placed:
    """The objects of `record`, in its order. Bins are kept as they are written, degenerate boxes included.

    Pixels and fractions are encoded with `ours`; a box that collapses there is widened by one bin, and counted.
    Raises RecordError for the first object that the format, `config.geometry` or `config.outside` does not allow.
    """
    if record.objects is None:
        raise RecordError("objects", "missing; write an empty list when the image holds none")
    if config.space == "bin":
        _check_declared(record, ours)
    given: list[tuple[str, Coordinates, str]] = []
    for index, one in enumerate(record.objects):
        path = f"objects[{index}]"
        check_text(one.desc, f"{path}.desc")
        kind, values = geometry_of(one, path)
        if kind not in config.geometry:
            raise RecordError(f"{path}.{kind}", f"not among the kinds `geometry` allows: {', '.join(config.geometry)}")
        given.append((kind, values, f"{path}.{kind}"))
    descs = [one.desc for one in record.objects]
    if config.space == "bin":
        placed = []
        for desc, (kind, values, path) in zip(descs, given, strict=True):
            bins = read_bins(kind, values, path)
            placed.append(Located(desc=desc, kind=kind, bins=bins, values=tuple(map(float, bins))))
        return Placed(objects=tuple(placed))
    size = (record.width, record.height) if config.space == "pixel" else (1, 1)
    return _encode(descs, given, size, config, ours)


def _encode(
    descs: Sequence[str],
    given: Sequence[tuple[str, Coordinates, str]],
    size: tuple[int, int],
    config: CoordJsonlConfig,
    ours: Quantisation,
) -> Placed:
    reals = [_read_reals(kind, values, path, size, config) for kind, values, path in given]
    boxes = [values for (kind, _, _), (values, _) in zip(given, reals, strict=True) if kind == "bbox_2d"]
    encoded = encode_boxes(boxes, *size, quantisation=ours, outside=config.outside)
    rows = iter(zip(encoded.bins.tolist(), encoded.values.tolist(), strict=True))
    placed = []
    for desc, (kind, _, path), (values, _) in zip(descs, given, reals, strict=True):
        bins, units = next(rows) if kind == "bbox_2d" else _encode_poly(values, path, size, config, ours)
        placed.append(Located(desc=desc, kind=kind, bins=tuple(bins), values=tuple(units)))
    clipped = sum(outside for _, outside in reals)
    return Placed(objects=tuple(placed), widened=encoded.widened, clipped=clipped)


def _encode_poly(
    values: tuple[float, ...], path: str, size: tuple[int, int], config: CoordJsonlConfig, ours: Quantisation
) -> tuple[list[int], list[float]]:
    sizes = size * (len(values) // 2)
    try:
        bins = ours.encode(values, sizes, outside=config.outside)
    except InputError as error:  # outward rounding has no meaning for a single point
        raise RecordError(path, str(error)) from error
    return bins.tolist(), ours.to_bin_units(values, sizes, outside=config.outside).tolist()


def _read_reals(
    kind: str, values: Coordinates, path: str, size: tuple[int, int], config: CoordJsonlConfig
) -> tuple[tuple[float, ...], bool]:
    """The coordinates as real numbers, and whether any lies outside the image."""
    for value in values:
        if isinstance(value, str):
            raise RecordError(path, f'{value!r} is text, but `space` is "{config.space}"; write numbers, or set "bin"')
    reals = tuple(map(float, values))
    if kind == "bbox_2d":
        check_corners(reals, path)
    outside = False
    for axis, limit, along in (("x", size[0], reals[::2]), ("y", size[1], reals[1::2])):
        low, high = min(along), max(along)
        if low >= 0 and high <= limit:
            continue
        outside = True
        if config.outside == "error":
            value = high if high > limit else low
            cure = '`outside = "clip"` moves such corners to the edge'
            if config.space == "norm1" and value > limit:
                cure = 'if these are pixels, set `space = "pixel"`'
            raise RecordError(path, f"{axis} = {value:g} lies outside 0..{limit}; {cure}")
        if (high <= 0 and low < 0) or (low >= limit and high > limit):
            raise RecordError(path, f"{axis} = {low:g}..{high:g} does not overlap 0..{limit}; remove the object")
    return reals, outside


def _check_declared(record: Record, ours: Quantisation) -> None:
    """Bins mean something only under a convention: a record that declares one must declare the run's."""
    declared = (record.metadata or {}).get("quantisation")
    if declared is None:
        return
    try:
        if isinstance(declared, str):
            theirs = quantisation(declared)
        else:
            theirs = Quantisation.from_dict(declared, source="the record's spec")
        require_same(theirs, ours, "the record", "this run")
    except InputError as error:
        raise RecordError("metadata.quantisation", str(error)) from error
