"""Every argument of a command that names what to read, or to write, given pipes, devices, loops and paths of no file.

The seed is the number of a combination; there are `COUNT` of them.
"""

from __future__ import annotations

import itertools
import os
import socket
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from command import breaches, invoke
from furnish import RECORDS, work_folder
from mutate import as_lines, json_bytes
from toml import as_toml

from kinds import importers, manifests, predictions

TARGETS = (
    "fifo", "folder", "/dev/zero", "/dev/stdin", "endless", "loop", "loop/x", "empty", "missing", "a.png/x", "y" * 300,
    "z/" * 2100 + "z", "~nosuchuser/x", "/proc/self/mem", "a\x1b[31m\x9bb", "socket",
)  # fmt: skip

_CONVERT = ("data", "convert", "X", "o.jsonl", "--to-space", "pixel", "--from")

_SIZES = ("--check-sizes", "--image-root", ".")

WRITING: tuple[tuple[str, ...], ...] = (
    ("data", "convert", "c.json", "X", "--to-space", "pixel", "--from", "coco"),
    ("data", "check", "r.jsonl", "--sheet", "X"),
    ("eval", "p.jsonl", "r.jsonl", "--space", "pixel", "--output", "X"),
    ("eval", "p.jsonl", "r.jsonl", "--space", "pixel", "--report", "X"),
    ("calibrate", "p.jsonl", "r.jsonl", "--output", "X"),
)

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("check", "X"),
    ("check", "above.toml"),
    ("check", "data.toml"),
    ("check", "base.toml"),
    ("run", "X", "--output", "r"),
    ("merge", "X", "--output", "o"),
    ("expand", "X", "--output", "o"),
    ("doctor", "X"),
    ("data", "check", "X"),
    ("data", "check", "r.jsonl", "--image-root", "X"),
    ("data", "check", "image.jsonl", "--sheet", "s.png"),
    ("data", "check", "image.jsonl", "--image-root", "."),
    *((*_CONVERT, name) for name in importers.SOURCES if name != "refcoco"),
    (*_CONVERT, "refcoco", "--boxes", "xyxy", "--from-space", "pixel"),
    (*_CONVERT[:2], "c.json", *_CONVERT[3:], "coco", "--image-root", "X"),
    (
        *_CONVERT[:2],
        "image.jsonl",
        *_CONVERT[3:],
        "records",
        "--from-space",
        "pixel",
        "--check-sizes",
        "--image-root",
        ".",
    ),
    (*_CONVERT[:2], "odvg.jsonl", *_CONVERT[3:], "odvg", "--classes", "X"),
    (*_CONVERT[:2], "refs.json", *_CONVERT[3:], "refcoco", "--instances", "X"),
    ("data", "convert", "c.json", "o.json", "--from", "coco", "--to", "coco", "--categories", "X"),
    ("eval", "X", "r.jsonl"),
    ("eval", "p.jsonl", "X"),
    ("compare", "X", "X"),
    ("calibrate", "X", "r.jsonl", "--output", "cal.json"),
    ("report", "X", "--output", "rep"),
    ("predict", "X", "r.jsonl", "--output", "p2.jsonl"),
    *WRITING,
)

HANG = 3
COMBINATIONS = list(itertools.product(COMMANDS, TARGETS))
Random(0).shuffle(COMBINATIONS)  # so that the first of them are of every kind
COUNT = len(COMBINATIONS)


def warm() -> None:
    """Load what the commands load."""
    manifests.warm()
    importers.warm()
    predictions.warm()
    for name in ("transformers", "coordcore_train.checkpoint.expand", "coordcore_train.checkpoint.merge.run"):
        import_module(name)


def case(seed: int, folder: Path) -> list[str]:
    """One command with one target."""
    command, target = COMBINATIONS[seed]
    work = work_folder(folder)
    (work / "r.jsonl").write_bytes(as_lines(list(RECORDS)))
    (work / "p.jsonl").write_bytes(as_lines(predictions.ROWS))
    (work / "c.json").write_bytes(json_bytes(importers.COCO))
    (work / "refs.json").write_bytes(json_bytes(importers.REFS))
    (work / "odvg.jsonl").write_bytes(as_lines(importers.ODVG))
    (work / "image.jsonl").write_bytes(as_lines([{**RECORDS[0], "images": [target]}]))
    _write(work / "above.toml", {"extends": target, **manifests.ABOVE, "drop": []} | {"extends": target})
    _write(
        work / "data.toml", {**manifests.SHAPES, "data": {"coord_jsonl": {"train": target, "validation": "r.jsonl"}}}
    )
    _write(work / "base.toml", {**manifests.SHAPES, "model": {"base": target}})
    # A socket can only be made at a short path, which a temporary folder need not have.
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(work)
        listening.bind("socket")
        arguments = [target if part == "X" else part for part in command]
        ended = invoke(arguments, folder)
    outputs = ended.new if command in WRITING else ("o.jsonl", "o.account.json", "o.json", "s.png", "cal.json")
    return breaches(ended, outputs=outputs)


def _write(path: Path, table: dict[str, Any]) -> None:
    path.write_text(as_toml(table, Random(0)), encoding="utf-8")
