"""Plots of what was found and how well: precision-recall, calibration, errors in pixels. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from coordcore_detection.evaluate.evaluation import Evaluated
from coordcore_detection.evaluate.matching import Bools, Floats, Ints
from coordcore_detection.evaluate.results import Result
from coordcore_detection.report import charts
from coordcore_detection.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WAYS = {"by_label": "labels must be equal", "agnostic": "labels are not looked at"}
_LEAST = 8
"""Boxes of a group of sizes."""


def recall_plots(result: Result) -> list[Picture]:
    """Precision over recall at each IoU, with and without labels."""
    pictures = []
    for way, curves in result.curves.items():
        series = [
            charts.Line(name=f"IoU {int(percent) / 100:.2f}", x=np.linspace(0, 1, len(values)).tolist(), y=values)
            for percent, values in curves.items()
        ]
        if series:
            pictures.append(
                charts.lines(
                    f"precision-recall-{way}",
                    series,
                    title=f"precision and recall, {_WAYS.get(way, way)}",
                    x="recall",
                    y="precision",
                    share=True,
                )
            )
    return pictures


def calibration_plots(result: Result) -> list[Picture]:
    """The share of boxes that are right over their score, with the number of boxes below."""
    return [_reliability(way, rows) for way, rows in result.calibration.items() if rows]


def _reliability(way: str, rows: Sequence[dict[str, float]]) -> Picture:
    figure = charts.new_figure()
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle="--", label="as the score says")
    above.plot(
        [row["score"] for row in rows],
        [row["right"] for row in rows],
        color=charts.BLUE,
        marker="o",
        markersize=4,
        linewidth=1.3,
        label="found",
    )
    above.set(xlim=(0, 1), ylim=(-0.03, 1.03))
    charts.legend(above)
    widths = [row["to"] - row["from"] for row in rows]
    below.bar([row["from"] for row in rows], [row["boxes"] for row in rows], widths, align="edge", color=charts.SKY)
    charts.finish(above, title=f"calibration, {_WAYS.get(way, way)}", y="share right")
    charts.finish(below, x="score", y="boxes")
    return Picture(
        name=f"calibration-{way}",
        alt=f"calibration, {_WAYS.get(way, way)}: share of boxes with IoU of at least .5 over their score",
        caption="Right is a box with IoU of at least .5. Below the dashed line the scores promise too much.",
        png=charts.png(figure),
    )


# --- errors ---------------------------------------------------------------------------------------------------------


def error_plots(evaluated: Evaluated) -> list[Picture]:
    """Error by size and by coordinate, over predicted boxes paired with a true one, labels aside; recall by size."""
    matches = evaluated.agnostic
    paired = np.flatnonzero(matches.pair >= 0)
    pictures = []
    if len(paired):
        truth = evaluated.truth.boxes[matches.pair[paired]]
        error = evaluated.predicted.boxes[paired] - truth
        pictures += [_by_size(_side(truth), np.abs(error).mean(1)), _by_coordinate(error)]
    found = np.zeros(len(evaluated.truth), dtype=bool)
    found[matches.pair[matches.iou >= 0.5]] = True
    real = ~evaluated.crowd
    if real.any():
        pictures.append(_found_by_size(_side(evaluated.truth.boxes[real]), found[real]))
    return pictures


def _side(boxes: Floats) -> Floats:
    """[n]: the side of a square of the same area, in pixels."""
    sides: Floats = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))
    return sides


def size_groups(sides: Floats) -> list[Ints]:
    """Indices of boxes by rising size, in up to ten groups of equal count, or fewer where these would be tiny."""
    count = min(10, max(1, len(sides) // _LEAST))
    return np.array_split(np.argsort(sides, kind="stable"), count)


def _by_size(sides: Floats, error: Floats) -> Picture:
    groups = size_groups(sides)
    at = [float(np.median(sides[group])) for group in groups]
    low, middle, high = np.array([np.percentile(error[group], (25, 50, 75)) for group in groups]).T

    def draw(axes: Axes) -> None:
        spread = [middle - low, high - middle]
        axes.errorbar(at, middle, spread, color=charts.BLUE, marker="o", markersize=4, linewidth=1.3, capsize=3)
        axes.set_ylim(bottom=0)

    return charts.plot(
        "error-by-size",
        draw,
        title="error by size of the box",
        x="side of a square of the same area, px",
        y="mean coordinate error, px",
        alt="median and quartiles of the error in pixels, by size of the true box",
        caption=f"Median and quartiles of {len(error)} boxes, in groups of equal count.",
    )


def _by_coordinate(error: Floats) -> Picture:
    def draw(axes: Axes) -> None:
        style: dict[str, Any] = {"color": charts.BLUE}
        axes.axhline(0, color="#888888", linewidth=1, linestyle="--")
        axes.boxplot(
            list(error.T),
            tick_labels=["x1", "y1", "x2", "y2"],
            whis=(5, 95),
            showfliers=False,
            widths=0.5,
            boxprops=style,
            whiskerprops=style,
            capprops=style,
            medianprops={"color": charts.RED},
        )

    return charts.plot(
        "error-by-coordinate",
        draw,
        title="error of each coordinate",
        x="coordinate",
        y="predicted - true, px",
        alt="median, quartiles and 5 to 95 percent of the signed error in pixels of x1, y1, x2 and y2",
        caption="Median, quartiles, and 5 to 95 %. A box off the zero line is a constant shift.",
    )


def _found_by_size(sides: Floats, found: Bools) -> Picture:
    groups = size_groups(sides)
    line = charts.Line(
        name="",
        x=[float(np.median(sides[group])) for group in groups],
        y=[float(found[group].mean()) for group in groups],
        dots=True,
    )
    return charts.lines(
        "found-by-size",
        [line],
        title="share of true boxes found, by size",
        x="side of a square of the same area, px",
        y="share found at IoU .5",
        share=True,
        caption=f"{len(sides)} true boxes in groups of equal count, labels aside.",
    )
