"""An estimate as text and as JSON. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from coordcore_train.estimate.memory import CURES, GIB, GpuMemory

if TYPE_CHECKING:
    from coordcore_train.estimate.estimate import Estimate
    from coordcore_train.estimate.settings import Setting, Way

_PARTS = ("weights", "gradients", "optimizer", "communication", "activations", "objective", "reserve", "total")


def text(found: Estimate) -> str:
    """Lines for a terminal."""
    return "\n".join(line.rstrip() for line in _lines(found))


def as_json(found: Estimate) -> str:
    """Bytes and counts; the keys are those of the classes."""
    manifest, model = found.manifest, found.model
    data = {
        "name": found.name,
        "architecture": found.architecture,
        "tuner": manifest.tuner.type,
        "dtype": manifest.model.dtype,
        "optim": manifest.train.optim,
        "gpus": found.gpus,
        "gpu_memory": found.gpu_memory,
        "parameters": model.parameters,
        "trained": model.trained_parameters,
        "parts": [attrs.asdict(part) for part in model.parts],
        "setting": attrs.asdict(found.setting),
        "examples": attrs.asdict(found.examples),
        "steps": attrs.asdict(found.steps),
        "shardings": [_row(found, row) for row in found.shardings],
        "chosen": found.chosen,
        "least": None if found.least is None else found.least.memory.sharding,
        "cure": None if found.cure is None else _way(found, found.cure),
        "notes": list(found.notes),
    }
    return json.dumps(data, indent=2)


def _row(found: Estimate, memory: GpuMemory) -> dict[str, Any]:
    reason = found.refused.get(memory.sharding)
    return {**attrs.asdict(memory), "total": memory.total, "fits": found.fits(memory), "refused": reason}


def _way(found: Estimate, way: Way) -> dict[str, Any]:
    return {"setting": attrs.asdict(way.setting), "memory": _row(found, way.memory)}


def _lines(found: Estimate) -> Iterator[str]:
    manifest, model, steps, examples = found.manifest, found.model, found.steps, found.examples
    kind = f"{manifest.tuner.type}, {manifest.model.dtype}, {manifest.train.optim}"
    several = "s" if found.gpus > 1 else ""
    yield f"plan     {found.name}: {kind}, {found.gpus} GPU{several} of {found.gpu_memory / GIB:g} GiB"
    yield (
        f"model    {found.architecture}: {_count(model.parameters)} parameters, {_count(model.trained_parameters)} "
        "trained"
    )
    rows = [[part.name, f"{part.parameters:,}", f"{part.trained:,}", f"{part.bytes / GIB:.2f}"] for part in model.parts]
    yield from _table(["part", "parameters", "trained", "GiB"], rows)
    how = f"{examples.sampled} encoded" if examples.sampled else "as given"
    number = "" if examples.count is None else f"{examples.count:,} an epoch, "
    yield f"examples {number}{examples.mean:,.0f} tokens each, the longest {examples.longest:,} ({how})"
    yield f"step     {steps.examples:,} examples, {steps.tokens:,.0f} tokens{_length(found)}"
    yield f"memory of a GPU in GiB, {_setting(found.setting)}"
    table = []
    for memory in found.shardings:
        refused = memory.sharding in found.refused
        verdict = "fits" if found.fits(memory) else "not with this run" if refused else "too much"
        own = ", as in [launch]" if memory.sharding == found.chosen else ""
        numbers = [getattr(memory, part) for part in _PARTS]
        table.append([memory.sharding, *(f"{number / GIB:.2f}" for number in numbers), verdict + own])
    yield from _table(["shards", *_PARTS, ""], table)
    if found.least is not None:
        yield f"least    {found.least.memory.sharding}: {CURES[found.least.memory.sharding]}"
    if found.cure is not None:
        memory, setting = found.cure.memory, found.cure.setting
        yield (
            f"cure     {memory.sharding} with {_setting(setting)}: {memory.total / GIB:.2f} GiB; "
            f"{CURES[memory.sharding]}, {_keys(setting)}"
        )
    shown = {memory.sharding for memory in found.shardings}
    yield from (f"note: {sharding}: {reason}" for sharding, reason in found.refused.items() if sharding in shown)
    yield from (f"note: {note}" for note in found.notes)


def _length(found: Estimate) -> str:
    steps = found.steps
    if steps.steps is None:
        return ""
    words = f"; {steps.steps:,} steps"
    if steps.epochs is not None:
        words += f", {steps.epochs:.3g} epochs of {steps.per_epoch:,}"
    return f"{words}, {steps.steps * steps.tokens:,.0f} tokens in all"


def _setting(setting: Setting) -> str:
    checkpointing = "with" if setting.checkpointing else "without"
    return f"{checkpointing} gradient checkpointing, {setting.batch_size} examples at a time"


def _keys(setting: Setting) -> str:
    checkpointing = "true" if setting.checkpointing else "false"
    return (
        f"train.gradient_checkpointing = {checkpointing}, train.batch_size = {setting.batch_size}, "
        f"train.accumulation = {setting.accumulation}"
    )


def _count(number: int) -> str:
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.2f} {letter}"
    return str(number)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns, the first and the last to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        if row[-1].strip() and not row[-1][0].isdigit() and row is not titles:
            cells[-1] = row[-1]
        yield "         " + "  ".join(cells)
