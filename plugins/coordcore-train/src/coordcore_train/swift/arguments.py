"""THE table: which manifest key sets which ms-swift argument, and how. Torch-free; a new one is a row."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from coordcore.errors import InputError
from coordcore_train.swift.families import family_of_plan
from coordcore_train.swift.names import OPTIMIZER, ours
from coordcore_train.swift.plugin_file import plugin_file
from coordcore_train.swift.sharding import deepspeed_settings, fsdp_settings

if TYPE_CHECKING:
    from coordcore_train.run.plan import Plan


@attrs.frozen(kw_only=True)
class Setup:
    """What a value may depend on besides its key. resume: the checkpoint to continue from."""

    plan: Plan
    has_validation: bool
    resume: Path | None


Convert = Callable[[Any, Setup], Any]


def _same(value: Any, _setup: Setup) -> Any:
    return value


@attrs.frozen
class Row:
    """A manifest key and an ms-swift argument that `[train.swift]` must therefore leave alone.

    convert: the key's value -> the argument's, None for an argument that says the same in another way and is not set.
    """

    key: str
    argument: str
    convert: Convert | None = _same


def _use_cpu(_device: str, setup: Setup) -> bool:
    from coordcore_train.run.launch import on_cpu

    return on_cpu(setup.plan.manifest)


TABLE = (
    Row("model.base", "model", lambda _, setup: str(setup.plan.base)),
    Row("model.base", "model_revision", None),
    Row("model.type", "model_type", lambda _, setup: ours(family_of_plan(setup.plan).type)),
    Row("model.template", "template", lambda _, setup: ours(family_of_plan(setup.plan).template)),
    Row("model.dtype", "torch_dtype"),
    Row("model.attention", "attn_impl", lambda name, _: None if name == "auto" else name),
    Row("tuner.type", "tuner_type"),
    Row("tuner.rank", "lora_rank"),
    Row("tuner.alpha", "lora_alpha"),
    Row("tuner.dropout", "lora_dropout"),
    Row("tuner.target_modules", "target_modules", lambda names, _: list(names)),
    Row("tuner.freeze_vision", "freeze_vit"),
    Row("tuner.freeze_aligner", "freeze_aligner"),
    Row("train.steps", "max_steps", lambda steps, _: -1 if steps is None else steps),
    Row("train.epochs", "num_train_epochs"),
    Row("train.epochs", "max_epochs", None),
    Row("train.batch_size", "per_device_train_batch_size"),
    Row(
        "train.eval_batch_size",
        "per_device_eval_batch_size",
        lambda size, setup: size or setup.plan.manifest.train.batch_size,
    ),
    # ms-swift's own two want all examples encoded beforehand.
    Row("train.packing", "packing", None),
    Row("train.group_by_length", "group_by_length", None),
    Row("train.accumulation", "gradient_accumulation_steps"),
    Row("train.learning_rate", "learning_rate"),
    Row("train.schedule", "lr_scheduler_type"),
    Row("train.warmup", "warmup_steps"),
    Row("train.warmup", "warmup_ratio", None),
    Row("train.weight_decay", "weight_decay"),
    Row("train.betas", "adam_beta1", lambda betas, _: betas[0]),
    Row("train.betas", "adam_beta2", lambda betas, _: betas[1]),
    Row("train.max_grad_norm", "max_grad_norm"),
    Row("train.optim", "optim"),
    Row("train.max_length", "max_length"),
    Row("train.max_pixels", "max_pixels"),
    Row("train.gradient_checkpointing", "gradient_checkpointing"),
    Row("train.seed", "seed"),
    Row("train.seed", "data_seed"),
    Row("train.workers", "dataloader_num_workers"),
    Row("train.device", "use_cpu", _use_cpu),
    Row("train.log_every", "logging_strategy", None),
    Row("train.log_every", "logging_steps"),
    Row("train.report_to", "report_to", lambda names, _: list(names)),
    Row("train.save_every", "save_strategy", lambda *_: "steps"),
    # The trainer saves its last step in any case.
    Row("train.save_every", "save_steps", lambda steps, _: steps or 10**9),
    Row("train.keep", "save_total_limit"),
    Row("train.eval_every", "eval_strategy", lambda steps, setup: "steps" if setup.has_validation and steps else "no"),
    Row("train.eval_every", "eval_steps"),
    Row("output.dir", "output_dir", lambda _, setup: str(_folder(setup).checkpoints)),
    Row("launch.nproc_per_node", "local_rank", None),
    Row("train.device", "ddp_backend", None),
    Row("launch.deepspeed", "deepspeed", lambda _, setup: deepspeed_settings(setup.plan.manifest)),
    Row("launch.fsdp", "fsdp", lambda _, setup: fsdp_settings(setup.plan.manifest)),
    Row("launch.fsdp", "fsdp_config", None),
)

REFUSALS = (TypeError, ValueError, AssertionError, ImportError, LookupError, AttributeError, RuntimeError, OSError)
"""What ms-swift's arguments raise for values that they do not take: a package that is missing, text that is no JSON."""

