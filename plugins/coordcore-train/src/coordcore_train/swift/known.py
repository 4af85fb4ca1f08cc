"""Which ms-swift arguments `[train.swift]` may not hold and why, and which there are at all. Torch-free."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from coordcore.errors import InputError
from coordcore.files import own_cache_folder, write_whole
from coordcore_train.swift.arguments import OWNED

_LOGITS = "it computes its own loss from full logits, which coordcore's losses never make; name losses as [loss.<name>]"
_DATA = "examples come from the data builder; set it up in [data.<name>]"
_LAZY = "examples are encoded one by one when they are needed, so nothing is known of them beforehand"
_RESUME = "a run that was cut off continues by the same command, from its last complete checkpoint"
_OPTIMIZER = "the optimizer comes from [optimizer.<name>]; choose one there"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("use_liger_kernel", "liger_kernel_config"),
        "its fused loss reads lm_head.weight itself and passes over coordcore's losses and surgeries",
    ),
    **dict.fromkeys(
        ("loss_scale", "is_binary_loss_scale"),
        "it weights tokens of a loss on full logits; weight the terms in [loss.<name>]",
    ),
    **dict.fromkeys(
        (
            *("enable_channel_loss", "enable_dft_loss", "loss_type", "label_smoothing_factor", "eval_metric"),
            *("predict_with_generate", "batch_eval_metrics", "include_for_metrics"),
        ),
        _LOGITS,
    ),
    "use_logits_to_keep": "coordcore decides itself which positions reach the output head",
    "acc_strategy": "each loss term is a sum over the global count of its positions",
    "average_tokens_across_devices": "each loss term is a sum over the global count of its positions",
    "logging_nan_inf_filter": "a loss that becomes NaN must stop the run, never be hidden",
    "optimizer": _OPTIMIZER,
    **dict.fromkeys(("vit_lr", "aligner_lr", "lorap_lr_ratio", "use_galore"), _OPTIMIZER),
    "auto_find_batch_size": "it changes the batch size in silence; set train.batch_size",
    **dict.fromkeys(("norm_bbox", "template_backend"), "the template adapter decides this; see [template.<name>]"),
    **dict.fromkeys(
        ("task_type", "num_labels", "problem_type"),
        "coordcore trains a language model's next tokens, and nothing else",
    ),
    "new_special_tokens": "special tokens vanish from decoded answers; add coord tokens with [vocab]",
    "modules_to_save": "surgeries name the modules that are trained and saved whole",
    "adapters": "training starts from a plain checkpoint; merge the adapter and name the result as model.base",
    **dict.fromkeys(
        ("quant_method", "quant_bits"), "the run ends in a merged checkpoint, which a quantised base cannot give"
    ),
    **dict.fromkeys(
        ("tuner_backend", "use_swift_lora"), "surgeries are bound to PEFT's own wrapping of the model; leave it out"
    ),
    **dict.fromkeys(
        ("external_plugins", "custom_register_path"),
        "ms-swift plugins could replace what coordcore registers; write a coordcore plugin",
    ),
    **dict.fromkeys(
        (
            *("dataset", "val_dataset", "cached_dataset", "cached_val_dataset", "split_dataset_ratio", "streaming"),
            *("dataset_num_proc", "load_from_cache_file", "dataset_shuffle", "val_dataset_shuffle", "columns"),
            *("interleave_prob", "stopping_strategy", "shuffle_buffer_size", "download_mode", "custom_dataset_info"),
            *("disable_auto_column_mapping", "model_name", "model_author", "remove_unused_columns"),
        ),
        _DATA,
    ),
    **dict.fromkeys(("lazy_tokenize", "packing_length", "packing_num_proc", "packing_strategy"), _LAZY),
    "strict": "an example that cannot be encoded stops the run; ms-swift would train on another one instead",
    "truncation_strategy": "an example that is too long stops the run; raise train.max_length",
    "sequence_parallel_size": "a sequence split over ranks would tear boxes apart",
    "deepspeed_autotp_size": "the losses project by the whole output head, which would be split over ranks",
    "device_map": "one rank trains on one GPU; a model split over several would meet its loss on the wrong one",
    "ignore_data_skip": _RESUME,
    "use_flash_ckpt": "a checkpoint must be whole before it appears; coordcore writes it beside and renames it",
    "save_on_each_node": "the run folder lies on a file system that all nodes share",
    "use_ray": "processes are started by [launch] or torchrun",
    **dict.fromkeys(("resume_from_checkpoint", "resume_only_model", "load_args", "load_data_args"), _RESUME),
    "save_only_model": "a run that was cut off could not continue from such a checkpoint",
    "load_best_model_at_end": "the last checkpoint is the one that is merged",
    **dict.fromkeys(
        ("add_version", "create_checkpoint_symlink", "logging_dir"), "the layout of the run folder is fixed"
    ),
    "ignore_args_error": "a wrong argument must stop the run",
}
"""ms-swift argument -> why a run of coordcore cannot have it."""

_QUESTION = """
import dataclasses, enum, json, types, typing
from swift.arguments import SftArguments

