"""Record files, given to everything that reads them: check, data check, data convert, eval."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Any

from command import Ended, breaches, invoke
from furnish import RECORDS, work_folder
from mutate import Mutator, as_lines
from toml import as_toml

from kinds import importers, manifests, predictions


def warm() -> None:
    """Load what the readers load."""
    manifests.warm()
    importers.warm()
    predictions.warm()


def case(seed: int, folder: Path) -> list[str]:
    """A record file with one to three mistakes in it, and a command that reads it."""
    work = work_folder(folder)
    rng = Random(f"records:{seed}")
    mutator = Mutator(rng)
    rows: Any = list(RECORDS)
    mistakes = rng.choice((1, 1, 1, 2, 3))
    in_bytes = sum(rng.random() < 0.25 for _ in range(mistakes))
    for _ in range(mistakes - in_bytes):
        rows = mutator.tree(rows)
    data = as_lines(rows if isinstance(rows, list) else [rows])
    for _ in range(in_bytes):
        data = mutator.bytes(data, data)
    (work / "r.jsonl").write_bytes(data)
    arguments = rng.choice((_check, _data_check, _convert, _eval))(work, rng)
    ended = invoke(arguments, folder, "; ".join(mutator.notes))
    outputs = ["o.jsonl", "o.account.json", "sheet.png"]
    return breaches(ended, outputs=outputs) + _unplaced(ended)


def _check(work: Path, rng: Random) -> list[str]:
    manifest = {
        **manifests.RECORD_FILE,
        "data": {"coord_jsonl": {"train": "r.jsonl", "space": rng.choice(("pixel", "norm1", "bin"))}},
    }
    (work / "m.toml").write_text(as_toml(manifest, Random(0)))
    return ["check", "m.toml"]


def _data_check(work: Path, rng: Random) -> list[str]:
    options: list[str] = []
    if rng.random() < 0.3:
        options += ["--space", rng.choice(("pixel", "norm1", "bin"))]
    if rng.random() < 0.3:
        options += ["--image-root", "."]
    if rng.random() < 0.2:
        options += ["--sheet", "sheet.png"]
    if rng.random() < 0.3:
        options += ["--json"]
    return ["data", "check", "r.jsonl", *options]


def _convert(work: Path, rng: Random) -> list[str]:
    spaces = ["--from-space", rng.choice(("pixel", "norm1", "bin")), "--to-space", rng.choice(("pixel", "norm1"))]
    quantisation = ["--from-quantisation", "nearest_999"] if spaces[1] == "bin" else []
    return ["data", "convert", "r.jsonl", "o.jsonl", "--from", "records", *spaces, *quantisation]


def _eval(work: Path, rng: Random) -> list[str]:
    (work / "p.jsonl").write_bytes(as_lines(predictions.ROWS))
    outside = ["--outside", "clip"] if rng.random() < 0.5 else []
    return ["eval", "p.jsonl", "r.jsonl", "--space", rng.choice(("pixel", "bin")), *outside]


def _unplaced(ended: Ended) -> list[str]:
    """A message about a file without its line, unless it is about the file as a whole."""
    if not ended.code or "Traceback" in ended.err:
        return []
    if not re.search(r"r\.jsonl|m\.toml|--[a-z]", ended.err):
        return [f"no file in the message: {ended.err[:200]!r}"]
    return []
