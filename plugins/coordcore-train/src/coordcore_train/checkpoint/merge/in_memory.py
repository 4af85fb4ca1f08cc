"""Merging a run in memory: the readable reference, and the comparison of whole models. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coordcore.errors import RunError
from coordcore_train.checkpoint.code import require_no_code
from coordcore_train.checkpoint.merge.skeleton import require_same_tensors
from coordcore_train.checkpoint.origin import require_own
from coordcore_train.checkpoint.tensorfile import tensors_in
from coordcore_train.checkpoint.trained import require_readable
from coordcore_train.checkpoint.weights import is_sharded, weight_files
from coordcore_train.run.folder import RunDir
from coordcore_train.run.plan import Plan
from coordcore_train.surgery.bind import bind
from coordcore_train.surgery.saved import install, require_saved
from coordcore_train.surgery.saving import is_guard

_ONE_FILE = 10**12


def merge_in_memory(plan: Plan, checkpoint: Path, folder: Path) -> None:
    """Write the merged weights and config of a run's checkpoint into `folder`, with PEFT's and the surgeries' `merge`.

    Holds the whole model. Raises RunError when a surgery's modules are left in the merged model.
    """
    model: Any = load_live(plan, checkpoint)
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    for surgery in plan.surgeries:
        surgery.merge(model)
    left = [name for name in plan.modules_to_save if hasattr(model, name)]
    if left:
        raise RunError(f"surgery left {', '.join(left)} in the merged model; its merge() must remove its modules")
    model.save_pretrained(folder, max_shard_size=_shard_size(plan.base))


def load_live(plan: Plan, checkpoint: Path) -> nn.Module:
    """The model of a run as it trained: base, surgeries, adapter, hooks bound and verified. In eval mode.

    Raises InputError for a checkpoint of another run, and for one of which a file cannot be read.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    require_readable(checkpoint, adapter=plan.manifest.tuner.type == "lora")
    require_own(checkpoint, plan.fingerprint)
    require_saved(plan.modules_to_save, checkpoint)
    is_adapter = (checkpoint / "adapter_config.json").is_file()
    if is_adapter:
        RunDir(plan.run_dir).require_same_base(plan.base)
    weights = plan.base if is_adapter else checkpoint
    dtype, trusted = getattr(torch, plan.manifest.model.dtype), plan.trusted
    require_no_code(checkpoint, trusted=trusted)
    model: Any = AutoModelForImageTextToText.from_pretrained(weights, dtype=dtype, trust_remote_code=trusted)
    install(model, AutoProcessor.from_pretrained(plan.base, trust_remote_code=trusted), plan, weights)
    if is_adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, checkpoint)
        _require_whole(model, checkpoint)
    model.eval().requires_grad_(False)
    bind(model, plan)
    return model


def _require_whole(model: Any, checkpoint: Path) -> None:
    """Raise RunError when PEFT has made something up that the checkpoint lacks: it only warns."""
    from peft import get_peft_model_state_dict

    file = checkpoint / "adapter_model.safetensors"
    if file.is_file():
        stored = {tensor.name for tensor in tensors_in(file) if not is_guard(tensor.dtype)}
        wanted = set(get_peft_model_state_dict(model))
        require_same_tensors(checkpoint, missing=sorted(wanted - stored), unexpected=sorted(stored - wanted))


@torch.no_grad()
def compare_logits(plan: Plan, checkpoint: Path, folder: Path) -> float:
    """The difference of the live model's logits and the saved folder's, loaded as anybody would: of the largest logit.

    Holds one whole model at a time. Raises RunError when the difference is more than rounding.
    """
    from transformers import AutoModelForImageTextToText

    model: Any = load_live(plan, checkpoint)
    inputs = _probe(plan, model)
    live = model(**inputs).logits
    del model
    saved = AutoModelForImageTextToText.from_pretrained(folder, dtype=live.dtype, trust_remote_code=plan.trusted).eval()
    merged = saved(**inputs).logits
    difference = float((merged.float() - live.float()).abs().max() / live.float().abs().max())
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}[live.dtype]
    if not difference <= tolerance:
        raise RunError(
            f"the merged checkpoint's logits differ from the live model's by {difference:.3g} of the largest logit "
            f"(at most {tolerance:g} is rounding); it was not written"
        )
    return difference


def _probe(plan: Plan, model: Any) -> dict[str, Tensor]:
    """A short input that touches text and, when there are any, coord rows."""
    config = model.config.get_text_config()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, min(config.vocab_size, 200), (1, 24), generator=generator)
    if plan.vocab is not None:
        ids[0, 4:20] = torch.tensor(plan.vocab.ids)[torch.randint(0, len(plan.vocab.ids), (16,), generator=generator)]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _shard_size(base: Path) -> int:
    """Keep the base's layout: shards no larger than its largest file."""
    if not is_sharded(base):
        return _ONE_FILE
    return max(file.stat().st_size for file in weight_files(base).values())
