"""Fuzzes one kind of input: `python tests/faults/fuzz.py KIND --count N`; `... KIND --seed S` runs one case again.

A case that breaks a rule is kept in its folder: the inputs, what was printed, and what it broke.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import sys
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pool

KINDS = ("manifests", "records", "importers", "answers", "predictions", "checkpoints", "special", "surroundings")


def main() -> int:
    """0 when every case kept to the rules."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", help="one of " + ", ".join(KINDS) + "; importers.coco, ... for one format")
    parser.add_argument("--count", type=int, help="how many cases; 100 when absent, all of special and surroundings")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="run this case alone and show it")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--keep", type=Path, help="where bad cases are kept; a new temporary folder when absent")
    parser.add_argument(
        "--cache", type=Path, help="COORDCORE_CACHE, which saves 15 s the second time; a new one when absent"
    )
    given = parser.parse_args()
    name, _, part = given.kind.partition(".")
    kind = importlib.import_module(f"kinds.{name}")
    cache = tempfile.TemporaryDirectory(prefix="faults-cache-")
    os.environ["COORDCORE_CACHE"] = str(given.cache or cache.name)
    kind.warm()
    case = partial(kind.case, part) if part else kind.case
    keep = given.keep or Path(tempfile.mkdtemp(prefix=f"faults-{given.kind}-"))
    count = given.count or getattr(kind, "COUNT", 100)
    seeds = range(given.first, given.first + count) if given.seed is None else [given.seed]
    bad: dict[str, list[pool.Outcome]] = defaultdict(list)
    cases = 0
    for outcome in pool.run(case, seeds, keep, jobs=given.jobs, hang=getattr(kind, "HANG", pool.HANG)):
        cases += 1
        for breach in outcome.breaches:
            bad[_signature(breach)].append(outcome)
        if not outcome.breaches and given.seed is None:
            shutil.rmtree(keep / str(outcome.seed))
        if given.seed is not None:
            _show(keep / str(outcome.seed), outcome)
    for signature, outcomes in sorted(bad.items(), key=lambda item: -len(item[1])):
        least = min(outcomes, key=lambda outcome: (outcome.note.count(";"), len(outcome.note)))
        print(f"{len(outcomes):5} x {signature!a}\n        {least.note[:400]!a}")
        print(f"        python tests/faults/fuzz.py {given.kind} --seed {least.seed}    # {keep / str(least.seed)}")
    broken = len({outcome.seed for outcomes in bad.values() for outcome in outcomes})
    print(f"{given.kind}: {cases} cases, {broken} bad")
    return 1 if bad else 0


def _signature(breach: str) -> str:
    """What equal breaches have in common."""
    return re.sub(r"\d+", "N", re.sub(r" in '.*|: '.*", "", breach, flags=re.DOTALL))[:160]


def _show(folder: Path, outcome: pool.Outcome) -> None:
    print(f"{folder}: {outcome.note}")
    for name in ("stdout", "stderr"):
        if (folder / name).exists():
            print(f"--- {name}\n{(folder / name).read_bytes()[:5000].decode('utf-8', 'backslashreplace')!a}")
    for breach in outcome.breaches:
        print(f"--- {breach}")


if __name__ == "__main__":
    sys.exit(main())
