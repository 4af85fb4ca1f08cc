"""Alternating timings and peak memory: how a row is measured, whatever it measures."""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import attrs

THREADS = 2
MEGABYTE = 1e6


@attrs.frozen(kw_only=True)
class Setting:
    """Where a case runs. quick: at sizes that show only that the code runs."""

    device: Literal["cpu", "cuda"] = "cpu"
    quick: bool = False

    @property
    def dtype(self) -> Any:
        """float32 on the CPU, bfloat16 on a GPU."""
        import torch

        return torch.float32 if self.device == "cpu" else torch.bfloat16

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@attrs.frozen(kw_only=True)
class Sample:
    """What a variant returns that measures itself, in a process it started. None: not measured."""

    seconds: float | None = None
    megabytes: float | None = None


Variant = Callable[[], Any]
"""One run of one way to do the work. What it returns is ignored, unless it is a Sample."""


@attrs.frozen(kw_only=True)
class Reach:
    """A figure that one variant is to reach.

    what: "time", the ratio of two variants' seconds; "memory", the extra peak in megabytes, over that of `against` if
    there is one; "growth", the extra peak over that of the same variant where its sweep starts. at_most: the bound.
    text: how the table words it.
    """

    what: Literal["time", "memory", "growth"]
    at_most: float
    text: str
    variant: str = "ours"
    against: str | None = None


@attrs.frozen(kw_only=True)
class Case:
    """One row: the data, and the ways to work on it.

    build: makes the data once and returns the variants by name, for the setting; `base` is the one that the others are
        compared with. Data only some variants need belongs into `build` too: memory counts from there on.
    memory: measure each variant's extra peak in a process of its own; False when the variants return Samples.
    sweep, at: the name of a scaling row, and this case's place on it.
    rounds: 0 for a case whose time does not matter. devices: where the case makes sense.
    """

    name: str
    title: str
    build: Callable[[Setting], Mapping[str, Variant]]
    base: str = "ours"
    rounds: int = 5
    memory: bool = True
    reaches: Sequence[Reach] = ()
    sweep: str | None = None
    at: int = 0
    devices: Sequence[str] = ("cpu", "cuda")


# --- time -----------------------------------------------------------------------------------------------------------


def once(variant: Variant, device: str) -> Sample:
    """One timed run: wall time on the CPU, events on a GPU; what the variant says if it measured itself."""
    if device == "cpu":
        started = time.perf_counter()
        returned = variant()
        seconds = time.perf_counter() - started
    else:
        import torch

        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        returned = variant()
        end.record()
        torch.cuda.synchronize()
        seconds = start.elapsed_time(end) / 1000
    return returned if isinstance(returned, Sample) else Sample(seconds=seconds)


def alternate(variants: Mapping[str, Variant], rounds: int, device: str = "cpu") -> dict[str, list[Sample]]:
    """Every variant once per round, each round starting with the next one, after a round that does not count.

    Every second pass over the starts goes backwards, so that no variant always follows the same one. Without a round,
    nothing runs.
    """
    names = list(variants)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    for number in range(-1 if rounds else 0, rounds):
        shift = number % len(names)
        order = names[shift:] + names[:shift]
        if number // len(names) % 2:
            order.reverse()
        for name in order:
            gc.collect()
            sample = once(variants[name], device)
            if number >= 0:
                samples[name].append(sample)
    return samples


