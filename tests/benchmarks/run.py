"""Measures ours and the peers side by side: `tox -e bench`, or `python tests/benchmarks/run.py --help`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from measure import THREADS, Setting, extra_peak, judge, measure, updated

PACKAGES = ("coordcore", "torch", "transformers", "peft", "ms-swift", "liger-kernel", "numpy", "msgspec")

os.environ["OMP_NUM_THREADS"] = str(THREADS)
# A thread that waits sleeps. By default it spins, and on a machine with other work it then keeps the one that it waits
# for from running: small loops, many of them, seem to take twenty times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["HF_HUB_OFFLINE"] = "1"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", action="append", default=[], metavar="ROW", help="this row, or those whose name starts so"
    )
    parser.add_argument("--json", type=Path, default=Path(".benchmarks/bench.json"), help="where the figures go")
    parser.add_argument("--docs", action="store_true", help="render docs/explanation/performance.md from them")
    parser.add_argument("--update", action="store_true", help="keep the other rows of the file of figures")
    parser.add_argument("--rounds", type=int, help="rounds per row, instead of each row's own number")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: shows only that everything runs")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="one device only; every one there is by default")
    parser.add_argument("--memory", nargs=2, metavar=("ROW", "VARIANT"), help="one peak, in this process (for itself)")
    return parser.parse_args()


def cpu_model() -> str:
    """As the kernel names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    import torch

    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu_model(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": THREADS,
        "versions": versions,
    }


def rows_to_keep(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows that --update leaves as they are. Raises ValueError for options that would mix figures."""
    if options.docs and (options.quick or (options.only and not options.update)):
        raise ValueError("--docs shows a whole run at full size: leave out --quick and --only, or add --update")
    if not options.update:
        return []
    if not options.json.exists():
        raise ValueError(f"--update: there is no {options.json}; measure everything first")
    found = json.loads(options.json.read_text(encoding="utf-8"))
    now = environment()
    differ = [name for name in ("cpu", "gpu", "versions") if found["environment"][name] != now[name]]
    if options.quick or found["quick"] or differ:
        raise ValueError(f"--update: {options.json} was measured otherwise ({', '.join(differ) or 'with --quick'})")
    rows: list[dict[str, Any]] = found["rows"]
    return rows


def main() -> int:
    options = arguments()
    import torch
    from cases import find, select
    from report import table

    torch.set_num_threads(THREADS)
    if options.memory:
        name, variant = options.memory
        setting = Setting(device=options.device or "cpu", quick=options.quick)
        print(json.dumps({"megabytes": extra_peak(find(name), variant, setting)}))
        return 0
    try:
        cases = select(options.only)
        earlier = rows_to_keep(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 132)
    devices = [options.device] if options.device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    started = time.monotonic()
    rows = []
    for device in devices:
        for case in cases:
            if device in case.devices:
                console.print(f"{device}: {case.name}", style="dim")
                rows.append(measure(case, Setting(device=device, quick=options.quick), options.rounds))
    seconds = round(time.monotonic() - started)
    rows = updated(earlier, rows)
    for row in rows:
        judged = [judge(reach, row, rows) for reach in find(row["case"]).reaches]
        # A figure is one of its sizes; those of --quick are others.
        row["reaches"] = [] if options.quick else [item for item in judged if item is not None]
    found = {"environment": environment(), "quick": options.quick, "rows": rows}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    console.print(table(found))
    console.print(f"{seconds} s; figures in {options.json}", highlight=False)
    if options.docs:
        from render import render

        render(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
