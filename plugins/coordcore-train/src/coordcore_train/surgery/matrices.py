"""The input embedding and output head of a model, and what makes them unfit for rows to be added. Imports torch."""

from __future__ import annotations

from typing import Any, Literal

import attrs
import torch
from torch import Tensor, nn

from coordcore.errors import InputError
from coordcore.protocols import AddedRows

Role = Literal["embedding", "head"]
ROLES: tuple[Role, ...] = ("embedding", "head")

_SCALES = ("scalar_embed_scale", "embed_scale")
"""Attributes of the embeddings in transformers that multiply what they look up (Gemma and its kin): plain, tensor."""

_NAMES = {"embedding": "the input embedding", "head": "the output head"}


@attrs.frozen
class Matrices:
    """The two modules whose weights rows are added to; one weight when the model ties them.

    The embedding may multiply what it looks up by one number (`embedding_scale`); nothing else stands between either
    weight and what its module gives.
    """

    embedding: nn.Embedding
    head: nn.Linear

    @property
    def tied(self) -> bool:
        return self.head.weight is self.embedding.weight

    def module(self, role: Role) -> nn.Embedding | nn.Linear:
        return self.embedding if role == "embedding" else self.head


def unwrapped(model: nn.Module) -> Any:
    """The transformers model inside a `PeftModel`, or `model` itself."""
    inner = getattr(model, "get_base_model", None)
    return model if inner is None else inner()


def matrices_of(model: Any) -> Matrices:
    """The matrices of an unwrapped model. Raises InputError when rows cannot be merged into one of them."""
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise InputError(
            f"{type(model).__name__} is an encoder-decoder: encoder and decoder share one embedding and scale it or "
            "its logits in ways of their own, so that added rows would not be what is merged; use a decoder-only model"
        )
    return Matrices(
        _plain(_asked(model, "get_input_embeddings", "embedding"), nn.Embedding, _NAMES["embedding"]),
        _plain(_asked(model, "get_output_embeddings", "head"), nn.Linear, _NAMES["head"]),
    )


def embedding_scale(embedding: nn.Module) -> Tensor | None:
    """What `embedding` multiplies each row by, in the dtype of its weight; None for one that gives them as they are."""
    scale = next((value for name in _SCALES if (value := getattr(embedding, name, None)) is not None), None)
    weight: Any = embedding.weight
    if type(embedding).forward is nn.Embedding.forward:
        return None  # whatever it is called, it is not multiplied with
    if scale is None or isinstance(scale, Tensor):
        return None if scale is None else scale.to(weight.dtype)
    return torch.tensor(scale, dtype=weight.dtype, device="cpu")  # a number, which goes with tensors of every device


def _asked(model: Any, method: str, role: Role) -> nn.Module:
    """What the model calls its embedding or head. Raises InputError when it knows none."""
    try:
        found = getattr(model, method)()
    except (AttributeError, NotImplementedError) as error:
        raise InputError(
            f"{type(model).__name__} does not say which module is {_NAMES[role]} ({method}() is missing); give it that "
            "method, or load it with a transformers class for generation (AutoModelForImageTextToText, ...ForCausalLM)"
        ) from error
    if found is None:
        raise InputError(
            f"{type(model).__name__}.{method}() is None: it has no {_NAMES[role].removeprefix('the ')} to add rows "
            "to; load it with a transformers class for generation (AutoModelForImageTextToText, ...ForCausalLM)"
        )
    return found


def _plain(module: nn.Module, expected: type[Any], role: str) -> Any:
    found = f"{role} is a {type(module).__module__}.{type(module).__name__}"
    if type(module).__module__.partition(".")[0] in ("peft", "swift"):
        raise InputError(
            f"{found}: PEFT would train its rows beside those that a surgery adds; take it out of target_modules, "
            "modules_to_save and trainable_token_indices"
        )
    # A subclass with a forward of its own stores its rows in another way than the merge assumes, or scales them.
    if not isinstance(module, expected) or not (type(module).forward is expected.forward or _only_scales(module)):
        raise InputError(
            f"{found}: rows are added to a torch.nn.{expected.__name__} that gives its rows as they are, or times one "
            "number; load the base without quantising it (bitsandbytes: llm_int8_skip_modules)"
        )
    weight: Tensor = module.weight
    if weight.numel() == 0:
        raise InputError(
            f"{role} is in parts (DeepSpeed ZeRO-3); work on it within coordcore_train.surgery.zero3.whole(model), on "
            "every rank"
        )
    if not weight.is_floating_point():
        raise InputError(f"{role} is quantised ({weight.dtype}); load the base without quantising it")
    return module


