"""What autograd keeps of a training step, seen in a forward of the skeleton on tensors without memory. Imports torch.

No formula of a layer stands here. The model's own forward runs under torch's FakeTensorMode, on shapes alone, and
`torch.autograd.graph.saved_tensors_hooks` shows every tensor that is kept for the backward pass; each storage is
counted once, and the model's parameters not at all. Adapters, autocast's copies and any family's layers are in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import sdpa_mask
from transformers.modeling_layers import GradientCheckpointingLayer

EAGER = "eager"
ALONE, PADDED = "coordcore_kept", "coordcore_kept_padded"
"""The attention of a trace, by name: of examples of one length, and of a batch with a mask."""

REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, NotImplementedError)
"""What a model's own forward raises for inputs that it was not made for."""


class NotFollowedError(Exception):
    """A forward that cannot be run without weights: what it keeps can only be bounded."""


def not_followed(model: nn.Module, error: Exception) -> NotFollowedError:
    """`error`, which the forward of `model` raised, in a line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return NotFollowedError(f"the forward of a {type(model).__name__} cannot be followed without weights ({lines[0]})")


@attrs.frozen(kw_only=True)
class Activations:
    """Bytes that one forward keeps, of a batch.

    outside: beside the layers. layers: within each layer that gradient checkpointing can run again. inputs: of what
    each of these layers is called with, which is all that checkpointing keeps of it. hidden: in front of the head.
    """

    outside: int
    layers: tuple[int, ...]
    inputs: tuple[int, ...]
    hidden: int

    def kept(self, *, checkpointing: bool) -> int:
        """Until the backward pass begins."""
        return self.outside + (sum(self.inputs) if checkpointing else sum(self.layers))

    def plus(self, other: Activations) -> Activations:
        """Those of two parts of a model."""
        return Activations(
            outside=self.outside + other.outside,
            layers=self.layers + other.layers,
            inputs=self.inputs + other.inputs,
            hidden=self.hidden + other.hidden,
        )

    def again(self, *, checkpointing: bool) -> int:
        """In the backward pass, of the layer that has been run again."""
        return max(self.layers, default=0) if checkpointing else 0


class Watch:
    """Counts what autograd keeps: each storage once, those in `owned` not at all.

    layer: the one that is running. by_layer: bytes within each, None beside them.
    """

    def __init__(self, owned: set[int]) -> None:
        self.owned = owned
        self.layer: int | None = None
        self.by_layer: dict[int | None, int] = {}
        self._seen: dict[int, Tensor] = {}  # alive, so that no other storage gets its address

    def keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._seen and key not in self.owned:
            self._seen[key] = tensor
            self.by_layer[self.layer] = self.by_layer.get(self.layer, 0) + storage.nbytes()
        return tensor

    @property
    def total(self) -> int:
        return sum(self.by_layer.values())


def storages(model: nn.Module) -> set[int]:
    """Where the model's own tensors lie."""
    return {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}