@attrs.frozen(kw_only=True)
class Spread:
    """A median and its quartiles; with fewer than four values, the least and the greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, high = min(values), max(values)
        if len(values) >= 4:
            low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median=statistics.median(values), low=low, high=high)


def ratio(first: Sequence[float], other: Sequence[float]) -> Spread:
    """Of one variant's seconds to another's, round by round: what disturbs a round disturbs both."""
    return Spread.of([a / b for a, b in zip(first, other, strict=True)])


# --- memory ---------------------------------------------------------------------------------------------------------


def extra_peak(case: Case, variant: str, setting: Setting) -> float:
    """Megabytes that one run of `variant` needs at its peak beyond the data, in this process, which should be fresh.

    The variant first runs at the quick size, so that libraries it loads and buffers they keep do not count.
    """
    case.build(attrs.evolve(setting, quick=True))[variant]()
    run = case.build(setting)[variant]
    gc.collect()
    if setting.device == "cuda":
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / MEGABYTE
    with PeakRSS() as peak:
        run()
    return peak.megabytes


class PeakRSS:
    """The peak of this process's resident memory within the context, beyond what it was at the start. Linux."""

    megabytes = math.nan

    def __enter__(self) -> PeakRSS:
        ctypes.CDLL(None).malloc_trim(0)
        # Resets VmHWM, the peak since the process began, to what is resident now.
        Path("/proc/self/clear_refs").write_text("5")
        self.before = _status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.megabytes = (_status("VmHWM") - self.before) / MEGABYTE


def _status(key: str) -> int:
    """Bytes, from the kernel's account of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}: peak memory can be measured on Linux only")


def extra_peak_elsewhere(case: Case, variant: str, setting: Setting) -> float:
    """`extra_peak` in a process of its own, whose allocator gives every block of a megabyte back when it is freed.

    Left to itself, glibc keeps some, in one heap per thread, and how much is a matter of chance: the same work took
    from 61 to 167 MB, of which 31 were alive.
    """
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "--memory", case.name, variant]
    command += ["--device", setting.device, *(["--quick"] if setting.quick else [])]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{case.name}: {variant}: its process for measuring memory failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1])["megabytes"])


# --- a row ----------------------------------------------------------------------------------------------------------


def measure(case: Case, setting: Setting, rounds: int | None = None) -> dict[str, Any]:
    """The measured row, as the JSON file holds it.

    variants: name -> the seconds of every round, megabytes (null where not measured), base_ratio: the base's seconds
    over this one's. date, took: when it was measured, and in how many seconds; the rows of a page may come from
    several runs.
    """
    began = datetime.now(UTC)
    built = case.build(setting)
    rounds = rounds or (1 if setting.quick else case.rounds)
    samples = alternate(built, rounds if case.rounds else 0, setting.device)
    del built
    gc.collect()
    variants: dict[str, dict[str, Any]] = {}
    for name, taken in samples.items():
        own = [sample.megabytes for sample in taken if sample.megabytes is not None]
        megabytes = extra_peak_elsewhere(case, name, setting) if case.memory else max(own, default=None)
        seconds = [sample.seconds for sample in taken if sample.seconds is not None]
        variants[name] = {"seconds": seconds, "megabytes": megabytes}
    base = variants[case.base]["seconds"]
    for variant in variants.values():
        timed = base and variant["seconds"]
        variant["base_ratio"] = attrs.asdict(ratio(base, variant["seconds"])) if timed else None
    return {
        "case": case.name,
        "title": case.title,
        "device": setting.device,
        "base": case.base,
        "sweep": case.sweep,
        "at": case.at,
        "date": began.strftime("%Y-%m-%d"),
        "took": round((datetime.now(UTC) - began).total_seconds()),
        "variants": variants,
    }


def updated(earlier: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`earlier` with the rows that were measured anew in their places, and others behind them."""
    fresh = {(row["case"], row["device"]): row for row in rows}
    return [fresh.pop((row["case"], row["device"]), row) for row in earlier] + list(fresh.values())


def judge(reach: Reach, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A figure of a row beside what was measured; None where the row it is compared with was not."""
    ours = row["variants"][reach.variant]
    if reach.what == "time":
        measured = ratio(ours["seconds"], row["variants"][reach.against]["seconds"]).median
    elif reach.what == "growth":
        swept = [item for item in rows if (item["sweep"], item["device"]) == (row["sweep"], row["device"])]
        first = min(swept, key=lambda item: item["at"])
        if first is row:
            return None
        measured = ours["megabytes"] - first["variants"][reach.variant]["megabytes"]
    else:
        measured = ours["megabytes"] - (row["variants"][reach.against]["megabytes"] if reach.against else 0.0)
    return {**attrs.asdict(reach), "measured": measured, "met": measured <= reach.at_most}