PLAIN = {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "dict", type(None): "none"}

def forms(wanted):
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        return [form for member in typing.get_args(wanted) for form in forms(member)]
    if origin is typing.Literal:
        return [["literal", member] for member in typing.get_args(wanted)]
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return ["str"]
    return [PLAIN.get(origin or wanted, "other")]

hints = typing.get_type_hints(SftArguments)
print(json.dumps({field.name: forms(hints[field.name]) for field in dataclasses.fields(SftArguments)}))
"""


def refusal(name: str, value: Any, *, attention: str) -> str | None:
    """Why `[train.swift]` must not set the argument `name`, None when nothing of ours speaks against it."""
    if name in OWNED:
        return f"set {OWNED[name]} instead"
    if name in REFUSED:
        return f"not available: {REFUSED[name]}"
    if name == "padding_free" and value is not False and attention != "flash_attention_2":
        return (
            "without flash attention the examples of a batch would see each other; "
            f'set model.attention = "flash_attention_2" (it is "{attention}")'
        )
    return None


def installed_version() -> str | None:
    """The version of ms-swift, None where it is not installed."""
    try:
        return metadata.version("ms-swift")
    except metadata.PackageNotFoundError:
        return None


def known_arguments(version: str) -> Mapping[str, list[Any]]:
    """Every argument of ms-swift's `SftArguments` -> the forms its value may have ("int", "none", ["literal", x]).

    Asked once in a process of its own, because it takes importing torch, and kept on disk for this version in the
    cache folder. Raises InputError when ms-swift cannot be imported.
    """
    file = None
    with suppress(InputError):  # a cache that cannot be used only costs the question again
        file = own_cache_folder() / f"swift-arguments-{version}.json"
    if file is not None and file.is_file():
        known: Mapping[str, list[Any]] = json.loads(file.read_text(encoding="utf-8"))
        return known
    environment = {**os.environ, "LOG_LEVEL": "ERROR", "CUDA_VISIBLE_DEVICES": ""}
    answer = subprocess.run(
        [sys.executable, "-c", _QUESTION], capture_output=True, text=True, env=environment, check=False
    )
    if answer.returncode:
        last = (answer.stderr.strip() or "no message").splitlines()[-1]
        raise InputError(f"ms-swift {version} is installed and cannot be imported: {last}")
    text = answer.stdout.strip().splitlines()[-1]
    with suppress(OSError):
        if file is not None:
            write_whole(file, text)
    known = json.loads(text)
    return known


def of_transformers(name: str) -> list[ast.stmt]:
    """What stands in a source file of transformers; nothing where it is not installed or has no such file."""
    spec = find_spec("transformers")
    file = Path(spec.origin).parent / name if spec is not None and spec.origin else None
    return ast.parse(file.read_text(encoding="utf-8")).body if file is not None and file.is_file() else []


def optimizer_names() -> list[str]:
    """What transformers takes for `optim`, from its source: importing it takes seconds. Empty where unknown."""
    for node in of_transformers("training_args.py"):
        if isinstance(node, ast.ClassDef) and node.name == "OptimizerNames":
            values = (item.value for item in node.body if isinstance(item, ast.Assign))
            return [entry.value for entry in values if isinstance(entry, ast.Constant) and isinstance(entry.value, str)]
    return []


def type_problem(forms: list[Any], value: Any) -> str | None:
    """What is wrong with the type of an argument's value, None when it has one of its `forms`."""
    literals = [form[1] for form in forms if isinstance(form, list)]
    names = [form for form in forms if isinstance(form, str)]
    plain = {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "dict"}.get(type(value), "other")
    fits = plain in names or "other" in names or (plain == "int" and "float" in names)
    if fits or any(type(piece) is type(value) and piece == value for piece in literals):
        return None
    words = {"bool": "true or false", "int": "an integer", "float": "a number", "str": "a string", "list": "an array"}
    expected = [words.get(name, "a table") for name in names if name != "none"] + [repr(piece) for piece in literals]
    return " or ".join(dict.fromkeys(expected))
