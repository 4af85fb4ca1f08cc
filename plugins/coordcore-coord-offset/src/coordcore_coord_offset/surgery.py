"""The offsets as a `coordcore.protocols.RowSurgery`. Imports torch."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn

from coordcore import InputError
from coordcore.protocols import AddedRows, ModelFacts

NAME = "coord_offset_adapter"
"""The attribute that holds the adapter; also its entry in PEFT's `modules_to_save`."""


class CoordOffsetAdapter(nn.Module):
    """Offsets of the K coord rows of an embedding matrix and an output head. It has no `forward`: hooks add them.

    embed_offset: [K, H] parameter, zero at the start, in bin order.
    head_offset: [K, H] parameter of its own, or None when `embed_offset` serves the head too (`tie_head=True`).
    coord_ids: [K] int64 vocabulary ids in bin order. Not persistent: sharded loading knows parameters only, and ids
        belong to the tokenizer (`coordcore_coord_offset.save_offset_record` writes them beside a checkpoint).
    """

    coord_ids: Tensor

    def __init__(
        self, coord_ids: Tensor, hidden_size: int, *, tie_head: bool = True, dtype: torch.dtype = torch.float32
    ) -> None:
        """Build zero offsets on the device of `coord_ids`, a [K] int64 tensor of distinct ids."""
        super().__init__()
        self.register_buffer("coord_ids", coord_ids, persistent=False)

        def zeros() -> nn.Parameter:
            return nn.Parameter(torch.zeros(len(coord_ids), hidden_size, dtype=dtype, device=coord_ids.device))

        self.embed_offset = zeros()
        self.head_offset: nn.Parameter | None = None if tie_head else zeros()

    @property
    def head_rows(self) -> nn.Parameter:
        """[K, H] the parameter that acts on the head: `head_offset`, or `embed_offset` when there is none."""
        return self.embed_offset if self.head_offset is None else self.head_offset


@attrs.frozen(kw_only=True)
class CoordOffsetSurgery:
    """Zero offsets on the coord rows, one table for embedding and head with `tie_head`, in `dtype`."""

    tie_head: bool = True
    dtype: torch.dtype = torch.float32

    name: str = attrs.field(default=NAME, init=False)
    tag: str = attrs.field(default="offset", init=False)

    def module(self, facts: ModelFacts) -> CoordOffsetAdapter:
        """Raises InputError when the base has no coord tokens."""
        if facts.vocab is None:
            raise InputError("the base has no coord tokens; expand it first (coordcore expand)")
        ids = torch.tensor(facts.vocab.ids)
        return CoordOffsetAdapter(ids, facts.hidden_size, tie_head=self.tie_head, dtype=self.dtype)

    def embedding_rows(self, module: CoordOffsetAdapter) -> AddedRows:
        return AddedRows(ids=module.coord_ids, rows=module.embed_offset)

    def head_rows(self, module: CoordOffsetAdapter) -> AddedRows:
        return AddedRows(ids=module.coord_ids, rows=module.head_rows)
