"""The JSON of `run.py` as a table, and as the GPU part of docs/explanation/performance.md: `report.py result.json`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "performance.md"
BEGIN, END = "<!-- gpu: written by tests/gpu/report.py -->", "<!-- gpu: end -->"
_PART = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)


# --- for the terminal -------------------------------------------------------------------------------------------------


def table(result: Mapping[str, Any]) -> str:
    """Every section, figure and goal, as plain text."""
    lines = [conditions(result)]
    if result["small"]:
        lines.append("small: these figures mean nothing")
    for section in result["sections"]:
        lines.append(
            f"{section['status']:14} {section['name']}" + (f": {reason}" if (reason := _reason(section)) else "")
        )
        failed = [check for check in section.get("checks", []) if not check["ok"]]
        lines += [f"    {item['what']}: {item['measured']:.3g}, at most {item['allowed']:.3g}" for item in failed]
    for title, heading, body in figures(result):
        lines += ["", title, *_aligned([heading, *body])]
    lines += ["", *_aligned([("goal", "at most", "measured", "met"), *goals(result)])]
    return "\n".join(lines)


def _reason(section: Mapping[str, Any]) -> str:
    return str(section.get("reason", "")).splitlines()[0][:160] if section.get("reason") else ""


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


# --- what both show ---------------------------------------------------------------------------------------------------


def conditions(result: Mapping[str, Any]) -> str:
    """On what, with which versions."""
    machine, packages = result["machine"], result["packages"]
    names = ("transformers", "peft", "triton", "liger-kernel", "cut-cross-entropy", "flash-attn", "ms-swift")
    versions = [f"{name} {packages[name]}" for name in names if packages.get(name)]
    card = machine.get("card") or "no GPU, the CPU"
    cuda = [f"CUDA {machine['cuda']}"] if machine.get("cuda") else []
    return ", ".join([card, *cuda, f"torch {machine.get('torch')}", *versions, f"{result['seconds']:.0f} s in all"])


def rates(result: Mapping[str, Any]) -> tuple[float, Mapping[str, float]] | None:
    """Bytes a second of a copy and operations a second of a matrix product by dtype; None where not measured."""
    floor = next(
        (section for section in result["sections"] if section["name"] == "floor" and section["status"] == "ok"), None
    )
    return None if floor is None else (floor["bytes_per_second"], floor["flops"])


def rows_of(result: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Everything with variants, in order."""
    for section in result["sections"]:
        if "variants" in section:
            yield section
        yield from section.get("rows", {}).values()


def floor_ms(row: Mapping[str, Any], result: Mapping[str, Any]) -> float | None:
    """The longer of what the bytes take at the copy's rate and the operations at the matrix product's."""
    measured = rates(result)
    if measured is None or "floor" not in row:
        return None
    bytes_per_second, flops = measured
    by_bytes = row["floor"]["bytes"] / bytes_per_second
    return 1e3 * max(by_bytes, row["floor"]["flops"] / flops[row["dtype"]])


def figures(result: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[str], list[tuple[str, ...]]]]:
    """Title, heading and lines of every row."""
    for row in rows_of(result):
        decoding = any("steps_per_second" in variant for variant in row["variants"].values())
        heading = (
            "variant", "ms (least..greatest)", "of the first", "host", "peak", *(["steps/s"] if decoding else [])
        )  # fmt: skip
        first = next(iter(row["variants"].values())).get("ms")
        body = []
        for name, variant in row["variants"].items():
            steps = [f"{variant['steps_per_second']:.1f}"] if decoding else []
            if "error" in variant:
                body.append((name, variant["error"].splitlines()[0][:60], "", "", "", *steps))
                continue
            peak = "" if variant.get("peak_mb") is None else f"{variant['peak_mb']:,.0f} MB"
            ratio = "" if not first else f"{variant['ms'] / first:.3g}x"
            host = f"{variant['host_ms']:.3g} ms"
            body.append(
                (name, f"{variant['ms']:.3g} ({variant['low']:.3g}..{variant['high']:.3g})", ratio, host, peak, *steps)
            )
        least = floor_ms(row, result)
        if least is not None:
            of = " of a step" if decoding else ""
            ratio = "" if not first else f"{least / first:.3g}x"
            body.append((f"floor{of}: {_floor_of(row)}", f"{least:.3g}", ratio, "", "", *([""] if decoding else [])))
        yield row["title"], heading, body


def _floor_of(row: Mapping[str, Any]) -> str:
    parts = [f"{row['floor']['bytes'] / 1e9:.3g} GB"]
    if row["floor"]["flops"]:
        parts.append(f"{row['floor']['flops'] / 1e12:.3g} TFLOP")
    return ", ".join(parts)


def goals(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Goal, bound, what was measured, and whether it was met."""
    body = []
    for goal in result["goals"]:
        unit = goal["unit"] if goal["unit"] == "x" else f" {goal['unit']}".rstrip()
        measured = "not measured" if goal["measured"] is None else f"{goal['measured']:.4g}{unit}"
        met = {None: "", True: "yes", False: "no"}[goal["met"]]
        body.append((goal["goal"], f"{goal['at_most']:g}{unit}", measured, met))
    return body


# --- for the page -----------------------------------------------------------------------------------------------------


def page_part(result: Mapping[str, Any]) -> str:
    """The GPU part of the page, between its marks."""
    if result["device"] != "cuda" or result["small"]:
        raise ValueError("these figures were taken on the CPU or at small sizes, and say nothing of a GPU")
    statuses = [section["status"] for section in result["sections"]]
    correct = [section for section in result["sections"] if "checks" in section]
    checked = sum(len(item["checks"]) for item in correct)
    failed = [
        section["name"]
        for section in result["sections"]
        if section["status"] not in ("ok", "skipped", "not applicable")
    ]
    lines = [BEGIN, conditions(result) + ".", ""]
    lines.append(
        f"{statuses.count('ok')} of {len(statuses)} sections passed, {checked} comparisons with float64 and with plain "
        f"models among them" + (f"; not: {', '.join(failed)}." if failed else ".")
    )
    measured = rates(result)
    if measured is not None:
        flops = ", ".join(f"{rate / 1e12:,.0f} TFLOP/s in {dtype}" for dtype, rate in measured[1].items())
        lines.append(f"Floors are by what the card was seen to do: {measured[0] / 1e12:.2f} TB/s copied, {flops}.")
    lines += ["", *_markdown(("goal", "at most", "measured", "met"), goals(result))]
    for title, heading, body in figures(result):
        lines += ["", f"**{title}**", "", *_markdown(heading, body)]
    return "\n".join([*lines, END])


def _markdown(heading: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rows = [heading, ["---"] * len(heading), *body]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]


def write(result: Mapping[str, Any], page: Path) -> None:
    """Put the GPU part into the page, in the place of the last one. Raises ValueError for figures that are none."""
    part, text = page_part(result), page.read_text(encoding="utf-8")
    if not _PART.search(text):
        raise ValueError(f"{page}: has no {BEGIN} ... {END} to write between; put the two lines where the part belongs")
    page.write_text(_PART.sub(lambda _: part, text, count=1), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path, help="the JSON that run.py wrote")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write into")
    parser.add_argument("--show", action="store_true", help="only print the table")
    options = parser.parse_args()
    result = json.loads(options.result.read_text(encoding="utf-8"))
    print(table(result))
    if options.show:
        return 0
    try:
        write(result, options.page)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"written into {options.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
