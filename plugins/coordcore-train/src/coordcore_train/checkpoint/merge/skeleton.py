"""A run's model as a skeleton: every module, adapter and hook is real, the base's weights are not. Imports torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from coordcore.errors import RunError
from coordcore_train.checkpoint.merge import NotStreamedError
from coordcore_train.checkpoint.tensorfile import Stored, tensors_in
from coordcore_train.run.plan import Plan
from coordcore_train.surgery.rows import LiveRows
from coordcore_train.surgery.saved import load_saved_modules, require_saved
from coordcore_train.surgery.saving import is_guard

_PREFIX = "base_model.model."
# How LoRA may start without reading or changing the base's weights; PiSSA, LoftQ and their kin do.
_PLAIN_STARTS = (True, False, "gaussian", "eva")
_KNOWN_LAYERS = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def skeleton(plan: Plan) -> Any:
    """The model of a run's base, as `skeleton_of`."""
    return skeleton_of(plan.base, dtype=plan.manifest.model.dtype, trusted=plan.trusted)


def skeleton_of(base: Path, *, dtype: str, trusted: bool) -> Any:
    """The base's model as transformers builds it, in `[model] dtype`; each parameter is one number, expanded."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(base, trust_remote_code=trusted)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype), trust_remote_code=trusted)
    if model._keep_in_fp32_modules or model._keep_in_fp32_modules_strict:
        raise NotStreamedError(f"{type(model).__name__} keeps some modules in float32")
    return without_weights(model)


def without_weights(model: Any) -> Any:
    """Take the memory of a model's parameters away: each becomes one number on the CPU, expanded to its shape.

    Not the meta device: PEFT and surgeries put what they add where the base is.
    """
    expanded: dict[int, nn.Parameter] = {}  # by identity, so that tied parameters stay one
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                number = torch.zeros((), dtype=parameter.dtype)  # not what lies in memory, which may be NaN
                empty = number.expand(parameter.shape)
                module._parameters[name] = expanded.setdefault(id(parameter), nn.Parameter(empty, requires_grad=False))
    return model.eval()


def make_live(model: Any, plan: Plan, checkpoint: Path, adapter: Mapping[str, Stored] | None) -> Any:
    """Install the run's surgeries and adapter in a skeleton, load what they learned, and bind the hooks.

    Returns the model as PEFT wraps it. Raises RunError when something learned is missing or does not fit.
    """
    require_saved(plan.modules_to_save, checkpoint)
    for surgery in plan.surgeries:
        if not isinstance(surgery, LiveRows):
            raise NotStreamedError(f"{type(surgery).__name__} is no RowSurgery")
        surgery.install(model, plan.vocab)
    if adapter is None:
        load_saved_modules(model, plan.modules_to_save, checkpoint)
    else:
        model = _with_adapter(model, checkpoint, adapter)
    model.eval().requires_grad_(False)
    for surgery in plan.surgeries:
        surgery.rebind(model)
    return model


def _with_adapter(model: nn.Module, checkpoint: Path, adapter: Mapping[str, Stored]) -> Any:
    from peft import PeftConfig, PeftModel

    with _fits(checkpoint):
        config: Any = PeftConfig.from_pretrained(checkpoint)
    if config.is_prompt_learning:
        raise NotStreamedError(f"{config.peft_type} adds no weights")
    if getattr(config, "init_lora_weights", True) not in _PLAIN_STARTS:
        raise NotStreamedError(f"init_lora_weights {config.init_lora_weights!r} changes the base's weights")
    config.inference_mode, config.init_lora_weights = True, False  # all is loaded, or an error below
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if name in adapter and not parameter.is_contiguous():  # PEFT copies a whole value into it
            module, _, leaf = name.rpartition(".")
            memory = torch.empty(parameter.shape, dtype=parameter.dtype)
            model.get_submodule(module)._parameters[leaf] = nn.Parameter(memory, requires_grad=False)
    with _fits(checkpoint), warnings.catch_warnings(action="ignore"):  # what is missing is an error below
        wrapped = PeftModel(model, config)
        loaded = wrapped.load_adapter(checkpoint, "default", torch_device="cpu")
    require_same_tensors(checkpoint, missing=loaded.missing_keys, unexpected=loaded.unexpected_keys)
    return wrapped


@contextmanager
def _fits(checkpoint: Path) -> Iterator[None]:
    """Turn what PEFT raises for an adapter that is not this model's: errors of many kinds."""
    try:
        yield
    except Exception as error:
        last = (str(error).splitlines() or [""])[-1].strip()
        raise RunError(f"{checkpoint}: the adapter does not fit the base: {type(error).__name__}: {last}") from error


def require_same_tensors(checkpoint: Path, *, missing: Sequence[str], unexpected: Sequence[str]) -> None:
    """Raise RunError unless an adapter's file and the run's adapter hold the same tensors."""
    for what, names in (("lacks", missing), ("holds what this run knows no place for:", unexpected)):
        if names:
            raise RunError(
                f"{checkpoint}: {what} {', '.join(names[:3])} ({len(names)} tensors); it is not whole, or another run's"
            )


def adapter_tensors(checkpoint: Path) -> dict[str, Stored]:
    """The tensors of an adapter; what it holds whole (biases, `modules_to_save`) has the name of the parameter."""
    file = checkpoint / "adapter_model.safetensors"
    if not file.is_file():
        raise NotStreamedError(f"{checkpoint} has no {file.name}")
    return {
        tensor.name.removeprefix(_PREFIX).replace(".base_layer.", "."): tensor
        for tensor in tensors_in(file)
        if not is_guard(tensor.dtype)
    }


def adapted_layers(model: Any) -> dict[str, Any]:
    """Path in the plain model -> the PEFT layer that wraps the module there."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper

    found: dict[str, Any] = {}
    for path, module in model.get_base_model().named_modules():
        if isinstance(module, BaseTunerLayer):
            base = module.get_base_layer()
            if type(base) not in _KNOWN_LAYERS or any(f"{path}.".startswith(f"{other}.") for other in found):
                raise NotStreamedError(f"{path} is a {type(module).__name__} around a {type(base).__name__}")
            found[path] = module
        elif isinstance(module, AuxiliaryTrainingWrapper) and not isinstance(module, ModulesToSaveWrapper):
            raise NotStreamedError(f"{path} is a {type(module).__name__}")
    return found
