"""A narrow copy of a base: every layer, name, token and setting of it, a few numbers wide. Imports torch."""

from __future__ import annotations

from pathlib import Path

import torch

from coordcore_train.checkpoint.folder import WEIGHT_SUFFIXES

WIDTH = 32
"""Hidden size of the language model and of the vision tower."""


def write_miniature(base: Path, folder: Path, *, trusted: bool) -> Path:
    """Write a random checkpoint to `folder` that differs from `base` in width alone, and return `folder`.

    What hangs on names and structure (the tuner's target modules, optimizer groups, hooks, the way through the head) is
    the same on it, and it takes megabytes where the base takes gigabytes. Tokenizer and processor are the base's own.

    trusted: whether Python that the base names may run.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(base, trust_remote_code=trusted)
    text, vision = config.text_config, config.vision_config
    text.hidden_size = text.intermediate_size = WIDTH
    text.num_attention_heads, text.num_key_value_heads = 2, 1  # head_dim stays: rotary sections are counted in it
    vision.hidden_size = vision.intermediate_size = vision.out_hidden_size = WIDTH
    vision.num_heads = 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32, trust_remote_code=trusted)
    model.save_pretrained(folder)
    for entry in base.iterdir():
        if entry.name == "config.json" or entry.name.startswith(".") or entry.name.endswith(WEIGHT_SUFFIXES):
            continue
        target = folder / entry.name
        target.unlink(missing_ok=True)
        target.symlink_to(entry.resolve())
    return folder
