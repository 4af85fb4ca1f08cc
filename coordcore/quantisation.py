"""The declared quantisation conventions: pixels to ordered bins and back. Torch-free; numpy is imported when used."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import attrs
from attrs.validators import ge, gt, in_, instance_of, matches_re

from coordcore.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

NUM_BINS = 1000
"""Ordered bins of a coordinate where nothing else is declared, 0 .. 999."""

Rounding = Literal["nearest", "floor", "outward"]
Outside = Literal["error", "clip"]


def _finite(instance: Any, attribute: Any, value: float) -> None:
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{attribute.name} must be a finite number, got {value!r}")


def _number(*more: Any) -> Any:
    validators: list[Any] = [instance_of((int, float)), _finite, *more]
    return attrs.field(validator=validators)


@attrs.frozen(kw_only=True)
class Quantisation:
    """One convention for writing a position in an image as one of `bins` ordered bins.

    A position x on an axis of `size` pixels is written as `r(x * encode_scale / size)`, limited to the last bin, and
    read as `(bin + decode_shift) * size / decode_scale`. r is "nearest" (`floor(v + 0.5)`: halves go up, where Python
    and NumPy would round them to even), "floor", or "outward" (floor for x1 and y1, ceil for x2 and y2).

    inset: pixels that `size` is taken to be smaller by, 1 where positions are the indices 0 .. size - 1 of pixels.

    The last bin takes what would fall behind it: with `encode_scale` = `bins` that is the image's right and lower
    edge. `version` changes when a convention of the same name changes its meaning.
    """

    name: str = attrs.field(validator=matches_re(r"[a-z][a-z0-9_]*"))
    version: int = attrs.field(default=1, validator=[instance_of(int), ge(1)])
    bins: int = attrs.field(default=NUM_BINS, validator=[instance_of(int), gt(1)])
    encode_scale: float = _number(gt(0))
    rounding: Rounding = attrs.field(validator=in_(get_args(Rounding)))
    decode_scale: float = _number(gt(0))
    decode_shift: float = _number()
    inset: float = attrs.field(default=0.0, validator=[instance_of((int, float)), _finite, ge(0)])

    def encode(
        self, values: ArrayLike, size: ArrayLike, *, outside: Outside = "error", upper: ArrayLike | None = None
    ) -> NDArray[Any]:
        """The bins of `values` (pixels, any shape) on axes of `size` pixels (broadcast): int64, 0 .. bins-1.

        outside: what to do with a value below 0 or above `size`: "error", or "clip" to the image's edge.
        upper: bool, broadcast: which values are a box's x2 or y2. Only "outward" rounding needs it.
        Raises InputError for NaN, infinities, a size that is not > 0, and values outside the image unless clipped.
        """
        import numpy as np

        pixels, sizes = _inside(values, size, outside)
        if self.rounding == "outward" and upper is None:
            why = f"quantisation {self.name} rounds boxes outward and cannot encode single points"
            raise InputError(f"{why}; encode boxes, or choose a quantisation that rounds to nearest")
        scaled = pixels * self.encode_scale / self._spans(sizes)
        rounded = np.floor(scaled)
        if self.rounding == "nearest":
            # Not floor(scaled + 0.5): that addition itself rounds 0.49999999999999994 up to 1.
            rounded += scaled - rounded >= 0.5
        elif self.rounding == "outward":
            rounded = np.where(np.asarray(upper, dtype=bool), np.ceil(scaled), rounded)
        return np.minimum(rounded, self.bins - 1).astype(np.int64)

    def decode(self, bins: ArrayLike, size: ArrayLike) -> NDArray[Any]:
        """The pixels of `bins` (any shape; real-valued ones too, such as an expected bin): float64.

        Raises InputError for NaN and for values outside 0 .. bins-1.
        """
        array = _numbers(bins, "bins")
        last = self.bins - 1
        bad = (array < 0) | (array > last)
        if bad.any():
            value = array[bad].flat[0]
            hint = f"{value:g} > {last}: this looks like absolute pixels" if value > last else f"got {value:g}"
            raise InputError(f"bins must lie in 0..{last}; {hint}")
        return (array + self.decode_shift) * self._spans(_sizes(size)) / self.decode_scale

    def to_bin_units(self, values: ArrayLike, size: ArrayLike, *, outside: Outside = "error") -> NDArray[Any]:
        """The real-valued bin that decodes to each value, unrounded: float64 in 0 .. bins-1.

        For nearest_999 this is `x / size * 999`. Where a convention has no bin for a value (the last pixel of
        qwen_1000, the outer half bins of florence_1000) it is the nearest one there is. Errors as in `encode`.
        """
        pixels, sizes = _inside(values, size, outside)
        return (pixels * self.decode_scale / self._spans(sizes) - self.decode_shift).clip(0.0, self.bins - 1.0)

    def _spans(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """How many pixels the bins span on each axis."""
        import numpy as np

        return np.maximum(sizes - self.inset, 1.0) if self.inset else sizes

    def as_dict(self) -> dict[str, Any]:
        """The whole spec as plain values, for record files, checkpoints and predictions."""
        # An inset of 0 is not written: so it was before there was one.
        return attrs.asdict(self, filter=lambda field, value: field.name != "inset" or value != 0)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, source: str = "quantisation") -> Quantisation:
        """The spec that `as_dict` wrote. `source` names the file in messages.

        Raises InputError for missing, unknown or wrong entries, and for a known name with another meaning.
        """
        names = [field.name for field in attrs.fields(cls) if field.name != "inset"]
        if not isinstance(data, Mapping) or set(data) - {"inset"} != set(names):
            raise InputError(f"{source}: must hold exactly {', '.join(names)}, got {data!r}; write it with as_dict()")
        try:
            spec = cls(**data)
        except (TypeError, ValueError) as error:
            raise InputError(f"{source}: {error.args[0]}") from error
        require_same(spec, QUANTISATIONS.get(spec.name, spec), source, "this version of coordcore")
        return spec

    def __str__(self) -> str:
        return f"{self.name} (version {self.version})"


_COLUMNS = ("name", "encode_scale", "rounding", "decode_scale", "decode_shift", "inset", "bins")
_ROWS: tuple[tuple[Any, ...], ...] = (
    ("nearest_999", 999.0, "nearest", 999.0, 0.0, 0.0, 1000),  # the default: exact at both edges, half a bin at most
    ("qwen_1000", 1000.0, "nearest", 1000.0, 0.0, 0.0, 1000),  # Qwen's text coordinates
    ("florence_1000", 1000.0, "floor", 1000.0, 0.5, 0.0, 1000),  # Florence-2: bin centres
    ("outward_999", 999.0, "outward", 999.0, 0.0, 0.0, 1000),
    ("floor_999", 999.0, "floor", 999.0, 0.0, 0.0, 1000),  # Rex-Omni, supervised stage
    ("rex_reward", 999.0, "floor", 1000.0, 0.0, 0.0, 1000),  # Rex-Omni, reward stage: not an inverse pair
    ("mixed_999_1000", 999.0, "nearest", 1000.0, 0.0, 0.0, 1000),  # encode one way, decode another: to measure that
    ("coordexp_999", 999.0, "outward", 999.0, 0.0, 1.0, 1000),  # CoordExp's published files: from pixel 0 to the last
    ("paligemma_1024", 1024.0, "nearest", 1024.0, 0.0, 0.0, 1024),  # PaliGemma, as its demo reads it: k / 1024
)

QUANTISATIONS: Mapping[str, Quantisation] = {
    row[0]: Quantisation(**dict(zip(_COLUMNS, row, strict=True))) for row in _ROWS
}
"""Name -> convention. Beside them there is one for any number of bins: nearest_255, of 256 bins, and floor_255."""
_OF_ANY_SIZE = re.compile(r"(nearest|floor)_([1-9][0-9]{0,4})")

DEFAULT_QUANTISATION = QUANTISATIONS["nearest_999"]


def quantisation(name: str) -> Quantisation:
    """The convention of that name. Raises InputError listing the names there are."""
    if name in QUANTISATIONS:
        return QUANTISATIONS[name]
    if sized := _OF_ANY_SIZE.fullmatch(name):
        like, last = QUANTISATIONS[f"{sized[1]}_999"], int(sized[2])
        return attrs.evolve(like, name=name, bins=last + 1, encode_scale=float(last), decode_scale=float(last))
    raise InputError(f"unknown quantisation {name!r}; available: {', '.join(QUANTISATIONS)}")


def require_same(a: Quantisation, b: Quantisation, what_a: str, what_b: str) -> None:
    """Raise InputError unless `a` and `b` are the same convention; the message names both owners and what differs."""
    ours, theirs = attrs.asdict(a), attrs.asdict(b)
    differ = [f"{key} {ours[key]} against {theirs[key]}" for key in ours if ours[key] != theirs[key]]
    if differ:
        cure = "use one convention throughout ([coords] quantisation), or write the data again from pixels"
        raise InputError(f"{what_a} is quantised as {a}, {what_b} as {b}: {', '.join(differ)}; {cure}")


def count_outside(values: ArrayLike, size: ArrayLike) -> int:
    """How many of `values` lie outside 0..size: what `outside="clip"` would move."""
    array, limit = _numbers(values, "values"), _sizes(size)
    return int(((array < 0) | (array > limit)).sum())


@attrs.frozen(kw_only=True, eq=False)
class EncodedBoxes:
    """Boxes as bins.

    bins: [n, 4] int64, x1 y1 x2 y2 with x1 < x2 and y1 < y2. values: [n, 4] float64, the same corners in bin units,
    unrounded; a corner that was moved to widen its box has its bin here.
    widened: boxes that had collapsed and were widened by one bin. clipped: boxes that were cut at the image's edge.
    """

    bins: NDArray[Any]
    values: NDArray[Any]
    widened: int
    clipped: int


def encode_boxes(
    boxes: ArrayLike,
    width: int,
    height: int,
    *,
    quantisation: Quantisation = DEFAULT_QUANTISATION,
    outside: Outside = "error",
) -> EncodedBoxes:
    """Encode `boxes` ([n, 4] pixels: x1, y1, x2, y2) of one image of `width` x `height`.

    A box whose corners fall into one bin is widened by one bin, to the right and downwards, at the last bin to the
    left and upwards. outside: as in `Quantisation.encode`; "clip" cuts boxes at the image's edge, but never makes up a
    box that does not overlap the image.
    Raises InputError naming the box for x2 < x1 or y2 < y1, for corners outside the image, and for NaN.
    """
    import numpy as np

    array = _numbers(boxes, "boxes")
    if array.size == 0:
        array = array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise InputError(f"boxes must have shape [n, 4] (x1, y1, x2, y2 in pixels), got {list(array.shape)}")
    size = np.array([width, height] * 2, dtype=np.float64)
    low, high, limit = array[:, :2], array[:, 2:], size[:2]
    moved = (array < 0) | (array > size)
    missed = (high <= 0) & (low < 0) | (low >= limit) & (high > limit)
    _reject_boxes(array, high < low, "corners are not x1 <= x2, y1 <= y2; is this x, y, width, height?")
    if outside == "error":
        _reject_boxes(array, moved, f"lies outside the image of {width} x {height}; mend it or ask for clipping")
    _reject_boxes(array, missed, f"does not overlap the image of {width} x {height}; leave it out")

    bins = quantisation.encode(array, size, outside=outside, upper=[False, False, True, True])
    values = quantisation.to_bin_units(array, size, outside=outside)
    flat = bins[:, 2:] <= bins[:, :2]
    at_end = flat & (bins[:, :2] >= quantisation.bins - 1)
    step = np.hstack([-at_end.astype(np.int64), flat & ~at_end])
    bins += step
    values = np.where(step != 0, bins, values)
    return EncodedBoxes(bins=bins, values=values, widened=int(flat.any(1).sum()), clipped=int(moved.any(1).sum()))


def _reject_boxes(boxes: NDArray[Any], bad: NDArray[Any], why: str) -> None:
    """Raise InputError for the first box that is `bad` in any of its columns."""
    if bad.any():
        index = int(bad.any(1).argmax())
        raise InputError(f"box {index} {boxes[index].tolist()}: {why}")


def _numbers(values: ArrayLike, what: str) -> NDArray[np.float64]:
    import numpy as np

    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{what} must be a rectangular array of numbers, got {values!r}") from error
    # Strings and booleans would convert to numbers without a word; an empty list has no type yet.
    if array.size and array.dtype.kind not in "iuf":
        raise InputError(f"{what} must be numbers, got {array.flat[0]!r}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{what} must be finite numbers, got {array[~np.isfinite(array)].flat[0]}")
    return array


def _sizes(size: ArrayLike) -> NDArray[np.float64]:
    array = _numbers(size, "image size")
    if not (array > 0).all():
        raise InputError(f"image size must be > 0 pixels, got {array.min():g}")
    return array


def _inside(values: ArrayLike, size: ArrayLike, outside: Outside) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`values` within the image, and the sizes of their axes."""
    import numpy as np

    array, limit = _numbers(values, "values"), _sizes(size)
    if outside not in get_args(Outside):
        raise InputError(f"outside must be 'error' or 'clip', got {outside!r}")
    bad = (array < 0) | (array > limit)
    if outside == "error" and bad.any():
        value, edge = (np.broadcast_to(part, bad.shape)[bad].flat[0] for part in (array, limit))
        raise InputError(f"value {value:g} lies outside the image (0..{edge:g} pixels); mend it or ask for clipping")
    return np.clip(array, 0.0, limit), limit