def language_model(
    model: Any, *, batch: int, tokens: int, autocast: torch.dtype | None, eager: bool, padded: bool
) -> Activations:
    """What is kept of `batch` examples of `tokens` tokens each, from their embeddings to the output head.

    model: as it trains, perhaps wrapped by PEFT; its tensors need no memory. autocast: the dtype of mixed precision.
    eager: whether `[model] attention` is. padded: whether the examples have a mask, being of different lengths.
    Raises NotFollowedError for a model whose forward cannot be followed so.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), _on_fakes(model), ExitStack() as stack:
        stack.enter_context(attention(model, EAGER if eager else PADDED if padded else ALONE))
        base = getattr(model, "get_base_model", lambda: model)()
        width = base.get_input_embeddings().weight.shape[1]
        dtype = base.get_input_embeddings().weight.dtype
        embedded = torch.empty(batch, tokens, width, dtype=dtype).requires_grad_(True)
        given: dict[str, Any] = {"inputs_embeds": embedded, "use_cache": False}
        if padded:
            given["attention_mask"] = torch.ones(batch, tokens, dtype=torch.int64)
        watch = Watch(storages(model))
        inputs = stack.enter_context(layers(model, watch))
        hidden = stack.enter_context(_without_head(base))
        if autocast is not None:
            stack.enter_context(torch.autocast("cpu", dtype=autocast))
        was_training = model.training
        try:
            model.train()
            with torch.autograd.graph.saved_tensors_hooks(watch.keep, lambda tensor: tensor):
                model(**given)
        except REFUSALS as error:
            raise not_followed(base, error) from error
        finally:
            model.train(was_training)
    count = len(inputs)
    return Activations(
        outside=watch.by_layer.get(None, 0),
        layers=tuple(watch.by_layer.get(index, 0) for index in range(count)),
        inputs=tuple(inputs),
        hidden=sum(hidden),
    )


def bounded(parts: Iterable[nn.Module], *, rows: int, size: int, hidden: int, scores: int = 0) -> Activations:
    """More than what parts of a model keep of `rows` tokens or patches, where their forward cannot be followed.

    Three times what goes into each matrix and comes out of it: a layer keeps the inputs of its matrices, of its
    activations and of its norms, which are such; the rest is for copies in other dtypes. Of experts, eight are taken.
    size: bytes of a number. hidden: bytes in front of the head. scores: numbers of a mask, and of what eager attention
    makes, which each layer keeps beside.
    """
    outside, layers, inputs = 8 * hidden, list[int](), list[int]()  # the embeddings and the last norm
    for part in parts:
        within: set[int] = set()
        for module in part.modules():
            if isinstance(module, GradientCheckpointingLayer):
                matrices = {id(item): item for item in _matrices(module) if id(item) not in within}
                within |= matrices.keys()
                layers.append((3 * rows * sum(map(_sides, matrices.values())) + scores) * size)
                inputs.append(rows * size * min((item.shape[-1] for item in matrices.values()), default=0))
        beside = [item for item in _matrices(part) if id(item) not in within]
        outside += 3 * rows * size * sum(map(_sides, beside))
    return Activations(outside=outside, layers=tuple(layers), inputs=tuple(inputs), hidden=hidden)


def _matrices(module: nn.Module) -> list[Tensor]:
    """What of a module multiplies; a table of positions is looked up."""
    tables = {id(inner.weight) for inner in module.modules() if isinstance(inner, nn.Embedding)}
    return [item for item in module.parameters() if item.squeeze(0).ndim > 1 and id(item) not in tables]


def _sides(matrix: Tensor) -> int:
    """How many numbers go in and out for each row: of a convolution, by its kernel as a matrix."""
    if matrix.ndim > 3:
        return matrix.shape[0] + matrix[0].numel()
    experts = min(matrix.shape[0], 8) if matrix.ndim == 3 else 1
    return experts * (matrix.shape[-1] + matrix.shape[-2])


@contextmanager
def _on_fakes(model: nn.Module) -> Iterator[None]:
    """Within this context every parameter and buffer is a fake of its shape and dtype; one that is shared stays so."""
    fakes: dict[int, Tensor] = {}
    before: list[tuple[dict[str, Any], str, Tensor]] = []
    for module in model.modules():
        tables: list[Any] = [module._parameters, module._buffers]
        for table in tables:
            for name, tensor in table.items():
                if tensor is None:
                    continue
                before.append((table, name, tensor))
                fake = fakes.get(id(tensor))
                if fake is None:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    if isinstance(tensor, nn.Parameter):
                        fake = nn.Parameter(fake, requires_grad=tensor.requires_grad)
                    fakes[id(tensor)] = fake
                table[name] = fake
    try:
        yield
    finally:
        for table, name, tensor in before:
            table[name] = tensor


@contextmanager
def layers(model: nn.Module, watch: Watch) -> Iterator[list[int]]:
    """Within this context `watch` knows which layer runs; the list receives the bytes of each layer's inputs."""
    inputs: list[int] = []

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        watch.layer = len(inputs)
        streams = [value for value in args or kwargs.values() if isinstance(value, Tensor)]
        # The others, position embeddings and masks, are one tensor for all layers.
        inputs.append(streams[0].numel() * streams[0].element_size() if streams else 0)

    def leave(*_: Any) -> None:
        watch.layer = None

    hooks: list[Any] = []
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            hooks += [module.register_forward_pre_hook(enter, with_kwargs=True), module.register_forward_hook(leave)]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _without_head(base: Any) -> Iterator[list[int]]:
    """Within this context the output head gives a scalar, as the objective does; the list gets its input's bytes."""
    head, hidden = base.get_output_embeddings(), list[int]()
    before = head.__dict__.get("forward")

    def forward(states: Tensor) -> Tensor:
        hidden.append(states.numel() * states.element_size())
        return states.float().sum().view(1, 1, 1)

    head.forward = forward
    try:
        yield hidden
    finally:
        if before is None:
            del head.forward
        else:
            head.forward = before


# --- attention --------------------------------------------------------------------------------------------------------


@contextmanager
def attention(model: nn.Module, name: str) -> Iterator[None]:
    """Within this context every part of the model that has no eager attention uses that which is called `name`."""
    configs = {id(one): one for module in model.modules() if (one := getattr(module, "config", None)) is not None}
    found = [one for one in configs.values() if getattr(one, "_attn_implementation", None) not in (None, EAGER)]
    before = [one._attn_implementation for one in found]
    for config in found:
        config._attn_implementation = name
    try:
        yield
    finally:
        for config, kept in zip(found, before, strict=True):
            config._attn_implementation = kept


class _Kept(torch.autograd.Function):
    """Keeps what a fused attention keeps, and computes nothing: queries, keys, values, output, a log-sum-exp a row.

    Dao et al. 2022, "FlashAttention", algorithm 4; torch's `_scaled_dot_product_*` save the same, and the mask.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        batch, heads, tokens, _ = query.shape
        # Kernels write it as the next layer reads it, so that the two share one storage.
        output = query.new_empty(batch, tokens, heads, value.shape[-1]).transpose(1, 2)
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, sums, *([] if mask is None else [mask]))
        return output

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError("a trace has no backward pass")


def _kept_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    """An attention function of transformers. query: [B, heads, T, d]; returns [B, T, heads, d]."""
    dtype = query.dtype
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if attention_mask is not None:
        # transformers repeats shared heads where there is a mask (`use_gqa_in_sdpa`), and torch makes numbers of it.
        groups = query.shape[1] // key.shape[1]
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        attention_mask = attention_mask.to(dtype)
    output = _Kept.apply(query, key, value, attention_mask)
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(ALONE, _kept_attention)  # without a mask function transformers makes no mask
AttentionInterface.register(PADDED, _kept_attention)
AttentionMaskInterface.register(PADDED, sdpa_mask)
