"""Examples encoded by an ms-swift template. Imports ms-swift."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from coordcore.protocols import TemplateAdapter
from coordcore.records.example import Example
from coordcore_train.checkpoint.code import require_no_code
from coordcore_train.checkpoint.image_size import ImageTokens
from coordcore_train.engine import EncodedRow
from coordcore_train.swift.names import FAMILY
from coordcore_train.swift.template import plain_row


def image_tokens() -> ImageTokens:
    """The limits by which ms-swift resizes images in this process.

    They are qwen_vl_utils', which ms-swift sets from the environment when it loads a model. Neither reads the sizes in
    the base's processor files; plain transformers and servers read nothing else.
    """
    from qwen_vl_utils import vision_process

    return ImageTokens(least=vision_process.IMAGE_MIN_TOKEN_NUM, most=vision_process.IMAGE_MAX_TOKEN_NUM)


@attrs.frozen
class TemplateEncoder:
    """An `Encoder` over a template. row: makes the ms-swift row that this template takes of an example."""

    template: Any
    row: Callable[[Example], dict[str, Any]]

    @property
    def image_tokens(self) -> tuple[int, int]:
        limits = image_tokens()
        return limits.least, limits.most

    @property
    def processor(self) -> Any:
        return self.template.processor

    @property
    def tokenizer(self) -> Any:
        return self.template.tokenizer

    def encode(self, example: Example) -> EncodedRow:
        encoded = self.template.encode(self.row(example))
        grid = encoded.get("image_grid_thw")
        patch = self.processor.image_processor.patch_size
        seen = [] if grid is None else [(int(w) * patch, int(h) * patch) for _, h, w in grid.tolist()]
        return EncodedRow(ids=tuple(encoded["input_ids"]), labels=tuple(encoded["labels"]), seen=tuple(seen))


def stock_encoder(checkpoint: Path, adapters: Sequence[TemplateAdapter]) -> TemplateEncoder:
    """A fresh template of ms-swift's own in training mode, changed by `adapters` one after the other."""
    from swift.model import get_processor
    from swift.template import get_template

    from coordcore_train.swift.trust import let_code_run

    require_no_code(checkpoint, trusted=False)
    let_code_run(trusted=False)
    template = get_template(get_processor(str(checkpoint), model_type=FAMILY, use_hf=True))
    template.set_mode("train")
    for adapter in adapters:
        adapter.apply(template)
    return TemplateEncoder(template, plain_row)
