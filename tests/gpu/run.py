"""Correctness and figures on one GPU, from a bare checkout: `python tests/gpu/run.py --out result.json`.

The sections run one after another in a process of their own, which tells of each when it is done. One that fails is
written down with its traceback; one that takes too long or kills the process costs itself alone: the next ones go on
in a new process. `--device cpu --small` runs the same code where there is no GPU, at sizes whose figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import ground
from goals import judge
from names import RENEW, SECTIONS
from report import table

START_SECONDS = 120.0
"""Imports and the first touch of the GPU."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the JSON goes; the log of the sections goes beside it")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes that show only that everything runs")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this section; may be repeated")
    parser.add_argument("--seconds", type=float, default=330.0, help="no section is begun or goes on after that")
    parser.add_argument("--wheels", type=Path, default=ground.WHEELS, metavar="DIR", help="what carry.py downloaded")
    parser.add_argument("--probe", type=Path, metavar="FILE", help="only write down what is there, for carry.py")
    parser.add_argument("--list", action="store_true", help="the sections, and the seconds each may take")
    return parser.parse_args()


class Worker:
    """A process that runs sections in order and tells of each through a pipe."""

    def __init__(self, names: list[str], options: argparse.Namespace, log: IO[str]) -> None:
        read, write = os.pipe()
        command = [sys.executable, str(ground.HERE / "worker.py"), "--device", options.device, "--tell", str(write)]
        command += ["--small"] if options.small else []
        self.process = subprocess.Popen(
            [*command, *(f"{name}={SECTIONS[name][0]}.{SECTIONS[name][1]}" for name in names)],
            pass_fds=[write],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(write)
        self._pipe, self._rest = read, b""

    def told(self, until: float) -> dict[str, Any] | None:
        """The next thing it tells; None at the end of its life. Raises TimeoutError when `until` comes first."""
        while b"\n" not in self._rest:
            left = until - time.monotonic()
            ready, _, _ = select.select([self._pipe], [], [], min(max(left, 0.0), 1.0))
            if not ready:
                if self.process.poll() is not None:  # what it had started may hold its end of the pipe open
                    return None
                if left <= 0:
                    raise TimeoutError
                continue
            read = os.read(self._pipe, 1 << 20)
            if not read:
                return None
            self._rest += read
        line, self._rest = self._rest.split(b"\n", 1)
        told: dict[str, Any] = json.loads(line)
        return told

    def end(self, patience: float) -> int:
        """Its exit status, once it has ended: by itself within `patience` seconds, or killed with what it started."""
        os.close(self._pipe)
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            return self.process.wait()


def run(names: list[str], options: argparse.Namespace, log: IO[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the workers said of the machine, and the result of each section, in order."""
    deadline = time.monotonic() + options.seconds
    machine: dict[str, Any] = {}
    results: list[dict[str, Any]] = []
    waiting = list(names)
    while waiting:
        if time.monotonic() >= deadline:
            results += [{"name": name, "status": "not run", "reason": "the deadline came first"} for name in waiting]
            break
        worker = Worker(waiting, options, log)
        current, until, late = None, time.monotonic() + START_SECONDS, False
        try:
            while (told := worker.told(min(until, deadline))) is not None:
                if "machine" in told:
                    machine = told["machine"]
                elif "begins" in told:
                    current, until = told["begins"], time.monotonic() + SECTIONS[told["begins"]][2]
                    print(f"{current} ...", flush=True)
                else:
                    results.append(told)
                    waiting.remove(told["name"])
                    current = None
                    print(f"  {told['status']}, {told['seconds']:.1f} s", flush=True)
        except TimeoutError:
            late = True
        status = worker.end(0.0 if late else 10.0)
        if current is not None:
            reason = "took longer than it may" if late else f"its process ended with status {status}; see the log"
            results.append({"name": current, "status": "timeout" if late else "crashed", "reason": reason})
            print(f"  {results[-1]['status']}", flush=True)
            waiting.remove(current)
        elif waiting and status != RENEW and not late:
            reason = f"the process of the sections did not start (status {status}); see the log"
            results += [{"name": name, "status": "not run", "reason": reason} for name in waiting]
            break
    return machine, results


@contextmanager
def surroundings(wheels: Path) -> Iterator[list[str]]:
    """The checkout importable, with what was carried; the names of that."""
    with tempfile.TemporaryDirectory(prefix="coordcore-gpu-") as folder:
        carried = ground.unpack(wheels, Path(folder)) if wheels.is_dir() else []
        ground.write_entry_points(Path(folder))
        ground.activate(Path(folder))
        yield carried


def main() -> int:
    options = arguments()
    if options.list:
        print("\n".join(f"{name:32} {seconds:4.0f} s" for name, (*_, seconds) in SECTIONS.items()))
        return 0
    if options.probe:
        options.probe.write_text(json.dumps(ground.probe(), indent=1) + "\n", encoding="utf-8")
        return 0
    if unknown := [name for name in options.only if name not in SECTIONS]:
        print(f"no section is called {unknown[0]!r}; there are: {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    if options.out is None:
        print("--out FILE is missing: where the JSON goes", file=sys.stderr)
        return 2
    options.out = options.out.absolute()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with surroundings(options.wheels) as carried:
        found = ground.probe()
        if lacking := ground.missing(found):
            print(f"missing here: {', '.join(lacking)}; carry them: python tests/gpu/carry.py --help", file=sys.stderr)
            return 2
        log = options.out.with_suffix(".log")
        with log.open("w", encoding="utf-8") as file:
            machine, results = run(options.only or list(SECTIONS), options, file)
    result = {
        "device": options.device,
        "small": options.small,
        "seconds": round(time.monotonic() - started, 1),
        "machine": machine,
        "packages": found["packages"],
        "carried": carried,
        "sections": results,
    }
    result["goals"] = judge(result)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))
    print(f"{result['seconds']} s; {options.out}, log in {log}")
    return 0 if all(item["status"] in ("ok", "skipped", "not applicable") for item in results) else 1


if __name__ == "__main__":
    sys.exit(main())
