"""What the tests share: a tiny model, and examples with boxes on pictures of noise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from coordcore.coords import CoordVocab
from coordcore.records.example import Example
from coordcore_train.testing.tiny import tiny_qwen3vl


def checkpoint(folder: Path, **changes: Any) -> Path:
    return tiny_qwen3vl(folder, **{"initializer_range": 0.3} | changes)


def model_of(folder: Path, dtype: Any = "auto") -> tuple[Any, Any, CoordVocab]:
    """Model, processor and coord tokens of a checkpoint."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).eval().requires_grad_(False)
    processor = AutoProcessor.from_pretrained(folder)
    vocab = CoordVocab.from_tokenizer(processor.tokenizer, config_vocab_size=model.config.get_text_config().vocab_size)
    return model, processor, vocab


def example(seed: int, boxes: int = 2) -> Example:
    """A picture of noise with boxes on it."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    objects = []
    for number in range(boxes):
        x, y = random.uniform(0, 20, 2)
        width, height = random.uniform(5, 19, 2)
        objects.append((f"thing {number}", (x, y, x + width, y + height)))
    return Example.boxes(objects, image=Image.fromarray(pixels), image_size=(48, 40), prompt="Find.")


def untold(batches: Iterator[Any], _total: int) -> Iterator[Any]:
    return batches
