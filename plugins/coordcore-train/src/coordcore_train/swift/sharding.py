"""`launch.fsdp` and `launch.deepspeed`: what ms-swift is given for them, and what no run can have. Torch-free."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any

from coordcore.errors import InputError, Problem
from coordcore.manifest import Manifest
from coordcore.manifest.types import show
from coordcore_train.run import launch


def fsdp_settings(manifest: Manifest) -> str | None:
    """ms-swift's settings of FSDP as JSON text, so that checkpoints hold whole tensors; None without FSDP.

    Its preset saves shards, which neither a resume nor a merge can read, and recomputes activations whatever
    `train.gradient_checkpointing` says. Raises InputError for a file that holds no settings.
    """
    if manifest.launch.fsdp is None:
        return None
    settings = _settings(manifest.launch.fsdp, "launch.fsdp")
    fsdp = settings.setdefault("fsdp_config", {})
    fsdp.pop("fsdp_state_dict_type", None)  # transformers' other name for it, which would win
    fsdp["state_dict_type"] = "FULL_STATE_DICT"
    if not Path(manifest.launch.fsdp).is_file():
        fsdp["activation_checkpointing"] = manifest.train.gradient_checkpointing
    return json.dumps(settings)


def deepspeed_settings(manifest: Manifest) -> str | None:
    """ms-swift's settings of DeepSpeed as JSON text, so that checkpoints hold whole tensors; None without DeepSpeed.

    Raises InputError for a file that holds no settings.
    """
    if manifest.launch.deepspeed is None:
        return None
    settings = _settings(manifest.launch.deepspeed, "launch.deepspeed")
    for name in _said_twice(manifest):
        settings.setdefault(name, "auto")
    if _stage(settings) == 3:
        settings["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True
    return json.dumps(settings)


def problems(manifest: Manifest) -> Iterator[Problem]:
    """What speaks against sharding this run, on this machine."""
    for key, setting in (("fsdp", manifest.launch.fsdp), ("deepspeed", manifest.launch.deepspeed)):
        if setting is None:
            continue
        path = f"launch.{key}"
        if _processes(manifest) == 1:
            message = "spreads a run over several processes, and this one has one; set launch.nproc_per_node"
            yield Problem(path=path, message=f"{message}, or leave it out")
        yield from (Problem(path=path, message=message) for message in _here(manifest, key))
        try:
            settings = _settings(setting, path)
        except InputError as error:
            yield Problem(path=path, message=str(error).removeprefix(f"{path}: "))
            continue
        unfit = _unfit_fsdp(settings) if key == "fsdp" else _unfit_deepspeed(settings, manifest)
        yield from (Problem(path=path, message=message) for message in unfit)


def _processes(manifest: Manifest) -> int:
    if launch.under_launcher():
        return launch.world_size()
    return manifest.launch.nproc_per_node * manifest.launch.nnodes


def _here(manifest: Manifest, key: str) -> Iterator[str]:
    """What this machine lacks."""
    if key == "fsdp":
        return
    try:
        metadata.version("deepspeed")
    except metadata.PackageNotFoundError:
        yield (
            "needs the package deepspeed, which is not installed here; pip install deepspeed, or set "
            'launch.fsdp = "fsdp2" instead, which comes with torch'
        )
        return
    if manifest.train.device == "cpu" and shutil.which("c++") is None:
        yield "on CPU ranks DeepSpeed compiles its communication with c++, which is not in PATH; install g++"


def _settings(setting: str, path: str) -> dict[str, Any]:
    """What a file of the user's, or ms-swift's of that name, holds. {} for a name where ms-swift is not installed."""
    file = Path(setting)
    if not file.is_file():
        swift = util.find_spec("swift")
        if swift is None or swift.origin is None:
            return {}
        file = Path(swift.origin).parent / "config" / f"{setting}.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {file} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {file} is no JSON: {error}") from error
    inner = "fsdp_config" if path == "launch.fsdp" else "zero_optimization"
    for name, value in (("it", settings), (inner, settings.get(inner, {}) if isinstance(settings, dict) else {})):
        if not isinstance(value, dict):
            raise InputError(f"{path}: {file}: {name} must be a table of settings, got {show(value)}")
    return settings


def _unfit_fsdp(settings: dict[str, Any]) -> Iterator[str]:
    fsdp = settings.get("fsdp_config", {})
    for name in ("fsdp_version", "version"):
        if str(fsdp.get(name, 2)) != "2":
            yield (
                f"{name} is {show(fsdp[name])}: the losses are made for version 2, whose parameters stay tensors of "
                "their own; set 2"
            )


def _stage(settings: dict[str, Any]) -> Any:
    return settings.get("zero_optimization", {}).get("stage")


def _said_twice(manifest: Manifest) -> dict[str, tuple[str, float]]:
    """DeepSpeed setting -> the manifest's key for the same, and its value."""
    train = manifest.train
    return {
        "gradient_clipping": ("train.max_grad_norm", train.max_grad_norm),
        "gradient_accumulation_steps": ("train.accumulation", train.accumulation),
        "train_micro_batch_size_per_gpu": ("train.batch_size", train.batch_size),
        "train_batch_size": (
            "the batch of all processes",
            train.batch_size * train.accumulation * _processes(manifest),
        ),
    }


def _unfit_deepspeed(settings: dict[str, Any], manifest: Manifest) -> Iterator[str]:
    for name, ours in (("optimizer", "[optimizer.<name>]"), ("scheduler", "train.schedule")):
        if name in settings:
            yield f"its {name} would stand in for that of {ours}; take it out of the file"
    for name, (key, value) in _said_twice(manifest).items():
        if settings.get(name, "auto") not in ("auto", value):
            yield f'its {name} is {show(settings[name])}, and {key} is {value}; write "auto" there'
    for name, dtype in (("bf16", "bfloat16"), ("fp16", "float16")):
        section = settings.get(name)
        enabled = section.get("enabled", "auto") if isinstance(section, dict) else "auto"
        if enabled not in ("auto", manifest.model.dtype == dtype):
            dtype = manifest.model.dtype
            yield f'its {name}.enabled is {show(enabled)}, and model.dtype is {dtype}; write "auto" there'
    stage = _stage(settings)
    if stage is not None and (type(stage) is not int or not 0 <= stage <= 3):  # DeepSpeed reads a text as a number
        yield f"its zero_optimization.stage must be 0, 1, 2 or 3, got {show(stage)}"
    if settings.get("tensor_parallel"):
        yield "its tensor_parallel would split the output head, by which the losses project; take it out of the file"
    if stage == 3 and manifest.train.evaluate_checkpoints:
        yield (
            "train.evaluate_checkpoints loads the checkpoint on one rank, where ZeRO-3 would wait for the others; "
            "leave that out (the last checkpoint is evaluated anyway), or use zero2 or fsdp2"
        )
