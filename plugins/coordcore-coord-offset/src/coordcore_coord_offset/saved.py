"""Checks on offsets that were written to a checkpoint. Imports torch."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from coordcore import InputError
from coordcore_coord_offset.hooks import NAME, live_coord_offset_adapter

RECORD = "coord_offset.json"
"""The file beside a checkpoint that says which token ids its offsets belong to."""


def save_offset_record(model: nn.Module, folder: Path | str) -> Path:
    """Write the ids of the live adapter, in bin order, to `folder/coord_offset.json` and return its path."""
    path = Path(folder) / RECORD
    ids = live_coord_offset_adapter(model).coord_ids.tolist()
    path.write_text(json.dumps({"coord_ids": ids}) + "\n", encoding="utf-8")
    return path


def check_saved_offsets(path: Path | str, model: nn.Module) -> None:
    """Check that the offsets in a checkpoint are the ones that act on `model`, into which it was loaded.

    PEFT drops saved offsets without a word when the base has no adapter, and leaves zeros without a word when the file
    has no offsets. `path` is a safetensors file or the folder of one (or of several shards). When `save_offset_record`
    wrote a record beside it, the ids must agree too.

    Raises InputError naming the file, what differs and the cure, RuntimeError when `model` has no adapter.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    saved = {name: value for file in files for name, value in _offsets(file).items()}
    adapter = live_coord_offset_adapter(model)
    live = {name: value.detach().cpu() for name, value in adapter.named_parameters()}
    if saved.keys() != live.keys():
        raise InputError(
            f"{path}: holds {sorted(saved) or 'no offsets'}, the model has {sorted(live)}; install the adapter with "
            f"the tie_head it was trained with, and train with modules_to_save=[{NAME!r}]"
        )
    record = (path if path.is_dir() else path.parent) / RECORD
    if record.exists():
        ids = json.loads(record.read_text(encoding="utf-8"))["coord_ids"]
        if ids != adapter.coord_ids.tolist():
            raise InputError(
                f"{record}: the saved offsets belong to token ids {ids[0]}..{ids[-1]}, the model's to "
                f"{int(adapter.coord_ids[0])}..{int(adapter.coord_ids[-1])}; load the base they were trained on"
            )
    for name, value in saved.items():
        if value.shape != live[name].shape:
            raise InputError(
                f"{path}: {name} has shape {tuple(value.shape)}, the model's {tuple(live[name].shape)}; load it onto "
                "the base it was trained on"
            )
        if not torch.equal(value.to(live[name].dtype), live[name]):
            raise InputError(f"{path}: {name} was not loaded; install the adapter before loading the checkpoint")


def _offsets(file: Path) -> dict[str, Tensor]:
    """Parameter name -> saved value, whatever PEFT or a trainer put in front of the name."""
    marker = f"{NAME}."
    with safe_open(file, framework="pt") as tensors:
        return {key.rpartition(".")[2]: tensors.get_tensor(key) for key in tensors.keys() if marker in key}  # noqa: SIM118
