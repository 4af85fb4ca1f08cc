"""A narrow copy of a base: every layer, name, token and setting of it, a few numbers wide. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from coordcore.errors import InputError
from coordcore_train.checkpoint.folder import WEIGHT_SUFFIXES

WIDTH = 32
"""Hidden size of the towers, and of a language model whose heads have a width of their own."""

_WIDTHS = (
    *("hidden_size", "intermediate_size", "embed_dim", "moe_intermediate_size", "shared_expert_intermediate_size"),
    "projection_dim",
)
_HEADS = (
    (("num_attention_heads", "num_heads"), "num_key_value_heads"),
    (("linear_num_value_heads",), "linear_num_key_heads"),  # of the layers with linear attention
)
"""How heads are counted: those of the queries, or of a state, and those that several of these may share."""


def write_miniature(base: Path, folder: Path, *, trusted: bool) -> Path:
    """Write a random checkpoint to `folder` that differs from `base` in width alone, and return `folder`.

    What hangs on names and structure (the tuner's target modules, optimizer groups, hooks, the way through the head) is
    the same on it, and it takes megabytes where the base takes gigabytes. Tokenizer and processor are the base's own.

    trusted: whether Python that the base names may run. Raises InputError for a model whose layers cannot be made so
    narrow.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(base, trust_remote_code=trusted)
    text = config.get_text_config()
    width = WIDTH if getattr(text, "head_dim", None) else 2 * (text.hidden_size // text.num_attention_heads)
    for part in _parts(config):
        _narrow(part, width if part is text else WIDTH)
        # What a tower hands over is as wide as the language model; where it has a width for itself besides, this is it.
        for name in ("out_hidden_size", *(["hidden_size"] if hasattr(part, "embed_dim") else [])):
            if hasattr(part, name):
                setattr(part, name, width)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32, trust_remote_code=trusted)
    except (ValueError, RuntimeError, AttributeError, TypeError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{base}: no narrow copy of a {config.model_type!r} model can be built: {reason}") from error
    model.save_pretrained(folder)
    for entry in base.iterdir():
        if entry.name == "config.json" or entry.name.startswith(".") or entry.name.endswith(WEIGHT_SUFFIXES):
            continue
        target = folder / entry.name
        target.unlink(missing_ok=True)
        target.symlink_to(entry.resolve())
    return folder


def _parts(config: Any) -> list[Any]:
    """The configurations of the parts of a model, or the whole one's where it has none."""
    return [part for name in config.sub_configs if (part := getattr(config, name, None)) is not None] or [config]


def _narrow(part: Any, width: int) -> None:
    for name in _WIDTHS:
        if getattr(part, name, None):
            setattr(part, name, width)
    # The width of a head stays: rotary sections are counted in it.
    for many, few in _HEADS:
        heads = [name for name in many if isinstance(getattr(part, name, None), int)]
        shared = getattr(part, few, None)
        if isinstance(shared, int):
            setattr(part, few, 1 if any(shared < getattr(part, name) for name in heads) else 2)
        for name in heads:
            setattr(part, name, 2)
