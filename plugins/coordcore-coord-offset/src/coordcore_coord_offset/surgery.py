"""The adapter as a `coordcore.protocols.ModelSurgery`. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from coordcore import InputError
from coordcore.protocols import HeadOffset
from coordcore_coord_offset.hooks import (
    NAME,
    install_coord_offset_adapter,
    live_coord_offset_adapter,
    reattach_coord_offset_hooks,
    verify_coord_offsets,
)
from coordcore_coord_offset.merge import merge_coord_offsets

if TYPE_CHECKING:
    from coordcore.coords import CoordVocab


class CoordOffsetSurgery:
    """Offsets on the coord rows: see `install_coord_offset_adapter` for `tie_head` and `dtype`."""

    modules_to_save: Sequence[str] = (NAME,)
    frozen: Sequence[str] = ("embed_tokens", "lm_head")

    def __init__(self, *, tie_head: bool = True, dtype: torch.dtype = torch.float32) -> None:
        self.tie_head = tie_head
        self.dtype = dtype

    def install(self, model: nn.Module, vocab: CoordVocab | None) -> None:
        """Install zero offsets for the ids of `vocab`. Raises InputError when the base has no coord tokens."""
        if vocab is None:
            raise InputError("surgery.coord_offset: the base has no coord tokens; expand it first (coordcore expand)")
        install_coord_offset_adapter(model, vocab.ids, tie_head=self.tie_head, dtype=self.dtype)

    def rebind(self, model: nn.Module) -> None:
        reattach_coord_offset_hooks(model)

    def verify(self, model: nn.Module) -> None:
        """Raise RuntimeError unless the live offsets act on `model` and have the dtype that was asked for."""
        verify_coord_offsets(model)
        found = live_coord_offset_adapter(model).embed_offset.dtype
        if found != self.dtype:
            raise RuntimeError(
                f"the coord offsets were asked for in {self.dtype} but are {found}; "
                "do not cast the model after the surgery was installed"
            )

    def head_offset(self, model: nn.Module) -> HeadOffset:
        """The live head table. Ask inside the forward: under FSDP the parameter is whole only there."""
        adapter = live_coord_offset_adapter(model)
        return HeadOffset(ids=adapter.coord_ids, rows=adapter.head_rows)

    def embedding_offset(self, model: nn.Module) -> HeadOffset:
        """The live embedding table; the same tensor as the head's with `tie_head=True`."""
        adapter = live_coord_offset_adapter(model)
        return HeadOffset(ids=adapter.coord_ids, rows=adapter.embed_offset)

    def parameters(self, model: nn.Module) -> Mapping[str, Sequence[nn.Parameter]]:
        return {"offset": list(live_coord_offset_adapter(model).parameters())}

    def merge(self, model: nn.Module) -> None:
        merge_coord_offsets(model)
