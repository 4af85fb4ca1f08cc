"""Installs a run's surgeries with what a checkpoint saved of them. Imports torch, and nothing of ms-swift."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coordcore import kinds
from coordcore.coords import CoordVocab
from coordcore.errors import InputError, RunError
from coordcore_train.run.built import of_plugin
from coordcore_train.run.plan import Plan
from coordcore_train.surgery.saving import guard_saving

_WEIGHTS = ("*.safetensors", "adapter_model*.bin", "pytorch_model*.bin")
"""Files of weights, as transformers and PEFT name them."""


def install(model: Any, processor: Any, plan: Plan, folder: Path) -> None:
    """Install the surgeries into a freshly loaded model, and load what `folder` saved of them.

    Raises InputError when the coord ids do not fit the embedding matrix or `config.vocab_size`; InputError and
    RunError, with the section and its plugin, when a surgery cannot be installed.
    """
    if plan.vocab is not None:
        rows = model.get_input_embeddings().weight.shape[0]
        config = model.config.get_text_config()
        found = CoordVocab.from_tokenizer(
            processor.tokenizer, plan.vocab.format, embedding_rows=rows, config_vocab_size=config.vocab_size
        )
        if found.ids != plan.vocab.ids:
            raise InputError(
                f"{folder}: its coord tokens are ids {found.ids[0]}..{found.ids[-1]}, "
                f"the run's base has {plan.vocab.ids[0]}..{plan.vocab.ids[-1]}; use the run's own checkpoint"
            )
    for selected, surgery in zip(plan.manifest.of(kinds.SURGERY), plan.surgeries, strict=True):
        with of_plugin(selected, path=f"{selected.path}: "):
            try:
                surgery.install(model, plan.vocab)
            except (InputError, RunError):
                raise
            except RuntimeError as error:
                raise RunError(str(error)) from error
            for name in surgery.modules_to_save:
                guard_saving(model, name)
    load_saved_modules(model, plan.modules_to_save, folder)


def load_saved_modules(model: nn.Module, names: list[str], folder: Path) -> None:
    """Load the tensors of surgery modules that a full-tuner checkpoint holds, which transformers skips in silence.

    A base checkpoint holds none, and leaves the modules as installed. Raises RunError when only some are there.
    """
    wanted = {key: tensor for key, tensor in model.state_dict().items() if key.split(".", 1)[0] in names}
    found = {key: read() for key, read in _tensors(folder) if key in wanted}
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


def require_loaded(path: Path, name: str, live: nn.Module) -> None:
    """Check that a checkpoint's tensors of the module `name` are the parameters of `live`, which it was loaded into.

    path: a weight file, or the folder of one or several. PEFT drops a saved module without a word when the base
    has none, and leaves a fresh one without a word when the file has none.

    Raises InputError naming the file, what differs and the cure.
    """
    saved = _module_tensors(path, name)
    parameters = {key: value.detach().cpu() for key, value in live.named_parameters()}
    if saved.keys() != parameters.keys():
        raise InputError(
            f"{path}: holds {sorted(saved) or 'nothing'} of {name}, the model has {sorted(parameters)}; install it "
            f"with the settings it was trained with, and train with modules_to_save=[{name!r}]"
        )
    for key, value in saved.items():
        if value.shape != parameters[key].shape:
            raise InputError(
                f"{path}: {key} has shape {tuple(value.shape)}, the model's {tuple(parameters[key].shape)}; load it "
                "onto the base it was trained on"
            )
        if not torch.equal(value.to(parameters[key].dtype), parameters[key]):
            raise InputError(f"{path}: {key} was not loaded; install {name} before loading the checkpoint")


def _module_tensors(path: Path, name: str) -> dict[str, Tensor]:
    """Parameter of the module `name` -> saved value, whatever PEFT or a trainer put in front of it."""
    found = {}
    for key, read in _tensors(path):
        _, marker, parameter = f".{key}".rpartition(f".{name}.")
        if marker:
            found[re.sub(r"^(original_module|modules_to_save\.[^.]+)\.", "", parameter)] = read()
    return found


def _tensors(path: Path) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """The name of each tensor of a weight file, or of the weight files in a folder, and what reads it."""
    from safetensors import safe_open

    files = [path] if path.is_file() else sorted(file for pattern in _WEIGHTS for file in path.glob(pattern))
    for file in files:
        if file.suffix == ".bin":
            pickled = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            yield from ((key, partial(pickled.get, key)) for key in pickled)
            continue
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                yield key, partial(tensors.get_tensor, key)


def require_saved(names: list[str], checkpoint: Path) -> None:
    """Raise RunError when `checkpoint` holds no tensor of a surgery's module.

    PEFT and transformers skip what is missing in silence, and the run would go on from the base's rows.
    """
    keys = [key for key, _ in _tensors(checkpoint)]
    for name in names:
        if not any(f".{name}." in f".{key}" for key in keys):
            raise RunError(f"{checkpoint} holds no tensor of {name}; what that surgery learned is not there")
