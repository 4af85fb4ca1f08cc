"""Two evaluations side by side: values, differences, and paired bootstrap intervals over images. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from coordcore import InputError
from coordcore_detection.evaluate import resampling, results
from coordcore_detection.evaluate.contract import differences
from coordcore_detection.evaluate.matching import Floats
from coordcore_detection.evaluate.results import Detail, Outcome, Result

LEVEL = 0.95
_AT_ONCE = 250  # resamples held at a time: 250 x 5,000 images x 8 bytes = 10 MB


@attrs.frozen(kw_only=True)
class Line:
    """One metric of both: its values (None where undefined) and, for those that are resampled, 95 % intervals.

    difference: b - a, with the interval of the difference over the same resampled images.
    """

    metric: str
    a: float | None
    b: float | None
    a_interval: tuple[float, float] | None = None
    b_interval: tuple[float, float] | None = None
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the interval of the difference leaves out zero."""
        interval = self.difference_interval
        return interval is not None and not interval[0] <= 0.0 <= interval[1]


@attrs.frozen(kw_only=True)
class Comparison:
    """differences: of the two contracts, none unless they were overruled. images: that both have.

    caveats: what distorts AP in either.
    """

    lines: tuple[Line, ...]
    differences: tuple[str, ...]
    caveats: tuple[str, ...]
    images: int
    only_a: int
    only_b: int
    resamples: int
    seed: int


def compare(a: Result, b: Result, *, resamples: int = 1000, seed: int = 0, force: bool = False) -> Comparison:
    """Compare `b` with `a` on the images that both have, resampled together `resamples` times.

    An interval holds the middle 95 % of the resampled values (the percentile bootstrap of Efron 1979). Values that are
    not resampled, AP and AR by size and the ceilings, are shown when both results have the same images.
    Raises InputError for different contracts unless `force`, and when no image is in both.
    """
    found = tuple(differences(a.contract, b.contract))
    if found and not force:
        listed = "\n".join(f"  {item}" for item in found)
        raise InputError(
            f"the two evaluations stand under different contracts, so their numbers do not compare:\n{listed}\n"
            "evaluate both in one way, or compare them all the same with --force"
        )
    known = {*a.detail.images} & {*b.detail.images}
    if not known:
        raise InputError(
            f"no image is in both: the first begins with {a.detail.images[0]!r}, the second with {b.detail.images[0]!r}"
        )
    # Each in its own order: that is the one which decides between equal scores.
    details = [restricted(item.detail, [key for key in item.detail.images if key in known]) for item in (a, b)]
    whole = [_whole(*pair) for pair in zip((a, b), details, strict=True)]
    drawn = _draw(details, resamples, seed)
    shared = [name for name in drawn[0] if name in drawn[1]]  # of points and outlines, either may have none
    if absent := [name for name in shared if any(name not in item for item in whole)]:
        raise InputError(f"not both hold {absent[0]}; evaluate the predictions again")
    lines = [_line(name, whole[0][name], whole[1][name], drawn[0][name], drawn[1][name]) for name in shared]
    if len(known) == len(a.detail.images) == len(b.detail.images):
        fixed = [name for name in a.metrics if name in b.metrics and name not in drawn[0]]
        lines += [_line(name, a.metrics[name], b.metrics[name]) for name in fixed]
        tasks = [results.task_figures(item) for item in (a, b)]
        lines += [_line(name, tasks[0][name], tasks[1][name]) for name in tasks[0] if name in tasks[1]]
    return Comparison(
        lines=tuple(lines),
        differences=found,
        caveats=tuple(dict.fromkeys([*a.caveats, *b.caveats])),
        images=len(known),
        only_a=len(a.detail.images) - len(known),
        only_b=len(b.detail.images) - len(known),
        resamples=resamples,
        seed=seed,
    )


def _whole(result: Result, detail: Detail) -> dict[str, float | None]:
    """The metrics of a result on the images of `detail`; those that it holds itself when these are all."""
    if len(detail.images) == len(result.detail.images):
        return result.metrics
    values = resampling.resampled(detail, np.ones((1, len(detail.images))))
    return {name: None if np.isnan(value[0]) else float(value[0]) for name, value in values.items()}


def restricted(detail: Detail, images: Sequence[str]) -> Detail:
    """`detail` of these of its images, in this order."""
    if detail.images == list(images):
        return detail
    place = {key: index for index, key in enumerate(detail.images)}
    kept = [place[key] for key in images]
    new = {old: index for index, old in enumerate(kept)}

    def chosen(of: Sequence[int]) -> list[int]:
        """Indices of the entries that belong to a kept image, by image."""
        return sorted((number for number, image in enumerate(of) if image in new), key=lambda number: new[of[number]])

    boxes, truths = chosen(detail.image), chosen(detail.truth_image)

    def outcome(item: Any) -> Any:
        return item and Outcome(
            iou=_take(item.iou, boxes),
            in_crowd=_take(item.in_crowd, boxes),
            found=_take(item.found, boxes),
            ignored=_take(item.ignored, boxes),
            hit=_take(item.hit, kept),
        )

    return Detail(
        images=list(images),
        labels=detail.labels,
        truth_image=[new[detail.truth_image[number]] for number in truths],
        truth_label=_take(detail.truth_label, truths),
        unread=_take(detail.unread, kept),
        unfinished=_take(detail.unfinished, kept),
        image=[new[detail.image[number]] for number in boxes],
        label=_take(detail.label, boxes),
        score=_take(detail.score, boxes),
        duplicate=_take(detail.duplicate, boxes),
        by_label=outcome(detail.by_label),
        agnostic=outcome(detail.agnostic),
        by_outline=outcome(detail.by_outline),
        agnostic_by_outline=outcome(detail.agnostic_by_outline),
        points=detail.points and {name: _take(column, kept) for name, column in detail.points.items()},
    )


def _take(values: Sequence[Any], at: Sequence[int]) -> list[Any]:
    return [values[number] for number in at]


def _draw(details: Sequence[Detail], resamples: int, seed: int) -> list[dict[str, Floats]]:
    """Metric -> [resamples], for each of the details on the same images drawn with replacement."""
    rng = np.random.default_rng(seed)
    count = len(details[0].images)
    place = {key: index for index, key in enumerate(details[0].images)}
    columns = [[place[key] for key in detail.images] for detail in details]
    parts: list[list[dict[str, Floats]]] = [[] for _ in details]
    for begin in range(0, resamples, _AT_ONCE):
        drawn = min(_AT_ONCE, resamples - begin)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=drawn).astype(np.float64)
        for part, detail, column in zip(parts, details, columns, strict=True):
            part.append(resampling.resampled(detail, weights[:, column]))
    return [{name: np.concatenate([item[name] for item in part]) for name in part[0]} for part in parts]


def _line(
    name: str, a: float | None, b: float | None, a_drawn: Floats | None = None, b_drawn: Floats | None = None
) -> Line:
    difference = None if a is None or b is None else b - a
    if a_drawn is None or b_drawn is None:
        return Line(metric=name, a=a, b=b, difference=difference)
    return Line(
        metric=name,
        a=a,
        b=b,
        a_interval=_interval(a_drawn),
        b_interval=_interval(b_drawn),
        difference=difference,
        difference_interval=_interval(b_drawn - a_drawn),
    )


def _interval(values: Floats) -> tuple[float, float] | None:
    """The middle 95 % of the resamples that have a value."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high
