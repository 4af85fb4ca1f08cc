"""The forward hooks that add a row surgery's rows to a model, and its live module under PEFT. Imports torch."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from coordcore.protocols import AddedRows, RowSurgery
from coordcore_train.surgery.adapters import copies_by_sample, live_copy
from coordcore_train.surgery.arithmetic import add_to_embeddings, add_to_logits, in_order
from coordcore_train.surgery.matrices import ROLES, Matrices, Role, embedding_scale, unwrapped
from coordcore_train.surgery.zero3 import fetched_with


def live_module(model: nn.Module, name: str) -> nn.Module:
    """The module `name` that acts on `model` at this moment.

    PEFT's `modules_to_save` keeps the module that was installed and one copy per adapter: this is the active copy, or
    the installed module inside `disable_adapter()`.

    Raises RuntimeError when none is installed.
    """
    base = unwrapped(model)
    module: Any = base._modules.get(name)
    if module is None:
        raise RuntimeError(
            f"{type(base).__name__} has no {name}; install it on the freshly loaded model, before PEFT wraps it"
        )
    return live_copy(module) if hasattr(module, "original_module") else module


def rows_of(surgery: RowSurgery, module: nn.Module, role: Role) -> AddedRows | None:
    """What the surgery's function for the embedding or the head gives for `module`."""
    return surgery.embedding_rows(module) if role == "embedding" else surgery.head_rows(module)


def rows_by_role(surgery: RowSurgery, module: nn.Module) -> dict[Role, AddedRows]:
    """What the surgery adds to the embedding and to the head, for those it adds anything to."""
    found = {role: rows_of(surgery, module, role) for role in ROLES}
    return {role: added for role, added in found.items() if added is not None}


def surgeries_in(model: nn.Module) -> list[RowSurgery]:
    """The row surgeries whose hooks `model` holds, in the order of their installation."""
    found = {
        hook.surgery.name: hook.surgery
        for module in model.modules()
        for hook in module._forward_hooks.values()
        if isinstance(hook, _Hook)
    }
    return [found[name] for name in model._modules if name in found]


class _Hook:
    """A forward hook that looks the live module up when it is called.

    A hook that held the module itself would go on using the one that PEFT has copied and set aside. The reference to
    the model is weak, so that embedding -> hook -> model -> embedding is no cycle that keeps GPU memory until a
    collection.
    """

    role: Role

    def __init__(self, model: nn.Module, surgery: RowSurgery) -> None:
        self._model = weakref.ref(model)
        self.surgery = surgery

    def model(self) -> nn.Module:
        model = self._model()
        if model is None:
            raise RuntimeError(
                f"the model that holds {self.surgery.name} is gone, but its embedding or head is still in use: keep a "
                "reference to the whole model, or merge before taking it apart"
            )
        return model

    # A compiled model calls it as it is: torch.compile cannot follow how an attrs class is filled.
    @torch.compiler.disable
    def __call__(self, _module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        name, base = self.surgery.name, unwrapped(self.model())
        wrapper: Any = base._modules.get(name)
        by_sample = copies_by_sample(wrapper) if hasattr(wrapper, "original_module") else None
        if by_sample is None:
            return self.add(output, args[0], self.added(live_module(base, name)))
        result = output.clone()
        for samples, module in by_sample:
            result[samples] = self.add(output[samples], args[0][samples], self.added(module))
        return result

    def add(self, output: Tensor, given: Tensor, added: AddedRows) -> Tensor:
        """`output` of the embedding or the head, which was `given` this, with the rows."""
        raise NotImplementedError

    def added(self, module: nn.Module) -> AddedRows:
        added = rows_of(self.surgery, module, self.role)
        if added is None:
            raise RuntimeError(f"{self.surgery.name}: the rows for the {self.role} have become None; bind it again")
        return added

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        # In a copy of the whole model the hook belongs to the copy; a copy of the embedding alone shares the model.
        return type(self)(memo.get(id(self.model()), self.model()), self.surgery)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model(), self.surgery)


class _EmbeddingHook(_Hook):
    role = "embedding"
    _order: tuple[Tensor, tuple[Tensor, Tensor]] | None = None

    def add(self, output: Tensor, given: Tensor, added: AddedRows) -> Tensor:
        scale = embedding_scale(unwrapped(self.model()).get_input_embeddings())
        if scale is not None:
            added = AddedRows(ids=added.ids, rows=added.rows * scale.to(added.rows.dtype))
        if self._order is None or self._order[0] is not added.ids:
            self._order = (added.ids, in_order(added.ids))
        return add_to_embeddings(output, given, added, self._order[1])


class _HeadHook(_Hook):
    """Skips an output whose last dimension is not the head's number of rows.

    Whoever replaces `lm_head.forward` to compute a loss from the hidden states returns something that is not logits,
    and adds the rows itself (`loss_in_forward`).
    """

    role = "head"

    def __call__(self, module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if output.dim() == 0 or output.shape[-1] != module.weight.shape[0]:
            return output
        with_rows: Tensor = super().__call__(module, args, output)
        return with_rows

    def add(self, output: Tensor, given: Tensor, added: AddedRows) -> Tensor:
        return add_to_logits(output, given, added)


def bind_hooks(model: nn.Module, matrices: Matrices, surgery: RowSurgery, roles: list[Role]) -> None:
    """Let the rows of a surgery act on the matrices that `model` uses now, in place of all its hooks in `model`."""
    remove_hooks(model, surgery.name)
    for role in roles:
        hook = _EmbeddingHook(model, surgery) if role == "embedding" else _HeadHook(model, surgery)
        matrices.module(role).register_forward_hook(hook)
        fetched_with(matrices.module(role), live_module(model, surgery.name).parameters())


def remove_hooks(model: nn.Module, name: str) -> None:
    """Remove the hooks of the surgery `name` from every submodule of `model`."""
    for module in model.modules():
        ours = [
            key for key, hook in module._forward_hooks.items() if isinstance(hook, _Hook) and hook.surgery.name == name
        ]
        for key in ours:
            del module._forward_hooks[key]
