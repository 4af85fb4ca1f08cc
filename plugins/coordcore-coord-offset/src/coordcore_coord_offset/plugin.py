"""The `coord_offset` surgery as coordcore sees it: its settings and its hook. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import attrs

from coordcore import COORD_TOKENS, BuildContext, Component, InputError, hookimpl, option

if TYPE_CHECKING:
    from coordcore_coord_offset.surgery import CoordOffsetSurgery


@attrs.frozen(kw_only=True)
class CoordOffsetConfig:
    """Trainable offsets on the coord rows of the frozen embedding matrix and output head."""

    tie_head: bool = option(
        default=True,
        help="one offset table for embedding and head; false trains a second one for the head, "
        "which unties the merged checkpoint of a tied base",
    )
    dtype: Literal["float32", "bfloat16"] = option(
        default="float32", help="dtype of the offsets; bfloat16 loses updates smaller than 1/256 of an offset"
    )


def _build(config: CoordOffsetConfig, context: BuildContext) -> CoordOffsetSurgery:
    if context.vocab is None:
        raise InputError(
            "the base checkpoint has no coord tokens; add a [vocab] section to expand it, "
            "or remove [surgery.coord_offset]"
        )
    import torch

    from coordcore_coord_offset.surgery import CoordOffsetSurgery

    return CoordOffsetSurgery(tie_head=config.tie_head, dtype=getattr(torch, config.dtype))


@hookimpl
def coordcore_surgeries() -> Iterable[Component]:
    return [
        Component(
            name="coord_offset",
            config=CoordOffsetConfig,
            build=_build,
            summary="trainable [1000, H] offsets on the coord rows; the matrices themselves stay frozen",
            # Offsets of tokens that no example contains would get no gradient from the embedding side.
            requires=lambda _config: [COORD_TOKENS],
            claims=lambda _config: ["embed_tokens", "lm_head"],
        )
    ]
