"""The figures to reach, judged by what was measured. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MEMORY_MB = 256


def judge(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One for each figure: goal, measured, at_most, unit, met. At small sizes, and unmeasured, met is None."""
    done = {section["name"]: section for section in result["sections"] if section["status"] in ("ok", "failed")}
    goals = [*_objective(done), *_losses(done), *_offsets(done), *_synchronisation(done)]
    return [{**goal, "met": None} for goal in goals] if result["small"] else goals


def _goal(goal: str, measured: float | None, at_most: float, unit: str = "x") -> dict[str, Any]:
    met = None if measured is None else measured <= at_most
    return {"goal": goal, "measured": measured, "at_most": at_most, "unit": unit, "met": met}


def _ratio(variants: Mapping[str, Any], first: str, other: str) -> float | None:
    times = [variants.get(name, {}).get("ms") for name in (first, other)]
    return None if None in times else times[0] / times[1]


def _objective(done: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, section in done.items():
        if (
            name.startswith("figures objective ")
            and "the two matrix products" in section.get("variants", {})
            and "floor" in section
        ):
            variants, where = section["variants"], name.removeprefix("figures objective ")
            against = (
                (f"objective, time of the two matrix products ({where})", "ours", "the two matrix products", 1.10),
                (
                    f"objective, time of Liger's fused linear CE computing plain CE ({where})",
                    "ours",
                    "Liger fused linear CE, plain CE",
                    1.0,
                ),
            )
            for goal, item, other, at_most in against:
                yield _goal(goal, _ratio(variants, item, other), at_most)
            yield _goal(f"objective, peak memory ({where})", variants["ours"].get("peak_mb"), MEMORY_MB, "MB")


def _losses(done: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for dtype, row in done.get("figures soft-ce-w1", {}).get("rows", {}).items():
        ratio = _ratio(row["variants"], "ours", "the logits read and written once")
        yield _goal(f"soft CE + W1, time of reading and writing the logits once ({dtype})", ratio, 1.5)


def _offsets(done: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, row in done.get("figures offsets", {}).get("rows", {}).items():
        if not name.startswith("0 "):
            ratio = _ratio(row["variants"], "ours", "frozen")
            yield _goal(f"offsets, time of a step without them ({name})", ratio, 1.02)


def _synchronisation(done: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if section := done.get("no synchronisation"):
        waits = sum(check["measured"] for check in section.get("checks", [])) if section.get("checks") else None
        yield _goal("waits inside a micro-batch", waits, 0, "")
