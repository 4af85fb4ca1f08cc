"""Writing the offsets into ordinary weights. Imports torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from coordcore_coord_offset.adapter import CoordOffsetAdapter
from coordcore_coord_offset.hooks import NAME, live_coord_offset_adapter, remove_hooks, unwrapped
from coordcore_coord_offset.matrices import matrices


@torch.no_grad()
def merge_coord_offsets(model: nn.Module) -> None:
    """Add the offsets to the rows they belong to, and remove the adapter and its hooks.

    Sums are taken in the wider dtype and rounded once to that of the weight. A tied base stays tied with
    `tie_head=True`; with a head table of its own, its head becomes a matrix of its own and `tie_word_embeddings` False
    in every config. The model is then an ordinary one that `save_pretrained` writes whole.

    Raises RuntimeError when no adapter is installed or PEFT still wraps it.
    """
    base = unwrapped(model)
    adapter = live_coord_offset_adapter(base)
    if base._modules[NAME] is not adapter:
        raise RuntimeError(f"{NAME} is still wrapped by PEFT; call merge_and_unload() and merge the model it returns")
    embed, head = matrices(base)
    if head.weight is embed.weight and adapter.head_offset is not None:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    _add(embed.weight, adapter, adapter.embed_offset)
    if head.weight is not embed.weight:
        _add(head.weight, adapter, adapter.head_rows)
        _declare_untied(base)
    remove_hooks(base)
    delattr(base, NAME)


def _add(weight: Tensor, adapter: CoordOffsetAdapter, offset: Tensor) -> None:
    rows = weight[adapter.coord_ids] + offset
    weight.index_copy_(0, adapter.coord_ids, rows.to(weight.dtype))


def _declare_untied(model: Any) -> None:
    # A loader that believes tie_word_embeddings would drop the head's own rows.
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
