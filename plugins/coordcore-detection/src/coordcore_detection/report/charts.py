"""Plots in one quiet style, as PNG. Matplotlib's figures are used directly: no pyplot, no state. Torch-free."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from coordcore_detection.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
"""Told apart by colour-blind eyes too: Okabe and Ito, Color Universal Design (2008)."""

COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)
_STYLES = ("-", "--", ":", "-.")
_INK, _SOFT = "#222222", "#d0d0d0"
_SIZE = (3.9, 2.8)  # inches: a quarter of a wide window or all of a narrow one, where 9 points are still legible
_DPI = 170


@attrs.frozen(kw_only=True, eq=False)
class Line:
    """One line of a plot. x, y: numbers; NaN leaves a gap. dots: mark each point, as where there are few."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False


def lines(
    name: str,
    series: Sequence[Line],
    *,
    title: str,
    x: str,
    y: str,
    caption: str = "",
    logarithmic: bool = False,
    share: bool = False,
) -> Picture:
    """A plot of lines, with a legend for those that have a name. share: y is one, and its axis goes from 0 to 1."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        for index, curve in enumerate(series):
            axes.plot(
                curve.x,
                curve.y,
                label=curve.name,
                color=COLOURS[index % len(COLOURS)],
                linestyle=_STYLES[index // len(COLOURS) % len(_STYLES)],
                marker="o" if curve.dots or len(curve.x) == 1 else None,
                markersize=3.5,
                linewidth=1.3,
            )
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=all(float(at).is_integer() for at in series[0].x)))
        if logarithmic:
            axes.set_yscale("log")
        if share:
            axes.set_ylim(-0.02, 1.02)
        if any(curve.name for curve in series):
            legend(axes)

    return plot(name, draw, title=title, x=x, y=y, alt=f"{title}: {y} over {x}", caption=caption)


def plot(
    name: str, draw: Callable[[Axes], None], *, title: str, x: str, y: str, alt: str, caption: str = ""
) -> Picture:
    """A plot of one pair of axes that `draw` fills."""
    figure = new_figure()
    axes = figure.add_subplot()
    draw(axes)
    finish(axes, title=title, x=x, y=y)
    return Picture(name=name, alt=alt, caption=caption, png=png(figure))


@contextmanager
def own_style() -> Iterator[None]:
    """Plots made inside look the same whatever matplotlibrc says, and what it says holds again afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def new_figure() -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=_DPI, facecolor="white")
    # Not a layout engine: that takes as long as the plot itself, and the axes of neighbours would not line up.
    figure.subplots_adjust(left=0.19, right=0.97, bottom=0.17, top=0.9)
    return figure


def finish(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Labels, and as few lines as will do. Titles may come from a manifest: a $ in them is no formula."""
    axes.set_title(title, fontsize=9.5, color=_INK, loc="left", parse_math=False)
    axes.set_xlabel(x, fontsize=9, color=_INK, parse_math=False)
    axes.set_ylabel(y, fontsize=9, color=_INK, parse_math=False)
    axes.tick_params(labelsize=8, color=_SOFT, labelcolor=_INK)
    axes.grid(visible=True, color=_SOFT, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_SOFT)


def legend(axes: Axes) -> None:
    box: Any = axes.legend(fontsize=8, frameon=False)
    for text in box.get_texts():
        text.set_parse_math(False)


def png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def file_name(name: str) -> str:
    """`name` with a hyphen for everything that a file name had better not hold."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
