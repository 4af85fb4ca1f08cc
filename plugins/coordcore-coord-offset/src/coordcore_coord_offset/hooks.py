"""Installing the adapter on a model, its forward hooks, and the proof that they act. Imports torch."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coordcore_coord_offset.adapter import CoordOffsetAdapter
from coordcore_coord_offset.matrices import checked_ids, matrices

NAME = "coord_offset_adapter"
"""The attribute that holds the adapter; also its entry in PEFT's `modules_to_save`."""


def unwrapped(model: nn.Module) -> Any:
    """The transformers model inside a `PeftModel`, or `model` itself."""
    inner = getattr(model, "get_base_model", None)
    return model if inner is None else inner()


def live_coord_offset_adapter(model: nn.Module) -> CoordOffsetAdapter:
    """The adapter whose offsets act on `model` at this moment.

    PEFT's `modules_to_save` keeps the adapter that was installed and one copy per PEFT adapter: this is the active
    copy, or the installed one inside `disable_adapter()`.

    Raises RuntimeError when none is installed.
    """
    module: Any = unwrapped(model)._modules.get(NAME)
    if module is None:
        raise RuntimeError(
            f"{type(unwrapped(model)).__name__} has no {NAME}; call install_coord_offset_adapter on the freshly loaded "
            "model, before PEFT wraps it"
        )
    if isinstance(module, CoordOffsetAdapter):
        return module
    active = [name for name in module.active_adapters if name in module.modules_to_save]
    live = module.original_module if module.disable_adapters or not active else module.modules_to_save[active[0]]
    assert isinstance(live, CoordOffsetAdapter)
    return live


class _Hook:
    """A forward hook that looks the live adapter up when it is called.

    A hook that held the adapter itself would go on using the one that PEFT has copied and set aside. The reference is
    weak, so that embedding -> hook -> model -> embedding is no cycle that keeps GPU memory until a collection.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)

    def model(self) -> nn.Module:
        model = self._model()
        if model is None:
            raise RuntimeError(
                f"the model that holds {NAME} is gone, but its embedding or head is still in use: keep a reference to "
                "the whole model, or call merge_coord_offsets before taking it apart"
            )
        return model

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        # In a copy of the whole model the hook belongs to the copy; a copy of the embedding alone shares the model.
        return type(self)(memo.get(id(self.model()), self.model()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model(),)


class _EmbedHook(_Hook):
    def __call__(self, _module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return live_coord_offset_adapter(self.model()).add_to_embeddings(output, args[0])


class _HeadHook(_Hook):
    """Skips an output whose last dimension is not the head's number of rows.

    Whoever replaces `lm_head.forward` to compute a loss from the hidden states returns something that is not logits,
    and adds the offsets itself (`CoordOffsetSurgery.head_offset`).
    """

    def __call__(self, module: nn.Linear, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if output.dim() == 0 or output.shape[-1] != module.weight.shape[0]:
            return output
        return live_coord_offset_adapter(self.model()).add_to_logits(output, args[0])


def install_coord_offset_adapter(
    model: nn.Module,
    coord_ids: Sequence[int] | Tensor,
    *,
    tie_head: bool = True,
    dtype: torch.dtype | None = None,
) -> CoordOffsetAdapter:
    """Give `model` trainable offsets on the rows `coord_ids` of its embedding and output head, and freeze both.

    model: a freshly loaded transformers model with `get_input_embeddings()` and `get_output_embeddings()`. The adapter
        becomes its submodule `coord_offset_adapter`. No logit changes: the offsets start at zero.
    coord_ids: K distinct vocabulary ids in bin order.
    tie_head: one [K, H] table for both matrices, whether or not they are tied themselves; False gives the head its own.
    dtype: of the offsets; float32 when None, also on a bfloat16 base.

    Raises InputError for ids outside the matrix or a matrix that cannot be merged into (quantised, wrapped by PEFT,
    sharded by DeepSpeed ZeRO-3), RuntimeError when an adapter is already installed or PEFT has wrapped the model.
    """
    if unwrapped(model) is not model:
        raise RuntimeError(
            f"{type(model).__name__} is already wrapped by PEFT, which would not save the offsets; install first, then "
            f"wrap with modules_to_save=[{NAME!r}]"
        )
    if NAME in model._modules:
        raise RuntimeError(f"{type(model).__name__} already has a {NAME}; install it once per loaded model")
    embed, head = matrices(model)
    ids = checked_ids(coord_ids, model)
    adapter = CoordOffsetAdapter(
        torch.tensor(ids, device=embed.weight.device),
        embed.weight.shape[1],
        tie_head=tie_head,
        dtype=dtype or torch.float32,
    )
    embed.weight.requires_grad_(False)
    head.weight.requires_grad_(False)
    model.add_module(NAME, adapter)
    reattach_coord_offset_hooks(model)
    return adapter


def reattach_coord_offset_hooks(model: nn.Module) -> CoordOffsetAdapter:
    """Bind the hooks to the embedding and head that `model` uses now, and return the live adapter. Idempotent.

    Call it after anything that may have replaced one of them: PEFT, `resize_token_embeddings`, a loaded checkpoint.
    Hooks on modules that were replaced are removed.

    Raises RuntimeError when no adapter is installed, InputError when the embedding or head is wrapped or quantised.
    """
    base = unwrapped(model)
    live = live_coord_offset_adapter(base)
    embed, head = matrices(base)
    remove_hooks(base)
    embed.register_forward_hook(_EmbedHook(base))
    head.register_forward_hook(_HeadHook(base))
    return live


def remove_hooks(model: nn.Module) -> None:
    """Remove every hook of this module from every submodule of `model`."""
    for module in model.modules():
        ours = [key for key, hook in module._forward_hooks.items() if isinstance(hook, _Hook)]
        for key in ours:
            del module._forward_hooks[key]


@torch.no_grad()
def verify_coord_offsets(model: nn.Module) -> None:
    """Prove that the offsets act: move one by 1, look at the embedding and the logit it belongs to, restore it.

    Raises RuntimeError, with what was seen and the cure, when either does not move by 1 or a matrix is trainable.
    """
    base = unwrapped(model)
    adapter = live_coord_offset_adapter(base)
    embed, head = matrices(base)
    for name, matrix in (("embedding", embed), ("output head", head)):
        if matrix.weight.requires_grad:
            raise RuntimeError(
                f"the {name}'s own weight is trainable beside its offsets; freeze it (requires_grad_(False))"
            )
    token = adapter.coord_ids[-1:]
    hidden = torch.zeros(1, head.weight.shape[1], dtype=head.weight.dtype, device=head.weight.device)
    hidden[0, 0] = 1

    def observe() -> dict[str, Tensor]:
        return {"embedding": embed(token)[0, 0], "logit": head(hidden)[0, token[0]]}

    before = observe()
    tables = {id(table): table for table in (adapter.embed_offset, adapter.head_rows)}.values()
    kept = [table[-1, 0].clone() for table in tables]
    try:
        for table in tables:
            table[-1, 0] += 1
        after = observe()
    finally:
        for table, value in zip(tables, kept, strict=True):
            table[-1, 0] = value
    for name, value in before.items():
        moved = float(after[name]) - float(value)
        # Half a unit of slack is for bfloat16; a missing hook moves it by 0, a doubled one by 2.
        if not 0.5 < moved < 1.5:
            raise RuntimeError(
                f"the coord offsets are not live: moving one by 1 moves the {name} of token {int(token)} by {moved:g}; "
                "call reattach_coord_offset_hooks(model) after the model was wrapped or its embeddings were replaced"
            )
