"""How much memory an optimizer keeps for each trainable tensor: a table by transformers' names. Torch-free.

bitsandbytes' and torchao's figures are from their sources: blocks of 256 (128 for 4 bit) share a float32 scale, and
tensors below 4,096 numbers stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs

from coordcore.errors import InputError, did_you_mean

_SMALL = 4096
_FLOAT32 = 4


@attrs.frozen(kw_only=True)
class Trained:
    """A trainable tensor. size: bytes of one of its numbers."""

    shape: tuple[int, ...]
    size: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.count * self.size


State = Callable[[Trained], int]
"""Bytes that are kept for a tensor."""


def _like(copies: int, *, step: int = 0) -> State:
    """Copies in the tensor's own dtype. step: bytes of a counter."""
    return lambda tensor: copies * tensor.bytes + step


def _float32(copies: int) -> State:
    return lambda tensor: copies * tensor.count * _FLOAT32


def _blocks(copies: int, bits: int, block: int) -> State:
    """Copies of `bits` a number, with a float32 for each block; small tensors in float32."""

    def state(tensor: Trained) -> int:
        if tensor.count < _SMALL:
            return copies * tensor.count * _FLOAT32
        return copies * (tensor.count * bits // 8 + -(-tensor.count // block) * _FLOAT32)

    return state


def _adafactor(tensor: Trained) -> int:
    """Shazeer & Stern 2018, section 3: sums of rows and of columns in the place of a matrix, and the root mean square
    of the tensor; float32."""
    if len(tensor.shape) < 2:
        return (tensor.count + 1) * _FLOAT32
    *front, rows, columns = tensor.shape
    return (math.prod(front) * (rows + columns) + 1) * _FLOAT32


def _none(_tensor: Trained) -> int:
    return 0


_ADAMW = _like(2, step=4)

STATES: dict[str, State] = {
    "adamw_torch": _ADAMW,
    "adamw_torch_fused": _ADAMW,
    "adamw_bnb_8bit": _blocks(2, 8, 256),
    "adamw_8bit": _blocks(2, 8, 256),
    "paged_adamw_8bit": _blocks(2, 8, 256),
    "paged_adamw_32bit": _float32(2),
    "adamw_torch_8bit": _blocks(2, 8, 256),
    "adamw_torch_4bit": _blocks(2, 4, 128),
    "ademamix": _float32(3),
    "ademamix_8bit": _blocks(3, 8, 256),
    "paged_ademamix_32bit": _float32(3),
    "paged_ademamix_8bit": _blocks(3, 8, 256),
    "lion_32bit": _float32(1),
    "lion_8bit": _blocks(1, 8, 256),
    "paged_lion_32bit": _float32(1),
    "paged_lion_8bit": _blocks(1, 8, 256),
    "rmsprop": _like(1, step=4),
    "rmsprop_bnb": _float32(1),
    "rmsprop_bnb_8bit": _blocks(1, 8, 256),
    "rmsprop_bnb_32bit": _float32(1),
    "adagrad": _like(1, step=4),
    "sgd": _none,
    "adafactor": _adafactor,
}
"""transformers' name of an optimizer -> what it keeps for a tensor."""


def state_of(optim: str) -> State:
    """What an optimizer keeps. Raises InputError for one that is not in the table."""
    if optim not in STATES:
        raise InputError(
            f"train.optim: no figures are known for the memory of {optim!r}; {did_you_mean(optim, sorted(STATES))}"
        )
    return STATES[optim]


def state_bytes(state: State, tensors: Sequence[Trained]) -> int:
    """Bytes kept for all of them."""
    return sum(map(state, tensors))


def flat(tensors: Sequence[Trained], ranks: int) -> Trained:
    """A rank's part of all tensors in one row of float32, as DeepSpeed hands them to an optimizer."""
    return Trained(shape=(-(-sum(tensor.count for tensor in tensors) // ranks),), size=_FLOAT32)
