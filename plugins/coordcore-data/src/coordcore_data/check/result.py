"""The result of `coordcore data check`, as text for the terminal and as plain values. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np

from coordcore.quantisation import Quantisation
from coordcore.records.annotations import Space
from coordcore_data.check.sample import (
    Array,
    FileSizes,
    RoundTrip,
    Sample,
    check_files,
    collect,
    limits,
    misreadings,
    ordered,
    round_trips,
    to_pixels,
)
from coordcore_data.check.suspicion import Suspicion, percent
from coordcore_data.check.suspicions import find, fits, guess_space
from coordcore_data.convert.core import BoxOrder, printable

_BARS = " ▁▂▃▄▅▆▇█"


@attrs.frozen(kw_only=True)
class Histogram:
    """counts between `edges`, one more of these than of those."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    median: float

    @classmethod
    def of(cls, values: Array, edges: Array) -> Histogram:
        """Values beyond the outer edges are counted in the outer bars."""
        inside = np.clip(values, edges[0], edges[-1])
        counts = np.histogram(inside, edges)[0]
        median = float(np.median(values)) if len(values) else 0.0
        return cls(edges=tuple(edges.tolist()), counts=tuple(counts.tolist()), median=median)

    def bars(self) -> str:
        top = max(self.counts, default=0)
        return "".join(_BARS[-(-count * (len(_BARS) - 1) // top)] if top else " " for count in self.counts)


@attrs.frozen(kw_only=True)
class Checked:
    """What was found. space: as declared, or as guessed (`guessed` says why). order: as declared, xyxy by default.

    shares: of values above the last bin and above 1, and of whole numbers. fits: order -> share of boxes that make
    sense so.
    errors: by convention; of bins, how far they move when that convention reads them (`of_bins`).
    """

    path: Path
    records: int
    empty: int
    boxes: int
    polygons: int
    points: int
    with_keypoints: int
    space: Space
    order: BoxOrder
    guessed: str
    shares: dict[str, float]
    fits: dict[str, float]
    histograms: dict[str, Histogram]
    errors: dict[str, RoundTrip]
    of_bins: str
    files: FileSizes | None
    suspicions: list[Suspicion]

    def as_dict(self) -> dict[str, Any]:
        return {**attrs.asdict(self), "path": str(self.path)}

    def lines(self) -> list[str]:
        """For the terminal; the suspicions come last, so that they are read."""
        share = f", {percent(self.empty / self.records)}" if self.empty else ""
        lines = [
            f"{self.path}: {self.records} records ({self.empty} empty{share}), {self.boxes} boxes"
            + (f", {self.polygons} of them around polygons" if self.polygons else "")
            + (f", {self.points} points" if self.points else "")
            + (f", {self.with_keypoints} objects with keypoints" if self.with_keypoints else ""),
            f"space   {self.space}" + (f" (not declared: {self.guessed})" if self.guessed else ""),
        ]
        if self.boxes or self.points:
            lines += self._about_boxes()
        if self.files is not None:
            lines += ["", f"image files: {self.files.equal} of {self.files.checked} have the size of their record"]
        lines.append("")
        lines += [f"! {suspicion.text}" for suspicion in self.suspicions] or ["nothing suspicious"]
        if (self.boxes or self.points) and self.space != "pixel":
            lines.append("(whether x or y comes first cannot be seen in bins and fractions: look at --sheet)")
        return list(map(printable, lines))

    def _about_boxes(self) -> list[str]:
        lines = [
            "values  " + ", ".join(f"{name} {percent(share)}" for name, share in self.shares.items()),
            "read as " + ", ".join(f"{name} {percent(share)} fit" for name, share in self.fits.items()),
            "",
        ]
        width = max(map(len, self.histograms), default=0)
        for name, histogram in self.histograms.items():
            edges = f"{histogram.edges[0]:g} |{histogram.bars()}| {histogram.edges[-1]:g}"
            lines.append(f"{name.ljust(width)}  {edges:<20}  median {histogram.median:.3g}")
        if not self.errors:
            return lines
        title = "pixels lost by writing bins and reading them again"
        if self.of_bins:
            title = f"pixels that bins of {self.of_bins} move when another convention reads them"
        name_width = max(map(len, self.errors))
        lines += ["", f"{title}:", f"  {'':<{name_width}}    mean     p95     max"]
        for name, error in self.errors.items():
            lines.append(f"  {name:<{name_width}} {error.mean:>7.3f} {error.p95:>7.3f} {error.worst:>7.3f}")
        return lines


def check_data(
    path: Path,
    *,
    space: Space | None = None,
    order: BoxOrder = "xyxy",
    quantisation: Quantisation | None = None,
    images: Path | None = None,
    limit: int | None = None,
) -> Checked:
    """Look at a record file. Raises InputError if it has no record.

    quantisation: of its bins; else what the file declares. images: compare its sizes with the files there.
    """
    sample = collect(path, limit, quantisation=quantisation)
    return check_sample(sample, space=space, order=order, images=images)


def check_sample(
    sample: Sample,
    *,
    space: Space | None = None,
    order: BoxOrder = "xyxy",
    images: Path | None = None,
) -> Checked:
    """`check_data` of a file that is already read."""
    guess = guess_space(sample)
    assumed: Space = space or guess.space or "pixel"
    guessed = "" if space else guess.why + ("" if guess.space else "; taken as pixels, say --space")
    files = None if images is None else check_files(sample, images)
    errors, of_bins = _errors(sample, assumed, order)
    boxes = sample.boxes
    return Checked(
        path=sample.path,
        records=sample.records,
        empty=sample.empty,
        boxes=len(boxes) - sample.points,
        polygons=sample.polygons,
        points=sample.points,
        with_keypoints=len(np.unique(sample.of_box)),
        space=assumed,
        order=order,
        guessed=guessed,
        shares=_shares(boxes, sample.spec.bins - 1),
        fits={
            str(name): share
            for name, share in (fits(sample, assumed) if len(boxes) else {}).items()
            if sample.is_box.any() or name in ("xyxy", "yxyx")  # a point has no size
        },
        histograms=_histograms(sample, assumed, order),
        errors=errors,
        of_bins=of_bins,
        files=files,
        suspicions=find(sample, assumed, order, files, declared=space is not None),
    )


def _shares(boxes: Array, last: int) -> dict[str, float]:
    if not len(boxes):
        return {}
    return {
        f"above {last}": float((boxes > last).mean()),
        "above 1": float((boxes > 1).mean()),
        "below 0": float((boxes < 0).mean()),
        "whole numbers": float((boxes % 1 == 0).mean()),
    }


def _histograms(sample: Sample, space: Space, order: BoxOrder) -> dict[str, Histogram]:
    """Of widths and heights as shares of the image, and of width / height in pixels where the size is known."""
    if len(sample.boxes) == sample.points:
        return {}
    limit = limits(sample, space)
    known = np.isfinite(limit).all(1) & (limit > 0).all(1) & ~sample.is_point
    relative = (ordered(sample, order) / np.where(limit > 0, limit, 1))[known]
    extent = relative[:, 2:] - relative[:, :2]
    tenths = np.linspace(0, 1, 11)
    found = {
        "width / image": Histogram.of(extent[:, 0], tenths),
        "height / image": Histogram.of(extent[:, 1], tenths),
    }
    pixels = extent * sample.sizes[known]
    pixels = pixels[(pixels > 0).all(1)]
    if len(pixels):
        found["width / height"] = Histogram.of(pixels[:, 0] / pixels[:, 1], 2.0 ** np.linspace(-4, 4, 11))
    return found


def _errors(sample: Sample, space: Space, order: BoxOrder) -> tuple[dict[str, RoundTrip], str]:
    """The errors by convention and, for bins, the convention they are taken to be in."""
    if space != "bin":
        pixels = to_pixels(sample, space, order)
        return (round_trips(pixels) if len(pixels) else {}), ""
    errors = misreadings(sample, order) if len(to_pixels(sample, "bin", order)) else {}
    return errors, sample.spec.name
