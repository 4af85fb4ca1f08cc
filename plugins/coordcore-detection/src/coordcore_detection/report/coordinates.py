"""Plots of what the model weighed: distributions over the bins at chosen coordinates, beside the target. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from coordcore.quantisation import Quantisation
from coordcore_detection.evaluate.distributions import Distribution
from coordcore_detection.evaluate.evaluation import Evaluated
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.report import charts
from coordcore_detection.report.page import Group, Picture, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BOXES = 2
_LEAST_SHOWN = 60  # bins; with fewer a sharp peak would look broad
_NAMES = ("x1", "y1", "x2", "y2")

Array = np.ndarray[Any, np.dtype[Any]]


@attrs.frozen(kw_only=True, eq=False)
class _Chosen:
    """A recorded box with the true box that it is paired with. true: [4] its corners in bins. iou: of the two."""

    recorded: Distribution
    label: str
    true: Array
    iou: float


def distribution_groups(
    recorded: Sequence[Distribution],
    evaluated: Evaluated,
    truth: Sequence[TruthImage],
    quantisation: Quantisation,
    sigma: float | None,
) -> list[Group]:
    """Four plots for the best and for the worst recorded box that has a true one.

    truth: as it was given to the evaluation. sigma: of the soft target in bins; None draws a line.
    """
    pairs = list(_paired(recorded, evaluated, truth, quantisation))
    pairs.sort(key=lambda item: -item.iou)
    shown = pairs if len(pairs) <= _BOXES else [pairs[0], pairs[-1]]
    return [
        Group(
            title=f"{item.recorded.image}: {short(item.label)}, IoU {item.iou:.2f}",
            pictures=[_plot(f"distribution-{number}-{_NAMES[axis]}", item, axis, sigma) for axis in range(4)],
        )
        for number, item in enumerate(shown, start=1)
    ]


def _paired(
    recorded: Sequence[Distribution],
    evaluated: Evaluated,
    truth: Sequence[TruthImage],
    quantisation: Quantisation,
) -> Iterator[_Chosen]:
    index_of = {key: index for index, key in enumerate(evaluated.result.detail.images)}
    for item in recorded:
        image = index_of.get(item.image)
        if image is None or image not in evaluated.predicted.image:
            continue
        first = int((evaluated.predicted.image == image).argmax())  # in the order of the answer: the recorded one
        pair = int(evaluated.agnostic.pair[first])
        if pair >= 0:
            known = truth[evaluated.place[image]]
            size = [known.width, known.height]
            yield _Chosen(
                recorded=item,
                label=evaluated.labels[evaluated.predicted.label[first]],
                true=quantisation.to_bin_units(evaluated.truth.boxes[pair], size * 2, outside="clip"),
                iou=float(evaluated.agnostic.iou[first]),
            )


def soft_target(true: float, sigma: float, bins: int) -> Array:
    """[K]: exp(-(k - true)^2 / 2 sigma^2), made to sum to 1."""
    weights = np.exp(-((np.arange(bins) - true) ** 2) / (2 * sigma**2))
    result: Array = weights / weights.sum()
    return result


def _plot(name: str, chosen: _Chosen, axis: int, sigma: float | None) -> Picture:
    p = chosen.recorded.probabilities[axis].astype(np.float64)
    true, written = float(chosen.true[axis]), chosen.recorded.bins[axis]
    target = None if sigma is None else soft_target(true, sigma, len(p))
    low, high = _span(p if target is None else (p + target) / 2, true, written)

    def draw(axes: Axes) -> None:
        bins = np.arange(len(p))
        axes.fill_between(bins, p, step="mid", color=charts.SKY, linewidth=0, label="predicted")
        if target is not None:
            axes.plot(bins, target, color=charts.RED, linewidth=1.3, label="soft target")
        axes.axvline(true, color=charts.RED, linewidth=1, linestyle="--", label="true")
        axes.set_xlim(low, high)
        axes.set_ylim(bottom=0)
        charts.legend(axes)

    near = p[max(0, round(true) - 10) : round(true) + 11].sum()
    return charts.plot(
        name,
        draw,
        title=_NAMES[axis],
        x="bin k",
        y="probability",
        alt=f"distribution of {_NAMES[axis]} over the bins: most likely {int(p.argmax())}, true {true:.1f}",
        caption=f"Written {written}, true {true:.1f}; {near:.0%} of the probability lies within 10 bins of the truth.",
    )


def _span(weights: Array, true: float, written: int) -> tuple[float, float]:
    """The bins worth showing: 99 % of the weight, the truth and what was written."""
    total = np.cumsum(weights)
    low = min(int(np.searchsorted(total, 0.005 * total[-1])), int(true), written) - 5
    high = max(int(np.searchsorted(total, 0.995 * total[-1])), int(true), written) + 5
    lacking = max(0, _LEAST_SHOWN - (high - low))
    return max(-0.5, low - lacking / 2), min(len(weights) - 0.5, high + lacking / 2)
