"""Manifest to ms-swift arguments. Every default of ms-swift that would bite is set here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from coordcore.errors import InputError
from coordcore_train.run.folder import RunDir
from coordcore_train.run.plan import Plan
from coordcore_train.run.prepare import on_cpu
from coordcore_train.swift.loader import MODEL_TYPE
from coordcore_train.swift.optimizer import OPTIMIZER
from coordcore_train.swift.template import TEMPLATE_TYPE


def _fsdp(plan: Plan) -> str | None:
    """ms-swift's FSDP settings as JSON text, changed so that checkpoints hold whole tensors.

    Its preset saves shards only, which neither a resume nor a merge can read.
    """
    setting = plan.manifest.launch.fsdp
    if setting is None:
        return None
    if on_cpu(plan.manifest):
        raise InputError("launch.fsdp: needs GPUs; on CPU ranks it would be ignored. Leave it out")
    import swift

    preset = Path(swift.__file__).parent / "config" / "fsdp2.json"
    settings = json.loads((preset if setting == "fsdp2" else Path(setting)).read_text(encoding="utf-8"))
    settings.setdefault("fsdp_config", {})["state_dict_type"] = "FULL_STATE_DICT"
    return json.dumps(settings)


def swift_arguments(plan: Plan, *, has_validation: bool, resume: str | None) -> Any:
    """The `SftArguments` of a run."""
    from swift.arguments import SftArguments

    manifest, run = plan.manifest, RunDir(plan.run_dir)
    train, tuner = manifest.train, manifest.tuner
    values: dict[str, Any] = {
        # what is trained
        "model": str(plan.base),
        "model_type": MODEL_TYPE,
        "template": TEMPLATE_TYPE,
        "torch_dtype": manifest.model.dtype,
        "attn_impl": None if manifest.model.attention == "auto" else manifest.model.attention,
        "tuner_type": tuner.type,
        "lora_rank": tuner.rank,
        "lora_alpha": tuner.alpha,
        "lora_dropout": tuner.dropout,
        "target_modules": list(tuner.target_modules),
        "modules_to_save": plan.modules_to_save if tuner.type == "lora" else [],
        "freeze_vit": tuner.freeze_vision,
        "freeze_aligner": tuner.freeze_aligner,
        # how
        "max_steps": -1 if train.steps is None else train.steps,
        "num_train_epochs": train.epochs,
        "per_device_train_batch_size": train.batch_size,
        "per_device_eval_batch_size": train.eval_batch_size or train.batch_size,
        "gradient_accumulation_steps": train.accumulation,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.schedule,
        "warmup_steps": train.warmup,
        "weight_decay": train.weight_decay,
        "adam_beta1": train.betas[0],
        "adam_beta2": train.betas[1],
        "max_grad_norm": train.max_grad_norm,
        "optim": train.optim,
        "max_length": train.max_length,
        "max_pixels": train.max_pixels,
        "gradient_checkpointing": train.gradient_checkpointing,
        "seed": train.seed,
        "data_seed": train.seed,
        "dataloader_num_workers": train.workers,
        "dataloader_persistent_workers": train.workers > 0,
        "logging_steps": train.log_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": train.save_every or 10**9,  # the trainer saves its last step in any case
        "save_total_limit": train.keep,
        "eval_strategy": "steps" if has_validation and train.eval_every else "no",
        "eval_steps": train.eval_every,
        "use_cpu": on_cpu(manifest),
        # promises of ours that a default of ms-swift would break
        "dataset": ["coordcore"],
        "val_dataset": ["coordcore"] if has_validation else [],
        "split_dataset_ratio": 0.0,
        "lazy_tokenize": True,
        "strict": True,
        "truncation_strategy": "raise",
        "optimizer": OPTIMIZER,
        "external_plugins": [str(run.swift_plugin)],
        "output_dir": str(run.checkpoints),
        "logging_dir": str(run.path / "logs"),
        "add_version": False,
        "create_checkpoint_symlink": False,
        "report_to": [],
        "use_logits_to_keep": False,
        "average_tokens_across_devices": True,
        "ddp_find_unused_parameters": False,
        "check_model": False,
        "use_hf": True,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "resume_from_checkpoint": resume,
        "deepspeed": manifest.launch.deepspeed,
        "fsdp": _fsdp(plan),
    }
    if manifest.model.dtype != "float16":
        values["fp16"] = False
    values.update(train.swift)
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        # ms-swift imports swift_plugin.py here, which must not leave a __pycache__ in the run folder.
        return SftArguments(**values)
    except (TypeError, ValueError, AssertionError) as error:
        raise InputError(f"train.swift: ms-swift refuses these arguments: {error}") from error
    finally:
        sys.dont_write_bytecode = writes_bytecode