@torch.no_grad()
def _only_scales(module: nn.Module) -> bool:
    """Whether an embedding gives the rows of its weight times `embedding_scale`. Looked at with a hundred tokens.

    One without values, of a model's skeleton or in parts, is taken at its word.
    """
    scale = embedding_scale(module)
    if scale is None or scale.numel() != 1 or not isinstance(module, nn.Embedding):
        return False
    weight = module.weight
    if weight.is_meta or weight.numel() == 0 or any(buffer.is_meta for buffer in module.buffers()):
        return True
    ids = torch.linspace(0, len(weight) - 1, min(len(weight), 100), device=weight.device).long()
    return torch.allclose(type(module).forward(module, ids).float(), (weight[ids] * scale).float(), rtol=1e-2, atol=0)


def require_fitting(name: str, role: Role, added: AddedRows, model: Any) -> None:
    """Raise InputError unless `added` are rows of the matrix `role` of `model`, with distinct ids, and zero."""
    where = f"{name}: the rows for {_NAMES[role]}"
    if not isinstance(added, AddedRows):
        raise InputError(
            f"{where} must be coordcore.protocols.AddedRows(ids=..., rows=...), got {type(added).__name__}"
        )
    for what, tensor, kind in (("ids", added.ids, "int64"), ("rows", added.rows, "floating-point")):
        if not isinstance(tensor, Tensor):
            raise InputError(f"{where}: {what} must be a tensor, got {type(tensor).__name__}")
        if not (tensor.dtype == torch.int64 if what == "ids" else tensor.is_floating_point()):
            cure = "make it with .long()" if what == "ids" else "best float32"
            raise InputError(f"{where}: {what} must be {kind}, got {tensor.dtype}; {cure}")
    weight = matrices_of(model).module(role).weight
    if added.ids.dim() != 1:
        raise InputError(f"{where}: ids must have one dimension, an id for each row, got {tuple(added.ids.shape)}")
    ids = added.ids.tolist()
    if not ids or len(set(ids)) < len(ids):
        raise InputError(f"{where} must have distinct ids, got {len(ids)} of which {len(set(ids))} distinct")
    configured = model.config.get_text_config().vocab_size
    outside = [id_ for id_ in ids if not 0 <= id_ < min(len(weight), configured)]
    if outside:
        raise InputError(
            f"{where}: id {outside[0]} lies outside the vocabulary ({len(weight)} matrix rows, config.vocab_size "
            f"{configured}); expand the checkpoint (coordcore expand) or use the tokenizer that belongs to it"
        )
    if added.rows.shape != (len(ids), weight.shape[1]):
        raise InputError(
            f"{where} have shape {tuple(added.rows.shape)}, expected {(len(ids), weight.shape[1])}: a row for each id"
        )
    for what, tensor in (("ids", added.ids), ("rows", added.rows)):
        if tensor.device != weight.device:
            raise InputError(
                f"{where}: {what} are on {tensor.device}, the matrix on {weight.device}; make them from the module's "
                "parameters and buffers (register_buffer), which move with it"
            )
    largest = float(added.rows.detach().abs().max())
    if largest != 0:
        raise InputError(
            f"{where} start with values up to {largest:.3g}; start at zero (one factor of a product is enough), so "
            "that training starts at the base"
        )


def untie(model: Any) -> None:
    """Declare in every config that the head is a matrix of its own, which it must be already.

    A loader that believes `tie_word_embeddings` would drop the head's own rows.
    """
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
