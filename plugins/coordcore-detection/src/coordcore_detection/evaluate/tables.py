"""Evaluations and comparisons as text for the terminal. Rich is imported when used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import UnsetType

from coordcore.errors import printable, shortened
from coordcore_detection.evaluate.compare import Comparison, Line
from coordcore_detection.evaluate.metrics import AGNOSTIC
from coordcore_detection.evaluate.results import Result

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

COLUMNS = ("by label", "ceiling", "any label", "ceiling")
CAVEAT = "(!)"
"""Stands beside an AP that something distorts, and before the sentence that says what."""

PLAIN = ("parse_failure_rate", "unfinished_rate", "duplicate_rate", "box_count_error", "box_count_bias")


def evaluation_table(result: Result) -> Table:
    """One row for each metric: with labels, without them, and the ceilings of both."""
    table = _table("", *COLUMNS)
    for name, values in metric_rows(result):
        table.add_row(name, *map(number, values))
    return table


def metric_rows(result: Result) -> Iterator[tuple[str, list[float | None]]]:
    """Each metric that knows labels, with its values under COLUMNS; those without any value are left out.

    A name of an AP that something distorts is marked by CAVEAT.
    """
    values = result.metrics
    for name in values:
        if name.startswith((AGNOSTIC, "oracle_")) or name in PLAIN:
            continue
        agnostic = AGNOSTIC + name
        shown = [values.get(item) for item in (name, f"oracle_{name}", agnostic, f"oracle_{agnostic}")]
        if any(item is not None for item in shown):
            yield marked(name, distorted=bool(result.caveats)), shown


def marked(name: str, *, distorted: bool) -> str:
    """The name of a metric, with CAVEAT behind that of a distorted AP."""
    return f"{name} {CAVEAT}" if distorted and name.removeprefix(AGNOSTIC).startswith("AP") else name


def rates(result: Result) -> str:
    """The metrics that know no labels, in one line."""
    return ", ".join(f"{name} {number(result.metrics[name])}" for name in PLAIN)


def task_lines(result: Result) -> list[str]:
    """The figures of each task, in a line."""
    found = {} if isinstance(result.tasks, UnsetType) else result.tasks
    return [f"{task}: {', '.join(map(figure, values, values.values()))}" for task, values in found.items()]


def figure(name: str, value: float | None) -> str:
    """A figure of a task with its name; counts without digits behind the point."""
    if name in ("records", "absent"):
        return f"{value:.0f} {name}"
    return f"{name} {number(value) or 'none'}"


def comparison_table(comparison: Comparison, *, everything: bool = False) -> Table:
    """One row for each metric that is resampled, or for every one; a star marks a clear difference."""
    table = _table("", "A", "B", "B - A", "95 % interval", "")
    for line in comparison.lines:
        undefined = line.a is None and line.b is None
        if not undefined and (everything or line.difference_interval is not None):
            table.add_row(*_cells(line, distorted=bool(comparison.caveats)))
    return table


def _cells(line: Line, *, distorted: bool) -> Sequence[str | Text]:
    from rich.text import Text

    interval = line.difference_interval
    span = "" if interval is None else f"{interval[0]:+.4f} .. {interval[1]:+.4f}"
    difference = "" if line.difference is None else f"{line.difference:+.4f}"
    name = Text(printable(shortened(marked(line.metric, distorted=distorted), 200)))
    return name, number(line.a), number(line.b), difference, span, "*" if line.is_clear else ""


def _table(*titles: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, title in enumerate(titles):
        table.add_column(title, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def number(value: float | None) -> str:
    """Four digits behind the point; "" where there is no value."""
    return "" if value is None else f"{value:.4f}"
