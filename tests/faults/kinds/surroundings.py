"""Commands where something that is always there is missing: room on the disk, a home, descriptors, a cache.

The seed is the number of a combination; there are `COUNT` of them.
"""

from __future__ import annotations

import itertools
import os
import pwd
import resource
from collections.abc import Callable
from pathlib import Path
from random import Random

from command import breaches, invoke
from furnish import RECORDS, work_folder
from mutate import as_lines, json_bytes
from toml import as_toml

from kinds import checkpoints, importers, manifests, predictions

HANG = 40

_CONTINUE = ("run", "cont.toml", "--output", "run", "--set", "output.merge=false", "--set", 'drop=["eval"]',
             "--set", "train.save_every=2")  # fmt: skip

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("check", "m.toml"),
    ("plugins",),
    ("schema", "train"),
    ("doctor", "m.toml"),
    (
        "run",
        "cont.toml",
        "--output",
        "new",
        "--set",
        'drop=["eval"]',
        "--set",
        "train.steps=1",
        "--set",
        "output.merge=false",
    ),
    _CONTINUE,
    ("expand", "base", "--output", "out"),
    ("merge", "run", "--output", "out"),
    ("data", "convert", "c.json", "o.jsonl", "--from", "coco", "--to-space", "pixel"),
    ("data", "convert", "voc", "o.jsonl", "--from", "voc", "--to-space", "pixel"),
    ("data", "check", "r.jsonl", "--sheet", "s.png"),
    ("eval", "p.jsonl", "r.jsonl", "--space", "pixel", "--output", "e.json"),
)

OUTPUTS = ("o.jsonl", "o.account.json", "s.png", "e.json", "s.png", "out", "new", "run")


def _full(work: Path, size: int) -> None:
    """As near to a full disk as a process gets without a file system of its own."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _full_at_once(work: Path) -> None:
    # What the test itself writes down goes into the same process: a few hundred bytes.
    _full(work, 900)


def _full_soon(work: Path) -> None:
    _full(work, 20_000)


def _no_home(work: Path) -> None:
    """What is usual in containers: a user without a name and a home."""

    def unknown(*_: object) -> None:
        raise KeyError("no such user")

    pwd.getpwuid = pwd.getpwnam = unknown
    for name in ("HOME", "USER", "LOGNAME", "USERNAME", "XDG_CACHE_HOME", "COORDCORE_CACHE"):
        os.environ.pop(name, None)


def _few_files(work: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def _cache_is_a_file(work: Path) -> None:
    os.environ["COORDCORE_CACHE"] = str(work / "a.png")


def _cache_cannot_be_made(work: Path) -> None:
    os.environ["COORDCORE_CACHE"] = "/proc/1/none/cache"


SURROUNDINGS: tuple[Callable[[Path], None], ...] = (
    _full_at_once, _full_soon, _no_home, _few_files, _cache_is_a_file, _cache_cannot_be_made,
)  # fmt: skip

COMBINATIONS = list(itertools.product(COMMANDS, SURROUNDINGS))
Random(0).shuffle(COMBINATIONS)  # so that the first of them are of every kind
COUNT = len(COMBINATIONS)


def warm() -> None:
    """A finished run, and everything loaded."""
    manifests.warm()
    importers.warm()
    predictions.warm()
    checkpoints.warm()


def case(seed: int, folder: Path) -> list[str]:
    """One command in one of the surroundings."""
    command, surround = COMBINATIONS[seed]
    work = work_folder(folder)
    (work / "r.jsonl").write_bytes(as_lines(list(RECORDS)))
    (work / "p.jsonl").write_bytes(as_lines(predictions.ROWS))
    (work / "c.json").write_bytes(json_bytes(importers.COCO))
    (work / "voc").mkdir()
    for number in range(100):
        (work / "voc" / f"{number}.xml").write_text(importers.VOC)
    (work / "m.toml").write_text(as_toml(manifests.RECORD_FILE, Random(0)))
    (work / "train.jsonl").write_bytes(as_lines(list(RECORDS)))
    checkpoints.furnish(work, unfinished=command == _CONTINUE)
    surround(work)
    ended = invoke(list(command), folder, surround.__name__)
    full = surround in (_full_at_once, _full_soon)
    outputs = {name for name in ended.new if name.partition("/")[0] in OUTPUTS}
    found = breaches(ended, outputs=outputs)
    if command[0] == "run":  # its folder stays, to be continued
        found = [item for item in found if not item.startswith(("left behind", "changed"))]
        found += [f"left behind: {name}" for name in ended.new if _is_scratch(name)]
    if ended.code and not full and command[0] not in ("run", "doctor"):  # which need a place for the expanded base
        found.append(f"cannot do without: {ended.err[-300:]!r}")
    return found


def _is_scratch(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last.startswith(".") and last not in (".lock", ".partial")
