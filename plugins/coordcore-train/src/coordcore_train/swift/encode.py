"""Examples encoded by an ms-swift template. Imports ms-swift."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from coordcore.protocols import TemplateAdapter
from coordcore.records.example import Example
from coordcore_train.checkpoint.code import require_no_code
from coordcore_train.checkpoint.image_size import ImageTokens, seen_sizes
from coordcore_train.engine import EncodedRow
from coordcore_train.swift.families import family_of
from coordcore_train.swift.lengths import Grouping, Lengths, require_length
from coordcore_train.swift.template import plain_row


def image_tokens(processor: Any) -> ImageTokens | None:
    """The limits by which ms-swift resizes images itself, None for a model whose own processor resizes them.

    They are qwen_vl_utils', which ms-swift sets from the environment when it loads a model that is trained with it.
    Neither reads the sizes in the base's processor files; plain transformers and servers read nothing else.
    """
    # Where ms-swift notes down what it set there; the note of a second model in one process is empty.
    if not hasattr(processor, "global_vars"):
        return None
    from qwen_vl_utils import vision_process

    return ImageTokens(least=vision_process.IMAGE_MIN_TOKEN_NUM, most=vision_process.IMAGE_MAX_TOKEN_NUM)


def grouping_of(source: Any, template: Any, step: int) -> Grouping:
    """How the examples of a source, encoded by a template, are put into steps of `step` examples of about one length.

    Raises RunError for a source that cannot tell their lengths.
    """
    require_length(source)
    processor = template.processor
    images = getattr(processor, "image_processor", None)
    patch, merge = (getattr(images, name, None) for name in ("patch_size", "merge_size"))
    if not isinstance(patch, int) or not isinstance(merge, int):
        return Grouping(length=Lengths(source=source), step=step)
    limits = image_tokens(processor) or ImageTokens()
    area, most = (patch * merge) ** 2, template.max_pixels
    return Grouping(
        length=Lengths(source=source, area=area, least=limits.least, most=limits.most, max_pixels=most), step=step
    )


@attrs.frozen
class TemplateEncoder:
    """An `Encoder` over a template. row: makes the ms-swift row that this template takes of an example."""

    template: Any
    row: Callable[[Example], dict[str, Any]]

    @property
    def image_tokens(self) -> ImageTokens | None:
        return image_tokens(self.processor)

    @property
    def processor(self) -> Any:
        return self.template.processor

    @property
    def tokenizer(self) -> Any:
        return self.template.tokenizer

    def encode(self, example: Example) -> EncodedRow:
        encoded = self.template.encode(self.row(example))
        return EncodedRow(
            ids=tuple(encoded["input_ids"]),
            labels=tuple(encoded["labels"]),
            seen=seen_sizes(self.processor, encoded.get("image_grid_thw")),
        )


def stock_encoder(checkpoint: Path, adapters: Sequence[TemplateAdapter]) -> TemplateEncoder:
    """A fresh template of ms-swift's own in training mode, changed by `adapters` one after the other."""
    from swift.model import get_processor
    from swift.template import get_template

    from coordcore_train.swift.trust import let_code_run

    require_no_code(checkpoint, trusted=False)
    let_code_run(trusted=False)
    family = family_of(checkpoint)
    template = get_template(
        get_processor(str(checkpoint), model_type=family.type, use_hf=True), template_type=family.template
    )
    template.set_mode("train")
    for adapter in adapters:
        adapter.apply(template)
    return TemplateEncoder(template, plain_row)
