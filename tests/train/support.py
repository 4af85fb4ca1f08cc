"""Manifests, runs and what they leave behind, for the tests of the engine."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import tomli_w
from safetensors.torch import load_file
from torch import Tensor

from coordcore.manifest import Loaded, load
from coordcore_train.run.folder import RunDir

FAKE_PLUGIN = str(Path(__file__).parent / "fake_plugin")
if FAKE_PLUGIN not in sys.path:
    # For this process, and for those that a test or torchrun starts.
    sys.path.insert(0, FAKE_PLUGIN)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [FAKE_PLUGIN, os.environ.get("PYTHONPATH")]))

Table = dict[str, Any]

DEFAULT: Table = {
    "model": {"dtype": "float32"},
    "tuner": {"rank": 4, "alpha": 8.0},
    "data": {"fake_boxes": {}},
    "surgery": {"fake_rows": {}},
    "loss": {"text_ce": {}, "fake_bins": {}},
    "train": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "device": "cpu", "threads": 1, "log_every": 1},
    "output": {"merge": False},
}


def write_manifest(folder: Path, base: Path, **sections: Table | None) -> Path:
    """Write `folder`/manifest.toml: DEFAULT with `sections` laid over it key by key; None removes what is there."""
    document = copy.deepcopy(DEFAULT)
    document["model"]["base"] = str(base)
    for name, section in sections.items():
        if section is None:
            document.pop(name, None)
        else:
            _lay_over(document.setdefault(name, {}), section)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.toml"
    path.write_text(tomli_w.dumps(document))
    return path


def _lay_over(table: Table, changes: Table) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(table.get(key), dict):
            _lay_over(table[key], value)
        elif value is None:
            table.pop(key, None)
        else:
            table[key] = value


def loaded(folder: Path, base: Path, **sections: Table | None) -> Loaded:
    """A loaded manifest, as the engine takes it."""
    return load(write_manifest(folder, base, **sections))


def train(folder: Path, base: Path, **sections: Table | None) -> RunDir:
    """Run a manifest in this process; the run folder is `folder`/run."""
    from coordcore_train.run.session import run

    return RunDir(run(loaded(folder, base, **sections), output=folder / "run"))


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python process of its own, with one thread."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def metrics(run: RunDir) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def losses(run: RunDir) -> list[float]:
    """The total loss and every part of it, step by step."""
    return [value for line in metrics(run) if "loss" in line for key, value in sorted(line.items()) if _is_loss(key)]


def evaluations(run: RunDir) -> list[float]:
    """The same of every evaluation."""
    lines = [line for line in metrics(run) if "eval_loss" in line]
    return [value for line in lines for key, value in sorted(line.items()) if _is_loss(key.removeprefix("eval_"))]


def _is_loss(key: str) -> bool:
    return key == "loss" or key.startswith(("text_ce/", "fake_bins/"))


def weights(run: RunDir) -> dict[str, Tensor]:
    """The trained tensors in the newest checkpoint."""
    checkpoint = run.last_checkpoint()
    assert checkpoint is not None
    return {key: tensor for file in sorted(checkpoint.glob("*.safetensors")) for key, tensor in load_file(file).items()}
