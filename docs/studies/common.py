"""What the studies share: a manifest's run, an interval over seeds, and the measured part of a page."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

ROOT = Path(__file__).parents[2]

Table = dict[str, Any]

STUDENT_95 = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""Runs -> the .975 quantile of Student's t with one degree of freedom less."""


def train(folder: Path, manifest: Table) -> Path:
    """Run a manifest, unless its folder is finished; returns the run folder. Raises RuntimeError when it fails.

    What the run printed stands in run.log.
    """
    run = folder / "run"
    if not (run / "eval/detection/metrics.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "manifest.toml"
        path.write_text(tomli_w.dumps(manifest), encoding="utf-8")
        command = [sys.executable, "-m", "coordcore", "run", str(path), "--output", str(run)]
        done = subprocess.run(command, capture_output=True, text=True)
        (folder / "run.log").write_text(done.stdout, encoding="utf-8")
        if done.returncode:
            raise RuntimeError(f"{path} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return run


def at_least_one(text: str) -> int:
    """A count from the command line, for argparse."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean over seeds and the half width of its 95 % interval."""
    return statistics.mean(values), STUDENT_95[len(values)] * statistics.stdev(values) / len(values) ** 0.5


def write_measured(page: Path, text: str, part: str = "measured") -> None:
    """Put `text` between the markers of a part of a page. Raises ValueError where it has none."""
    begin = f"<!-- {part} -->\n"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, end, after = rest.partition("<!-- end -->")
    if not found or not end:
        raise ValueError(f"{page}: has no lines {begin.strip()} and <!-- end -->; write them where the table is to be")
    page.write_text(f"{before}{begin}{text}<!-- end -->{after}", encoding="utf-8")
