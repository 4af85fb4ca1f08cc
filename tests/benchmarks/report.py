"""Measured rows as lines of text, shared by the terminal's table and the documentation's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from rich.table import Table

COLUMNS = ("row and variants", "time: first / this", "extra peak", "to reach", "measured", "")
"""Headings. "time": the seconds of a row's first variant over this one's, median of the rounds (quartiles)."""


@attrs.frozen(kw_only=True)
class Line:
    """One variant of one row, or a further figure to reach. met: None where there is none."""

    variant: str = ""
    time: str = ""
    memory: str = ""
    reach: str = ""
    measured: str = ""
    met: bool | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """The columns after the variant."""
        verdict = "" if self.met is None else "met" if self.met else "not met"
        return self.time, self.memory, self.reach, self.measured, verdict


def lines(row: Mapping[str, Any]) -> Iterator[Line]:
    """The base first. A time to reach stands on the line of the variant it is against, memory on its own."""
    base = row["base"]
    for name in (base, *(name for name in row["variants"] if name != base)):
        variant = row["variants"][name]
        first, *rest = [reach for reach in row["reaches"] if _place(reach) == name] or [None]
        yield Line(
            variant=name,
            time="" if name == base else spread(variant["base_ratio"]),
            memory="" if variant["megabytes"] is None else megabytes(variant["megabytes"]),
            **_judged(first),
        )
        yield from (Line(**_judged(item)) for item in rest)


def _place(reach: Mapping[str, Any]) -> str:
    place: str = reach["against"] if reach["what"] == "time" else reach["variant"]
    return place


def title(row: Mapping[str, Any]) -> str:
    """What is measured, at which size, where it is not the CPU."""
    where = "" if row["device"] == "cpu" else f"{row['device'].upper()}: "
    return f"{where}{row['title']}" + (f", {row['at']:,}" if row["sweep"] else "")


def spread(ratio: Mapping[str, float] | None) -> str:
    return "" if ratio is None else f"{ratio['median']:.3g} ({ratio['low']:.3g}..{ratio['high']:.3g})"


def megabytes(value: float) -> str:
    return f"{value:,.0f} MB"


def measured(reach: Mapping[str, Any]) -> str:
    return f"{reach['measured']:.3g}x" if reach["what"] == "time" else megabytes(reach["measured"])


def _judged(reach: Mapping[str, Any] | None) -> dict[str, Any]:
    if reach is None:
        return {}
    return {"reach": reach["text"], "measured": measured(reach), "met": reach["met"]}


def table(found: Mapping[str, Any]) -> Table:
    """For the terminal."""
    drawn = Table(title="quick: these figures mean nothing" if found["quick"] else None)
    for heading in COLUMNS:
        drawn.add_column(heading, max_width=50)
    for row in found["rows"]:
        drawn.add_row(f"[bold]{title(row)}[/]")
        for line in lines(row):
            style = {True: "green", False: "red", None: None}[line.met]
            drawn.add_row(f"  {line.variant}", *line.cells, style=style)
        drawn.add_section()
    return drawn
