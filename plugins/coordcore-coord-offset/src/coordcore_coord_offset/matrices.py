"""The two matrices that offsets act on, and what makes them unfit. Imports torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from coordcore import InputError


def matrices(model: Any) -> tuple[nn.Embedding, nn.Linear]:
    """The input embedding and output head of an unwrapped model; InputError when offsets cannot be merged into them."""
    head = model.get_output_embeddings()
    if head is None:
        raise InputError(f"{type(model).__name__} has no output head, so coord offsets cannot act on its logits")
    return (
        _plain(model.get_input_embeddings(), nn.Embedding, "the input embedding"),
        _plain(head, nn.Linear, "the output head"),
    )


def _plain(module: nn.Module, expected: type[Any], role: str) -> Any:
    found = f"{role} is a {type(module).__module__}.{type(module).__name__}"
    if type(module).__module__.partition(".")[0] in ("peft", "swift"):
        raise InputError(
            f"{found}: PEFT would train the coord rows beside their offsets; take it out of target_modules, "
            "modules_to_save and trainable_token_indices"
        )
    # A subclass with a forward of its own stores or scales its rows in another way than the merge assumes.
    if not isinstance(module, expected) or type(module).forward is not expected.forward:
        raise InputError(
            f"{found}: offsets need a plain torch.nn.{expected.__name__}; load the base without quantising it "
            "(bitsandbytes: llm_int8_skip_modules)"
        )
    weight: Tensor = module.weight
    if hasattr(weight, "ds_id") or weight.numel() == 0:
        raise InputError(
            f"{role} is sharded by DeepSpeed ZeRO-3 (shape {tuple(weight.shape)} here), which offsets do not support; "
            "use zero2 or FSDP2"
        )
    if not weight.is_floating_point():
        raise InputError(f"{role} is quantised ({weight.dtype}); load the base without quantising it")
    return module


def checked_ids(coord_ids: Iterable[int] | Tensor, model: Any) -> list[int]:
    """`coord_ids` as Python integers; InputError unless they are distinct rows of both matrices of `model`."""
    ids = [int(one) for one in coord_ids]
    if not ids or len(set(ids)) < len(ids):
        raise InputError(
            f"coord_ids must be distinct ids in bin order, got {len(ids)} of which {len(set(ids))} distinct"
        )
    rows = min(matrix.weight.shape[0] for matrix in matrices(model))
    configured = model.config.get_text_config().vocab_size
    outside = [one for one in ids if not 0 <= one < min(rows, configured)]
    if outside:
        raise InputError(
            f"coord id {outside[0]} lies outside the vocabulary ({rows} matrix rows, config.vocab_size {configured}); "
            "expand the checkpoint (coordcore expand) or use the tokenizer that belongs to it"
        )
    return ids
