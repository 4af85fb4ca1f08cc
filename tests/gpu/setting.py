"""Where a section runs, how it says what it found, and how things are timed. Imports torch."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import attrs
import torch
from torch import Tensor

MEGABYTE = 1e6


class SkippedError(Exception):
    """What the section needs is not there."""


class NotApplicableError(Exception):
    """The section makes no sense on this device."""


@attrs.frozen(kw_only=True)
class Setting:
    """device: "cuda" or "cpu". small: at sizes that show only that the code runs."""

    device: str
    small: bool

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    def size(self, full: int, small: int) -> int:
        return small if self.small else full

    def generator(self, seed: int = 0) -> torch.Generator:
        """Of the device: large random tensors take seconds on the host."""
        return torch.Generator(self.device).manual_seed(seed)

    def randn(self, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=self.generator(seed), device=self.device, dtype=dtype)


def require(*modules: str) -> None:
    """Raise SkippedError naming the modules that are not there."""
    if absent := [name for name in modules if find_spec(name) is None]:
        raise SkippedError(f"needs {', '.join(absent)}, which is not there")


# --- correctness ------------------------------------------------------------------------------------------------------


def check(what: str, measured: float, allowed: float) -> dict[str, Any]:
    """One comparison. NaN is not within anything."""
    return {"what": what, "measured": float(measured), "allowed": float(allowed), "ok": bool(measured <= allowed)}


def error(actual: Tensor, exact: Tensor) -> float:
    """|actual - exact| / |exact| of the whole tensors, in float64. Equal zeros differ by 0."""
    difference = (actual.detach().double() - exact.detach().double()).norm()
    size = exact.detach().double().norm()
    return float(difference / size) if size > 0 else float(difference)


def allowed_error(dtype: torch.dtype) -> float:
    """What rounding a gradient to `dtype` explains: 4 units in the last place, or 1e-4 in float32."""
    return max(4 * torch.finfo(dtype).eps, 1e-4)


# --- figures ----------------------------------------------------------------------------------------------------------

_AHEAD = 40_000_000
"""GPU cycles, about 20 ms, that the GPU waits before a timed call: the host is then ahead, as it is in a long step."""


def timed(run: Callable[[], Any], setting: Setting, repeats: int, *, warm: int = 2) -> dict[str, float]:
    """ms: the median of `repeats` calls, after `warm` that do not count; low, high: the least and the greatest.

    host_ms: how long the host was busy with a call, which the GPU may outlast.
    """
    for _ in range(1 if setting.small else warm):
        run()
    return _summary([_once(run, setting) for _ in range(1 if setting.small else repeats)])


def _summary(times: Sequence[tuple[float, float]]) -> dict[str, float]:
    values, host = zip(*times, strict=True)
    return {
        "ms": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "host_ms": statistics.median(host),
        "repeats": len(values),
    }


def _once(run: Callable[[], Any], setting: Setting) -> tuple[float, float]:
    """Milliseconds of the device and of the host."""
    if not setting.cuda:
        started = time.perf_counter()
        run()
        spent = (time.perf_counter() - started) * 1e3
        return spent, spent
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    torch.cuda._sleep(_AHEAD)
    begin.record()
    started = time.perf_counter()
    run()
    host = (time.perf_counter() - started) * 1e3
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)), host


def peak(run: Callable[[], Any], setting: Setting) -> float | None:
    """Megabytes allocated at the highest point of one call beyond what was before it. None on the CPU."""
    if not setting.cuda:
        return None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MEGABYTE


def variants(
    runs: Iterable[tuple[str, Callable[[], Any]]],
    setting: Setting,
    *,
    repeats: int,
    ours: Sequence[str],
    before: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Any]]:
    """Time and peak of each. What another library raises is its figure; what ours raises is an error.

    before: called ahead of each variant, to forget what the last one left.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, run in runs:
        before()
        if setting.cuda:
            torch.cuda.empty_cache()
        try:
            found[name] = {**timed(run, setting, repeats), "peak_mb": peak(run, setting)}
        except torch.OutOfMemoryError:
            found[name] = {"error": "out of memory"}
        except Exception as problem:
            if name in ours:
                raise
            traceback.print_exc()
            found[name] = {"error": f"{type(problem).__name__}: {problem}"[:300]}
    return found


def side_by_side(
    runs: Sequence[tuple[str, Callable[[], Any]]], setting: Setting, *, repeats: int
) -> dict[str, dict[str, Any]]:
    """Time and peak of each, their calls taking turns: for differences smaller than a machine's drift."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in runs}
    for turn in range(2 if setting.small else 3 + repeats):
        for name, run in runs:
            once = _once(run, setting)
            if turn >= (1 if setting.small else 3):
                times[name].append(once)
    return {name: {**_summary(times[name]), "peak_mb": peak(run, setting)} for name, run in runs}
