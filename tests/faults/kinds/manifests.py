"""Manifests, alone and on top of each other, with `--set`, given to `coordcore check`."""

from __future__ import annotations

import contextlib
import copy
import io
import re
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from command import Ended, breaches, invoke
from furnish import RECORDS, work_folder
from mutate import CONTROL, Mutator, as_lines
from toml import as_toml

SHAPES: dict[str, Any] = {
    "manifest_version": 1,
    "requires": ["coordcore-soft-ce-w1>=0.1", "coordcore-demo"],
    "model": {"base": "package:coordcore_demo/tiny_qwen3vl", "dtype": "float32", "attention": "eager"},
    "vocab": {"initialiser": "digits", "seed": 3},
    "coords": {"quantisation": "nearest_999"},
    "data": {"shapes": {"train_images": 40, "validation_images": 20}},
    "template": {"coord_template": {"coord_tokens": True, "skip_bbox_norm": True}},
    "surgery": {"coord_offset": {}},
    "loss": {"text_ce": {}, "coord_soft_ce_w1": {"sigma": 10.0, "ce_weight": 0.0}},
    "optimizer": {"multimodal_coord_offset": {"offset_lr": 1e-2}},
    "eval": {"detection": {"images": 12, "max_objects": 4}},
    "tuner": {"type": "lora", "rank": 16, "alpha": 32, "dropout": 0.1, "target_modules": ["all-linear"]},
    "train": {
        "steps": 30, "epochs": 1.5, "batch_size": 2, "accumulation": 2, "eval_batch_size": 5, "learning_rate": 3e-3,
        "schedule": "cosine", "warmup": 0.1, "weight_decay": 0.1, "betas": [0.9, 0.99], "max_grad_norm": 1.0,
        "optim": "adamw_torch", "max_length": 512, "max_pixels": 4096, "gradient_checkpointing": False, "seed": 1,
        "workers": 0, "threads": 1, "device": "cpu", "log_every": 5, "save_every": 10, "eval_every": 10, "keep": 2,
        "evaluate_checkpoints": True, "swift": {"ddp_timeout": 7200},
    },
    "launch": {"nproc_per_node": 2, "nnodes": 1, "node_rank": 0, "master_addr": "127.0.0.1", "master_port": 29511},
    "output": {"dir": "runs/x", "merge": True},
    "plugins": {"block": ["some-plugin"]},
}  # fmt: skip

RECORD_FILE: dict[str, Any] = {
    **copy.deepcopy(SHAPES),
    "data": {
        "coord_jsonl": {
            "train": "train.jsonl", "validation": "train.jsonl", "image_root": ".", "mode": "dense", "space": "pixel",
            "outside": "clip", "geometry": ["bbox_2d", "poly"], "object_order": "top_left", "max_objects": 9,
            "prompt": "Find all.", "system": "Be exact.", "limit": 3,
        }
    },
}  # fmt: skip

ABOVE: dict[str, Any] = {
    "extends": ["below.toml"],
    "drop": ["train.steps", "vocab"],
    "name": "above",
    "vocab": {},
    "train": {"steps": 7, "learning_rate": 1e-5},
    "loss": {"coord_soft_ce_w1": {"sigma": 2}},
}

SETS = ("train.steps=10", "model.dtype=float32", 'drop=["vocab"]', "loss.text_ce.weight=2", "train.betas=[0.9,0.95]")

_PLACE = re.compile(r"(?:--set [^\n]*|[^:\n]+(?::\d+)?): ")


def warm() -> None:
    """Load what `check` loads, and let it read ms-swift's tables once, which takes seconds, into the cache."""
    from coordcore.cli import app
    from coordcore_train.swift import trial

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        work = work_folder(Path(folder))
        (work / "train.jsonl").write_bytes(as_lines(list(RECORDS)))
        for table in (SHAPES, RECORD_FILE):
            (work / "m.toml").write_text(as_toml(table, Random(0)))
            require_done(app, ["check", str(work / "m.toml")])
    trial.refused = lambda *_: {}  # ms-swift takes seconds to be asked about each value, and is not what is spoilt here


def require_done(app: Any, arguments: list[str]) -> None:
    """Run a command whose input is right. Raises RuntimeError when it is refused."""
    try:
        app(args=arguments)
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"the input without a mistake is refused: {arguments}") from ended


def case(seed: int, folder: Path) -> list[str]:
    """One manifest with one to three mistakes in it, somewhere."""
    work = work_folder(folder)
    rng = Random(f"manifests:{seed}")
    mutator = Mutator(rng)
    (work / "train.jsonl").write_bytes(as_lines(list(RECORDS)))
    below, top = rng.choice((SHAPES, RECORD_FILE)), copy.deepcopy(ABOVE)
    layered = rng.random() < 0.5
    sets = rng.sample(SETS, rng.choice((0, 0, 1, 2)))
    byte_mistakes = 0
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        where = rng.random()
        if where < 0.15:
            byte_mistakes += 1
        elif where < 0.25:
            sets.append(_override(rng, mutator))
        elif layered and where < 0.55:
            top = mutator.tree(top, below)
        else:
            below = mutator.tree(below, RECORD_FILE)
    texts = {"below.toml" if layered else "m.toml": as_toml(_as_table(below), rng).encode("utf-8", "surrogatepass")}
    if layered:
        texts["m.toml"] = as_toml(_as_table(top), rng).encode("utf-8", "surrogatepass")
    for _ in range(byte_mistakes):
        name = rng.choice(sorted(texts))
        texts[name] = mutator.bytes(texts[name], texts["m.toml"])
    for name, data in texts.items():
        (work / name).write_bytes(data)
    arguments = ["check", "m.toml", *(part for override in sets for part in ("--set", override))]
    ended = invoke(arguments, folder, "; ".join(mutator.notes))
    return breaches(ended, codes=(0, 2)) + _unplaced(ended)


def _as_table(tree: Any) -> dict[str, Any]:
    return tree if isinstance(tree, dict) else {"x": tree}


def _override(rng: Random, mutator: Mutator) -> str:
    key = rng.choice(("train.steps", "model.base", "data.coord_jsonl.train", "loss", "", "extends", "name", "a.b" * 300,
                      "train.swift.x", "output.dir",
                      "a" + ".b" * 900, CONTROL.replace("\0", ""), "drop", '"a', "train"))  # fmt: skip
    value = mutator.value()
    text = getattr(value, "text", None) or str(value)
    mutator.notes.append(f"--set {key[:30]}"[:60])
    # The system passes no NUL in an argument, and no argument of more than 128 KiB.
    return (
        f"{key}{rng.choice(('=', '=', '=', ''))}{text}".replace("\0", "")[:100_000].encode("utf-8", "ignore").decode()
    )


def _unplaced(ended: Ended) -> list[str]:
    """Problems that do not say where they stand."""
    if ended.code != 2 or "Traceback" in ended.err:
        return []
    lines = ended.err.rstrip("\n").split("\n")
    if re.fullmatch(r"\d+ problems? found", lines[-1]):
        return [f"no file: {line[:100]!r}" for line in lines[:-1] if not _PLACE.match(line)][:1]
    return [] if _PLACE.search(ended.err) else [f"no file: {ended.err[:150]!r}"]
