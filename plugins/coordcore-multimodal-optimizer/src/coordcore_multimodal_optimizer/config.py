"""The settings of the optimizer `multimodal_coord_offset`. Torch-free."""

from __future__ import annotations

from typing import Any

import attrs
from attrs.validators import and_, ge, le, optional

from coordcore import option
from coordcore.protocols import RESERVED_TAGS

NAME = "multimodal_coord_offset"

STANDARD = (*RESERVED_TAGS, "offset")
"""The tags with keys of their own, in the order of their groups."""

# The bounds of [train].
_RATE: Any = and_(ge(1e-12), le(100))
_DECAY: Any = and_(ge(0), le(100))


def _lr(part: str) -> Any:
    return option(
        default=None, validator=optional(_RATE), help=f"peak learning rate of {part}; train.learning_rate when absent"
    )


def _weight_decay(part: str) -> Any:
    return option(
        default=None,
        validator=optional(_DECAY),
        help=f"weight decay on the matrices of {part}; train.weight_decay when absent",
    )


@attrs.frozen(kw_only=True)
class TagSettings:
    """What holds for the parameters of one tag."""

    lr: float | None = _lr("this tag")
    weight_decay: float | None = _weight_decay("this tag")


def _are_no_standard_tags(_config: object, _field: object, tags: dict[str, TagSettings]) -> None:
    for tag in tags:
        if tag in STANDARD:
            raise ValueError(f"{tag!r} has keys of its own: {tag}_lr and {tag}_weight_decay")


@attrs.frozen(kw_only=True)
class MultimodalOptimizerConfig:
    """Learning rates and weight decay by the part of the model a parameter belongs to."""

    vision_lr: float | None = _lr("the vision tower")
    aligner_lr: float | None = _lr("the vision-to-language projector")
    llm_lr: float | None = _lr("the language model")
    offset_lr: float | None = _lr("the coord offsets")
    vision_weight_decay: float | None = _weight_decay("the vision tower")
    aligner_weight_decay: float | None = _weight_decay("the vision-to-language projector")
    llm_weight_decay: float | None = _weight_decay("the language model")
    # Offsets are matrices, so train.weight_decay would pull every row back to where it started.
    offset_weight_decay: float = option(default=0.0, validator=_DECAY, help="weight decay on the coord offsets")
    tags: dict[str, TagSettings] = option(
        factory=dict,
        validator=_are_no_standard_tags,
        help="tag -> {lr, weight_decay}, for the tags of other surgeries",
    )

    def of(self, tag: str) -> TagSettings:
        """The settings of a tag; empty ones for a tag that is not named."""
        if tag in STANDARD:
            return TagSettings(lr=getattr(self, f"{tag}_lr"), weight_decay=getattr(self, f"{tag}_weight_decay"))
        return self.tags.get(tag, TagSettings())
