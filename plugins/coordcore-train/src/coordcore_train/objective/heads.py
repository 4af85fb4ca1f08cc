"""How the objective sees an output head: a plain linear one by its weight, any other one by calling it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import attrs
import torch
from torch import Tensor, nn

from coordcore.protocols import AddedRows
from coordcore_train.objective.streaming import VocabularyStream, accumulating, add_product


class Head(Protocol):
    """How hidden states [n, H] become logits, and the tensors that take part and may be trainable."""

    @property
    def offset(self) -> AddedRows | None: ...

    @property
    def parameters(self) -> Sequence[Tensor]: ...

    def full(self, hidden: Tensor) -> Tensor:
        """[n, V] float32, differentiable."""
        ...


def _add_offset(logits: Tensor, hidden: Tensor, offset: AddedRows | None) -> Tensor:
    if offset is None:
        return logits
    return logits.index_add(-1, offset.ids, (hidden.to(logits.dtype) @ offset.rows.to(logits.dtype).T))


class _Logits(torch.autograd.Function):
    """`hidden @ weight.T` in float32 also for half-precision operands, whose plain product is rounded to 8 or 11 bits.

    Block by block, because a block of the weight may have to be converted for that.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor) -> Tensor:  # type: ignore[no-untyped-def]  # ctx is torch's
        ctx.save_for_backward(hidden, weight)
        logits = hidden.new_empty(len(hidden), len(weight), dtype=accumulating(hidden.dtype, weight.dtype))
        for block in VocabularyStream(weight=weight).blocks(hidden.dtype, len(hidden)):
            logits[:, block.rows] = block.logits(hidden)
        return logits

    @staticmethod
    def backward(ctx, by_logit: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[no-untyped-def]  # ctx is torch's
        hidden, weight = ctx.saved_tensors
        by_hidden = torch.zeros_like(hidden, dtype=by_logit.dtype)
        by_weight = torch.zeros_like(weight, dtype=by_logit.dtype) if ctx.needs_input_grad[1] else None
        for block in VocabularyStream(weight=weight).blocks(hidden.dtype, len(hidden)):
            part = by_logit[:, block.rows]
            add_product(by_hidden, part, block.weight)
            if by_weight is not None:
                add_product(by_weight[block.rows], part.T, hidden)
        return by_hidden.to(hidden.dtype), None if by_weight is None else by_weight.to(weight.dtype)


@attrs.frozen
class LinearHead:
    """A plain `nn.Linear` head, its weight read at call time (FSDP and ZeRO gather it only then)."""

    module: nn.Linear
    offset: AddedRows | None = None

    @property
    def parameters(self) -> list[Tensor]:
        own = [self.module.weight, *([] if self.module.bias is None else [self.module.bias])]
        return own if self.offset is None else [*own, self.offset.rows]

    def full(self, hidden: Tensor) -> Tensor:
        logits: Tensor = _Logits.apply(hidden, self.module.weight)
        if self.module.bias is not None:
            logits = logits + self.module.bias
        return _add_offset(logits, hidden, self.offset)


@attrs.frozen
class CallableHead:
    """Any other head (LoRA on it, quantised, replaced): called whole.

    trained: the trainable tensors that `project` reads. When None, those of the module that `project` is, or is a
    method of. The objective raises RunError when `project` reads others.
    """

    project: Callable[[Tensor], Tensor]
    offset: AddedRows | None = None
    trained: Sequence[Tensor] | None = None

    @property
    def parameters(self) -> list[Tensor]:
        owner = getattr(self.project, "__self__", self.project)
        own = self.trained if self.trained is not None else owner.parameters() if isinstance(owner, nn.Module) else ()
        rows = [] if self.offset is None else [self.offset.rows]
        # Each once: the module may own the offset's rows too. A tensor that came twice would be trained twice as fast.
        distinct = {id(tensor): tensor for tensor in own if not any(tensor is row for row in rows)}
        return [*distinct.values(), *rows]

    def full(self, hidden: Tensor) -> Tensor:
        logits = self.project(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            return _add_offset(logits.to(accumulating(logits.dtype)), hidden, self.offset)
