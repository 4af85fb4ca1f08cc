"""A run's merged checkpoint, loaded, with the examples that it was trained on. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from coordcore.coords import CoordVocab
from coordcore.errors import InputError
from coordcore.protocols import ExampleSource
from coordcore_train.checkpoint.code import require_no_code
from coordcore_train.run.folder import RunDir
from coordcore_train.run.launch import set_threads
from coordcore_train.run.plan import load_run


@attrs.frozen(kw_only=True)
class Trained:
    """folder: the merged checkpoint. max_pixels: to which images are reduced before the processor sees them, if so."""

    folder: Path
    model: Any
    processor: Any
    vocab: CoordVocab
    examples: ExampleSource
    max_pixels: int | None


def loaded_from(run: Path, device: str) -> Trained:
    """The merged checkpoint of a run, frozen, on a device.

    Raises InputError for what is no run, a run that is not merged, or one whose answers hold no boxes in coord tokens.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = RunDir(run.absolute())
    plan = load_run(folder.path)
    if not (folder.merged / "config.json").is_file():
        raise InputError(f"{run}: has no merged checkpoint, beside which heads lie; finish it with `coordcore run`")
    if plan.vocab is None or plan.format.numbers:
        raise InputError(f"{run}: answers in plain numbers; heads propose coord tokens")
    if plan.manifest.train.parallel_boxes:
        raise InputError(
            f"{run}: has learned to say the corners of a box together (train.parallel_boxes = "
            f"{plan.manifest.train.parallel_boxes}), and is asked no heads; coordcore predict --parallel does without"
        )
    if "bbox_2d" not in plan.format.places:
        raise InputError(f"{run}: answers in the format {plan.format.name} hold no boxes")
    if device == "cpu":
        set_threads(plan.manifest.train.threads)
    require_no_code(folder.merged, trusted=plan.trusted)
    import torch

    dtype = torch.float32 if device == "cpu" else "auto"
    try:
        model = AutoModelForImageTextToText.from_pretrained(folder.merged, dtype=dtype, trust_remote_code=plan.trusted)
        processor = AutoProcessor.from_pretrained(folder.merged, trust_remote_code=plan.trusted)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder.merged}: cannot be loaded: {' '.join(str(error).split())}") from error
    return Trained(
        folder=folder.merged,
        model=model.eval().requires_grad_(False).to(device),
        processor=processor,
        vocab=plan.vocab,
        examples=plan.data.train(),
        max_pixels=plan.manifest.train.max_pixels,
    )
