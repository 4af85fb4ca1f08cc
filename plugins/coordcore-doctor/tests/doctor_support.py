"""Runs for the doctor's tests: a tiny base, manifests over it, and its findings."""

from __future__ import annotations

import copy
import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w
import torch
from safetensors.torch import load_file, save_file

from coordcore import __version__
from coordcore.manifest import load
from coordcore_doctor.examine import CHECKS, examine
from coordcore_doctor.examined import ExaminedRun
from coordcore_doctor.findings import Finding
from coordcore_train.checkpoint.folder import read_json, write_json
from coordcore_train.run.quiet import quiet

quiet()
torch.set_num_threads(1)

Table = dict[str, Any]

HEALTHY: Table = {
    "name": "healthy",
    "model": {"dtype": "float32"},
    "data": {"doctor_boxes": {}},
    "template": {"doctor_template": {}},
    "surgery": {"doctor_rows": {}},
    "loss": {"text_ce": {}, "doctor_ce": {}},
    "tuner": {"rank": 4, "alpha": 8.0},
    "train": {"steps": 4, "batch_size": 2, "device": "cpu", "threads": 1},
}


@contextmanager
def doctor_plugin(folder: Path) -> Iterator[None]:
    """Within this context `doctor_plugin` is found as an installed plugin's module would be."""
    info = folder / "doctor_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: doctor-plugin\nVersion: 1.0\nRequires-Dist: coordcore=={__version__}\n"
    )
    (info / "entry_points.txt").write_text("[coordcore.v1]\ndoctor_plugin = doctor_plugin\n")
    sys.path.append(str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        importlib.invalidate_caches()


def write_manifest(folder: Path, base: Path, **sections: Table | None) -> Path:
    """Write `folder`/manifest.toml: HEALTHY with `sections` laid over it key by key; None removes a section."""
    document = copy.deepcopy(HEALTHY)
    document["model"]["base"] = str(base)
    for name, section in sections.items():
        if section is None:
            document.pop(name, None)
        else:
            _lay_over(document.setdefault(name, {}), section)
    path = folder / "manifest.toml"
    path.write_text(tomli_w.dumps(document))
    return path


def _lay_over(table: Table, changes: Table) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(table.get(key), dict):
            _lay_over(table[key], value)
        else:
            table[key] = value


def examined(folder: Path, base: Path, *, samples: int = 8, **sections: Table | None) -> ExaminedRun:
    """A run that has not started."""
    scratch = folder / "scratch"
    scratch.mkdir()
    return ExaminedRun(load(write_manifest(folder, base, **sections)), scratch, samples)


def finding(name: str, run: ExaminedRun) -> Finding:
    """The only finding of a check."""
    (found,) = CHECKS[name](run, name)
    return found


def everything(run: ExaminedRun) -> dict[str, Finding]:
    """Check -> its last finding."""
    return {found.name: found for found in examine(run)}


def copied(base: Path, folder: Path) -> Path:
    """A copy of a base that a test may change."""
    return Path(shutil.copytree(base, folder / "base"))


def change_json(path: Path, change: Callable[[Table], None]) -> None:
    """Change a JSON file in place."""
    data = read_json(path)
    change(data)
    write_json(path, data)


def change_weights(base: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of a one-file checkpoint in place."""
    tensors = load_file(base / "model.safetensors")
    change(tensors)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


EMBEDDING = "model.language_model.embed_tokens.weight"
HEAD = "lm_head.weight"
