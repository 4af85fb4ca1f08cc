"""Prediction files and evaluations, given to eval and compare."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from command import Ended, breaches, invoke
from furnish import RECORDS, work_folder
from mutate import Mutator, as_lines

from kinds.manifests import require_done

QUANTISATION: dict[str, Any] = {}

HEADER: dict[str, Any] = {
    "predictions": 1,
    "checkpoint": "runs/x/merged",
    "quantisation": QUANTISATION,
    "decoding": {"coordinates": "argmax", "constrained": True},
    "score": "min",
    "weights": "abc",
    "versions": {"torch": "2"},
}

ROWS: list[Any] = [
    HEADER,
    {
        "image": "a.png",
        "width": 64,
        "height": 48,
        "text": "{}",
        "boxes": [
            {
                "label": "red circle",
                "box": [4, 5, 31, 40],
                "bins": [62, 104, 484, 833],
                "score": 0.9,
                "scores": {"min": 0.9, "mean": 0.95},
            },
            {
                "label": "cat",
                "box": [1, 1, 9, 9],
                "bins": [1, 2, 3, 4],
                "score": 0.2,
                "scores": {"min": 0.2, "mean": 0.3},
                "duplicate": True,
                "spread": [0.1, 0.2, 3, 4],
            },
        ],
    },
    {
        "image": "b.png",
        "width": 48,
        "height": 64,
        "text": "x",
        "boxes": [],
        "unread": [{"at": "", "reason": "empty answer"}],
        "stopped": "length",
    },
]


def warm() -> None:
    """Load what eval loads."""
    from coordcore.cli import app
    from coordcore.quantisation import DEFAULT_QUANTISATION

    QUANTISATION.update(DEFAULT_QUANTISATION.as_dict())
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        (Path(folder) / "p.jsonl").write_bytes(as_lines(ROWS))
        (Path(folder) / "r.jsonl").write_bytes(as_lines(list(RECORDS[:2])))
        files = f"{folder}/p.jsonl", f"{folder}/r.jsonl"
        require_done(app, ["eval", *files, "--space", "pixel", "--output", f"{folder}/e.json"])
        EVALUATION.append((Path(folder) / "e.json").read_bytes())


EVALUATION: list[bytes] = []
"""What `eval` writes about the rows above, once `warm` was called."""


def case(seed: int, folder: Path) -> list[str]:
    """Predictions, or an evaluation of them, with one to three mistakes."""
    import json

    work = work_folder(folder)
    rng = Random(f"predictions:{seed}")
    mutator = Mutator(rng)
    compared = rng.random() < 0.2
    tree: Any = json.loads(EVALUATION[0]) if compared else ROWS
    mistakes = rng.choice((1, 1, 1, 2, 3))
    in_bytes = sum(rng.random() < 0.25 for _ in range(mistakes))
    for _ in range(mistakes - in_bytes):
        tree = mutator.tree(tree)
    data = as_lines([tree] if compared or not isinstance(tree, list) else tree)
    for _ in range(in_bytes):
        data = mutator.bytes(data, data)
    (work / "r.jsonl").write_bytes(as_lines(list(RECORDS[:2])))
    (work / "p.jsonl").write_bytes(data)
    if compared:
        (work / "q.jsonl").write_bytes(EVALUATION[0])
        arguments = ["compare", "p.jsonl", "q.jsonl"]
    else:
        output = rng.choice(([], [], ["--output", "e.json"], ["--json"]))
        arguments = ["eval", "p.jsonl", "r.jsonl", "--space", "pixel", *output]
    ended = invoke(arguments, folder, "; ".join(mutator.notes))
    return breaches(ended, outputs=["e.json"]) + _unplaced(ended)


def _unplaced(ended: Ended) -> list[str]:
    if not ended.code or "Traceback" in ended.err or "p.jsonl" in ended.err or "r.jsonl" in ended.err:
        return []
    return [f"no file in the message: {ended.err[:200]!r}"]
