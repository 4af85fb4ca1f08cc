"""Commands of ours beside the import of the libraries that they load, which no program that uses those can save."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from measure import Case, Reach, Sample, Setting, Variant

DEMO = Path(__file__).parents[2] / "docs/examples/shapes.toml"
LIBRARIES = "its libraries, imported alone"

_COMMAND = """
import sys
from coordcore.cli import main
file, *sys.argv[1:] = sys.argv[1:]
try:
    main()
finally:
    loaded = [name for name in sys.modules if name.partition(".")[0] not in ("__main__", "coordcore") and
              not name.startswith("coordcore_")]
    open(file, "w").write(" ".join(loaded))
"""
_IMPORTS = """
import importlib, sys
from contextlib import suppress
for name in open(sys.argv[1]).read().split():
    with suppress(Exception):  # some are made by others, and not found by their names
        importlib.import_module(name)
"""


def command(name: str, _setting: Setting) -> Mapping[str, Variant]:
    """A command about the demo, and every module that is not ours in the order in which it loads them."""
    scratch = tempfile.TemporaryDirectory(prefix="coordcore-command-", ignore_cleanup_errors=True)
    modules = Path(scratch.name) / "modules"
    _seconds([sys.executable, "-c", _COMMAND, str(modules), name, str(DEMO)], scratch.name)

    def ours() -> Sample:
        return _seconds([sys.executable, "-m", "coordcore", name, str(DEMO)], scratch.name)

    def libraries() -> Sample:
        return _seconds([sys.executable, "-c", _IMPORTS, str(modules)], scratch.name)

    return {"ours": ours, LIBRARIES: libraries}


def _seconds(words: Sequence[str], folder: str) -> Sample:
    """Processor seconds of a process on one thread. Raises RuntimeError with what it said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # Imports of a user's machine find their bytecode; with this they would be compiled every time.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[1:])} failed:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
    return Sample(seconds=after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


CASES = [
    Case(
        name=f"command-{name}",
        title=f"`coordcore {name}` of the demo, processor time",
        build=partial(command, name),
        rounds=rounds,
        memory=False,
        devices=["cpu"],
        reaches=reaches,
    )
    for name, rounds, reaches in (
        ("check", 9, [Reach(what="time", against=LIBRARIES, at_most=1.3, text="<= 1.3x the time")]),
        ("doctor", 3, []),
    )
]