OWNED: Mapping[str, str] = {row.argument: row.key for row in TABLE}
"""ms-swift argument -> the manifest key that sets it."""


def _folder(setup: Setup) -> Any:
    from coordcore_train.run.folder import RunDir

    return RunDir(setup.plan.run_dir)


def _promises(setup: Setup) -> dict[str, Any]:
    """What no manifest key sets: every default of ms-swift that would break a promise of ours."""

    plan, run = setup.plan, _folder(setup)
    manifest = plan.manifest
    values: dict[str, Any] = {
        "modules_to_save": plan.modules_to_save if manifest.tuner.type == "lora" else [],
        "dataloader_persistent_workers": manifest.train.workers > 0,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "dataset": ["coordcore"],
        "val_dataset": ["coordcore"] if setup.has_validation else [],
        "split_dataset_ratio": 0.0,
        "lazy_tokenize": True,
        "strict": True,
        "truncation_strategy": "raise",
        "optimizer": OPTIMIZER,
        "external_plugins": [str(plugin_file(plan.run_dir))],
        "logging_dir": str(run.path / "logs"),
        # Handed to SwanLab whatever its own variable says; ms-swift's default is to upload.
        "swanlab_mode": os.environ.get("SWANLAB_MODE") or "local",
        "add_version": False,
        "create_checkpoint_symlink": False,
        "use_logits_to_keep": False,
        "average_tokens_across_devices": True,
        "ddp_find_unused_parameters": False,
        "check_model": False,
        "use_hf": True,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "resume_from_checkpoint": None if setup.resume is None else str(setup.resume),
    }
    if manifest.model.dtype != "float16":
        values["fp16"] = False
    return values


def argument_values(setup: Setup) -> dict[str, Any]:
    """Every argument of a run: the table's, our promises, and what `[train.swift]` adds."""
    manifest = setup.plan.manifest
    values = {}
    for row in TABLE:
        if row.convert is not None:
            section, _, key = row.key.partition(".")
            values[row.argument] = row.convert(getattr(getattr(manifest, section), key), setup)
    return {**values, **_promises(setup), **manifest.train.swift}


def swift_arguments(plan: Plan, *, has_validation: bool, resume: Path | None) -> Any:
    """The `SftArguments` of a run. Raises InputError for what ms-swift refuses."""
    from swift.arguments import SftArguments
    from swift.utils import utils as swift_utils

    values = argument_values(Setup(plan=plan, has_validation=has_validation, resume=resume))
    # Data-loader processes import every plugin file of this process again, also of what was planned or examined before
    # in it, in a folder that is gone.
    swift_utils._external_files.clear()
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        # ms-swift imports swift_plugin.py here, which must not leave a __pycache__ in the run folder.
        return SftArguments(**values)
    except REFUSALS as error:
        raise InputError(f"train.swift: ms-swift refuses these arguments: {error}") from error
    finally:
        sys.dont_write_bytecode = writes_bytecode
