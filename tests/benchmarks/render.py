"""Renders the measured parts of docs/explanation/performance.md from the JSON of run.py: `render.py bench.json`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from report import COLUMNS, lines, measured, megabytes, title

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "explanation" / "performance.md"
PLOT = DOCS / "images" / "performance.png"

_PART = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_OURS, _THEIRS, _BOUND = "#0b6e75", "#b4b4b4", "#d1495b"


def render(found: Mapping[str, Any]) -> None:
    """Write the page's measured parts and the plot. Raises ValueError for figures of tiny sizes."""
    if found["quick"]:
        raise ValueError("these figures were measured with --quick, at sizes that say nothing")
    parts = {
        "conditions": conditions(found),
        "reached": reached(found),
        "rows": all_rows(found),
        "scaling": scaling(found),
    }
    text = PAGE.read_text(encoding="utf-8")
    written = _PART.sub(lambda match: f"{match[1]}{parts[match[2]]}\n{match[3]}", text)
    PAGE.write_text(written, encoding="utf-8")
    plot(found, PLOT)


def conditions(found: Mapping[str, Any]) -> str:
    """Of all rows: when, on what, with which versions, and how long they took."""
    environment, rows = found["environment"], found["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    devices = f"{environment['cpu']}, {environment['threads']} threads"
    if environment["gpu"]:
        devices += f"; {environment['gpu']}"
    dates = " to ".join(dict.fromkeys((min(row["date"] for row in rows), max(row["date"] for row in rows))))
    minutes = sum(row["took"] for row in rows) / 60
    return f"{dates}, {devices}; {versions}; all rows together took {minutes:.0f} minutes."


def reached(found: Mapping[str, Any]) -> str:
    """Every figure to reach beside what was measured."""
    body = []
    for row in found["rows"]:
        for number, reach in enumerate(row["reaches"]):
            name = title(row) if number == 0 else ""
            of = f" of {reach['against']}" if reach["what"] == "time" else ""
            body.append((name, f"{reach['text']}{of}", measured(reach), "yes" if reach["met"] else "**no**"))
    return markdown(("what", "to reach", "measured", "met"), body)


def all_rows(found: Mapping[str, Any]) -> str:
    """The rows that are no sweep, as a Markdown table."""
    body: list[tuple[str, ...]] = []
    for row in found["rows"]:
        if not row["sweep"]:
            body.append((f"**{title(row)}**", *[""] * (len(COLUMNS) - 1)))
            body.extend((line.variant, *line.cells) for line in lines(row))
    return markdown(COLUMNS, body)


def scaling(found: Mapping[str, Any]) -> str:
    """One table per sweep and device: a line per size."""
    tables = []
    for rows in sweeps(found["rows"]):
        names = list(rows[0]["variants"])
        peers = names[1:]
        heading = [rows[0]["title"], *(f"time: {names[0]} / {peer}" for peer in peers)]
        heading += [f"extra peak, {name}" for name in names]
        body = []
        for row in rows:
            variants = [row["variants"].get(name) for name in names]
            ratios = ["" if variant is None else f"{variant['base_ratio']['median']:.3g}" for variant in variants[1:]]
            peaks = ["" if variant is None else megabytes(variant["megabytes"]) for variant in variants]
            body.append((f"{row['at']:,}", *ratios, *peaks))
        tables.append(markdown(heading, body))
    return "\n\n".join(tables)


def sweeps(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """The rows of each sweep on each device, smallest first."""
    for key in dict.fromkeys((row["sweep"], row["device"]) for row in rows if row["sweep"]):
        swept = [row for row in rows if (row["sweep"], row["device"]) == key]
        yield sorted(swept, key=lambda row: row["at"])


def markdown(heading: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table; `<=` and `>=` as the signs they mean."""
    rows = [heading, ["---"] * len(heading), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows).replace("<=", "≤").replace(">=", "≥")


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Left: each timed figure as a bar from 0, with the bound to stay below. Right: memory by supervised positions."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    judged = [
        (f"{row['case']} / {reach['against']}", reach["measured"], reach["at_most"])
        for row in found["rows"]
        for reach in row["reaches"]
        if reach["what"] == "time" and row["device"] == "cpu"
    ]
    judged.reverse()
    left.barh([label for label, *_ in judged], [ratio for _, ratio, _ in judged], color=_OURS, height=0.55)
    for place, (_, _, bound) in enumerate(judged):
        left.plot([bound, bound], [place - 0.4, place + 0.4], color=_BOUND, linewidth=2)
    left.plot([], [], color=_BOUND, linewidth=2, label="to reach: left of this")
    left.set_xlabel("time, ours / the other's")
    left.legend(frameon=False)
    for rows in sweeps(found["rows"]):
        if rows[0]["sweep"] == "supervised" and rows[0]["device"] == "cpu":
            for name, colour in zip(rows[0]["variants"], (_OURS, _THEIRS), strict=False):
                there = [row for row in rows if name in row["variants"]]
                at = [row["at"] for row in there]
                right.plot(at, [row["variants"][name]["megabytes"] for row in there], "o-", color=colour, label=name)
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    right.set_ylim(bottom=1)
    right.set_xlabel("supervised positions, V = 152,670")
    right.set_ylabel("extra peak memory, MB")
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_minor_formatter(mpl.ticker.NullFormatter())
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)


if __name__ == "__main__":
    render(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
