"""Installs a run's surgeries with what a checkpoint saved of them. Imports torch, and nothing of ms-swift."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from coordcore.coords import CoordVocab
from coordcore.errors import InputError, RunError
from coordcore_train.run.plan import Plan


def install(model: nn.Module, processor: Any, plan: Plan, folder: Path) -> None:
    """Install the surgeries into a freshly loaded model, and load what `folder` saved of them.

    Raises InputError when the coord ids do not fit the embedding matrix or `config.vocab_size`.
    """
    if plan.vocab is not None:
        rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
        config = model.config.get_text_config()  # type: ignore[union-attr, operator]
        found = CoordVocab.from_tokenizer(processor.tokenizer, embedding_rows=rows, config_vocab_size=config.vocab_size)
        if found.ids != plan.vocab.ids:
            raise InputError(
                f"{folder}: its coord tokens are ids {found.ids[0]}..{found.ids[-1]}, "
                f"the run's base has {plan.vocab.ids[0]}..{plan.vocab.ids[-1]}; use the run's own checkpoint"
            )
    for surgery in plan.surgeries:
        surgery.install(model, plan.vocab)
    load_saved_modules(model, plan.modules_to_save, folder)


def load_saved_modules(model: nn.Module, names: list[str], folder: Path) -> None:
    """Load the tensors of surgery modules that a full-tuner checkpoint holds, which transformers skips in silence.

    A base checkpoint holds none, and leaves the modules as installed. Raises RunError when only some are there.
    """
    from safetensors import safe_open

    wanted = {key: tensor for key, tensor in model.state_dict().items() if key.split(".", 1)[0] in names}
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                if key in wanted:
                    found[key] = tensors.get_tensor(key)
    if not found:
        return
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise RunError(f"{folder}: holds {sorted(found)} but not {missing}; the checkpoint is not whole")
    with torch.no_grad():
        for key, tensor in found.items():
            if tensor.shape != wanted[key].shape:
                raise RunError(f"{folder}: {key} has shape {tuple(tensor.shape)}, expected {tuple(wanted[key].shape)}")
            wanted[key].copy_(tensor)


def require_saved(names: list[str], checkpoint: Path) -> None:
    """Raise RunError when `checkpoint` holds no tensor of a surgery's module.

    PEFT and transformers skip what is missing in silence, and the run would go on from the base's rows.
    """
    from safetensors import safe_open

    keys: list[str] = []
    for file in checkpoint.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            keys += tensors.keys()
    for name in names:
        if not any(f".{name}." in f".{key}" for key in keys):
            raise RunError(f"{checkpoint} holds no tensor of {name}; what that surgery learned is not there")
