"""Merges a run into a plain transformers checkpoint, and proves that the logits stayed the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coordcore.assemble import Plan
from coordcore.checkpoint import whole_folder, write_checkpoint_info
from coordcore.engine.bind import bind
from coordcore.engine.model import install, require_saved
from coordcore.engine.prepare import load_run
from coordcore.engine.quiet import quiet_transformers
from coordcore.records import InputError, RunError
from coordcore.rundir import RunDir

_ONE_FILE = 10**12
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")


@attrs.frozen(kw_only=True)
class MergeReport:
    """output: the folder. difference: largest logit change by merging, relative to the largest logit."""

    output: Path
    checkpoint: Path
    difference: float


def merge_run(run_dir: Path, output: Path, *, checkpoint: Path | None = None) -> MergeReport:
    """Bake the newest checkpoint of a run (or `checkpoint`) into its base, and write a plain checkpoint folder.

    LoRA and the surgeries become ordinary weights; tokenizer and processor files come along. The live model's logits
    are compared with the saved folder's, loaded again, before the folder appears.
    Raises InputError when there is nothing to merge or `output` exists, RunError when the logits differ.
    """
    output = output.absolute()
    quiet_transformers()
    plan = load_run(run_dir.absolute())
    if checkpoint is not None and (
        checkpoint.resolve().parent != RunDir(run_dir.resolve()).checkpoints
        or not (checkpoint / "trainer_state.json").is_file()
    ):
        raise InputError(f"{checkpoint} is no complete checkpoint of the run in {run_dir}; look into its checkpoints/")
    checkpoint = checkpoint or RunDir(run_dir.absolute()).last_checkpoint()
    if checkpoint is None:
        raise InputError(f"{run_dir} has no complete checkpoint yet; train it with `coordcore run`")
    with whole_folder(output) as folder:
        difference = _merge(plan, checkpoint, folder)
    return MergeReport(output=output, checkpoint=checkpoint, difference=difference)


def _merge(plan: Plan, checkpoint: Path, folder: Path) -> float:
    from transformers import AutoProcessor

    model: Any = load_live(plan, checkpoint)
    inputs = probe(plan, model)
    with torch.no_grad():
        live = model(**inputs).logits
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    for surgery in plan.surgeries:
        surgery.merge(model)
    _check_plain(model, plan)
    model.save_pretrained(folder, max_shard_size=_shard_size(plan.base))
    AutoProcessor.from_pretrained(plan.base).save_pretrained(folder)
    for file in plan.base.iterdir():
        # Whatever belongs to the base and was not written anew (generation settings, chat templates, licences).
        if file.is_file() and not file.name.endswith(_WEIGHTS) and not (folder / file.name).exists():
            shutil.copy(file, folder / file.name)
    if plan.vocab is not None:
        write_checkpoint_info(folder, quantisation=plan.quantisation, vocab=plan.vocab)
    del model
    return _compare(live, folder, inputs)


def _compare(live: Tensor, folder: Path, inputs: dict[str, Tensor]) -> float:
    """The relative difference of the saved folder's logits, loaded as anybody would. Raises RunError when too large."""
    from transformers import AutoModelForImageTextToText

    saved = AutoModelForImageTextToText.from_pretrained(folder, dtype=live.dtype).eval()
    with torch.no_grad():
        merged = saved(**inputs).logits
    difference = float((merged.float() - live.float()).abs().max() / live.float().abs().max())
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}[live.dtype]
    if not difference <= tolerance:
        raise RunError(
            f"the merged checkpoint's logits differ from the live model's by {difference:.3g} of the largest logit "
            f"(at most {tolerance:g} is rounding); it was not written"
        )
    return difference


def load_live(plan: Plan, checkpoint: Path) -> nn.Module:
    """The model of a run as it trained: base, surgeries, adapter, hooks bound and verified. In eval mode."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    require_saved(plan.modules_to_save, checkpoint)
    is_adapter = (checkpoint / "adapter_config.json").is_file()
    weights = plan.base if is_adapter else checkpoint
    dtype = getattr(torch, plan.manifest.model.dtype)
    model: Any = AutoModelForImageTextToText.from_pretrained(weights, dtype=dtype)
    install(model, AutoProcessor.from_pretrained(plan.base), plan, weights)
    if is_adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, checkpoint)
    model.eval().requires_grad_(False)
    bind(model, plan)
    return model  # type: ignore[no-any-return]


def probe(plan: Plan, model: nn.Module) -> dict[str, Tensor]:
    """A short input that touches text and, when there are any, coord rows."""
    config = model.config.get_text_config()  # type: ignore[union-attr, operator]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, min(config.vocab_size, 200), (1, 24), generator=generator)
    if plan.vocab is not None:
        ids[0, 4:20] = torch.tensor(plan.vocab.ids)[torch.randint(0, 1000, (16,), generator=generator)]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _check_plain(model: nn.Module, plan: Plan) -> None:
    left = [name for name in plan.modules_to_save if hasattr(model, name)]
    if left:
        raise RunError(f"surgery left {', '.join(left)} in the merged model; its merge() must remove its modules")


def _shard_size(base: Path) -> int:
    """Keep the base's layout: shards no larger than its largest file."""
    sizes = [file.stat().st_size for file in base.glob("*.safetensors")]
    return max(sizes) if (base / "model.safetensors.index.json").is_file() else _ONE_FILE
