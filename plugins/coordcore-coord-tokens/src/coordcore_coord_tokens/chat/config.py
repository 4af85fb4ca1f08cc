"""The manifest keys of `[data.chat_jsonl]`. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from coordcore import option
from coordcore_coord_tokens.augment.config import ChatAugmentConfig
from coordcore_coord_tokens.config import LinesConfig

OPENING = 32
"""How much longer the check of a row takes than that of a record: the size of its image is read from the file."""


@attrs.frozen(kw_only=True)
class ChatJsonlConfig(LinesConfig):
    """`[data.chat_jsonl]`: one file of conversations about images, boxes in `objects` or in the text."""

    train: Path = option(exists=True, help="file of the training rows: one a line (JSONL), or one JSON array of them")
    validation: Path | None = option(default=None, exists=True, help="file of the held-out rows, in either form")
    space: Literal["pixel", "norm1", "norm1000", "bin", "text"] | None = option(
        default=None,
        help="what the numbers of boxes and points in a message are, x first: pixels of the upright image, "
        "0..1, 0..1000, the run's bins, or no place but text; rows that have some are refused when absent. Boxes of "
        "`objects` say it themselves (`bbox_type`)",
    )

    augment: ChatAugmentConfig | None = option(default=None, help="how training examples differ from epoch to epoch")

    @property
    def arrays(self) -> bool:
        return True

    @property
    def weight(self) -> int:
        return OPENING
