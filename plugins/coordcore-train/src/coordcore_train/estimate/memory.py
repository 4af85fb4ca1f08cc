"""Memory per GPU for each way of sharding. Torch-free; every formula with its source in docs/explanation/memory.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

from coordcore_train.estimate.optimizers import State, Trained, flat, state_bytes

GIB = 2**30

Sharding = Literal["nothing", "zero1", "zero2", "zero3", "fsdp2"]
SHARDINGS: tuple[Sharding, ...] = ("nothing", "zero1", "zero2", "fsdp2", "zero3")
"""The least first. Of the two that shard all, FSDP2 needs no further package."""

CURES: dict[Sharding, str] = {
    "nothing": "leave launch.deepspeed and launch.fsdp out",
    "zero1": 'launch.deepspeed = "zero1"',
    "zero2": 'launch.deepspeed = "zero2"',
    "fsdp2": 'launch.fsdp = "fsdp2"',
    "zero3": 'launch.deepspeed = "zero3"',
}

_FLOAT32 = 4
_BUCKET = 200_000_000  # numbers of a gradient bucket, `reduce_bucket_size` of ms-swift's zero1 and zero2
_LIVE = 1_000_000_000  # numbers gathered at a time, `stage3_max_live_parameters` of its zero3


@attrs.frozen(kw_only=True)
class Part:
    """A part of the model. parameters, trained: how many numbers. bytes, trained_bytes: of them as they are loaded."""

    name: str
    parameters: int
    trained: int
    bytes: int
    trained_bytes: int


@attrs.frozen(kw_only=True)
class ModelMemory:
    """What a model's memory depends on. trained: the tensors that train. size: bytes of a number in `[model] dtype`.

    layer: numbers of its largest layer. rest: numbers beside the layers.
    """

    parts: tuple[Part, ...]
    trained: tuple[Trained, ...]
    size: int
    layer: int
    rest: int

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def trained_parameters(self) -> int:
        return sum(part.trained for part in self.parts)

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)

    @property
    def trained_bytes(self) -> int:
        return sum(part.trained_bytes for part in self.parts)


@attrs.frozen(kw_only=True)
class StepMemory:
    """Bytes of a micro-batch, which no sharding makes smaller.

    activations: kept until the backward pass. again: of a layer that is run again in it. objective: kept and working.
    """

    activations: int
    again: int
    objective: int


@attrs.frozen(kw_only=True)
class GpuMemory:
    """Bytes on one GPU. communication: buckets, and weights gathered from other ranks."""

    sharding: Sharding
    weights: int
    gradients: int
    optimizer: int
    communication: int
    activations: int
    objective: int
    reserve: int

    @property
    def total(self) -> int:
        return sum(value for value in attrs.asdict(self).values() if isinstance(value, int))


def gpu_memory(model: ModelMemory, state: State, step: StepMemory, *, gpus: int, reserve: int) -> list[GpuMemory]:
    """For each way of sharding, the least first."""
    ways: Sequence[Sharding] = SHARDINGS if gpus > 1 else SHARDINGS[:1]
    return [_of(way, model, state, step, gpus, reserve) for way in ways]


def _of(way: Sharding, model: ModelMemory, state: State, step: StepMemory, gpus: int, reserve: int) -> GpuMemory:
    share = {"nothing": _replicated, "fsdp2": _fsdp2}.get(way, _deepspeed)
    weights, gradients, optimizer, communication = share(way, model, state, gpus)
    return GpuMemory(
        sharding=way,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        communication=communication,
        activations=step.activations + step.again,
        objective=step.objective,
        reserve=reserve,
    )


def _replicated(_way: Sharding, model: ModelMemory, state: State, gpus: int) -> tuple[int, int, int, int]:
    # DDP reduces gradients in buckets, a copy of them: `gradient_as_bucket_view` is off in transformers' Trainer.
    buckets = model.trained_bytes if gpus > 1 else 0
    return model.bytes, model.trained_bytes, state_bytes(state, model.trained), buckets


def _deepspeed(way: Sharding, model: ModelMemory, state: State, gpus: int) -> tuple[int, int, int, int]:
    """Rajbhandari et al. 2020, "ZeRO", section 3.1 and figure 1. The engine casts all weights to the run's dtype."""
    numbers, trained, size = model.parameters, model.trained_parameters, model.size
    part = flat(model.trained, gpus)
    optimizer = part.bytes + state(part)  # the master weights in float32, and the states
    weights, gradients = numbers * size, trained * size
    bucket = min(trained, _BUCKET) * size
    if way == "zero2":
        gradients = -(-gradients // gpus)
    elif way == "zero3":
        gradients = -(-gradients // gpus)
        bucket += min(numbers, _LIVE) * size
        weights = -(-weights // gpus)
    return weights, gradients, optimizer, bucket


def _fsdp2(_way: Sharding, model: ModelMemory, state: State, gpus: int) -> tuple[int, int, int, int]:
    """torch's `fully_shard` by layer. accelerate casts what trains to float32 under mixed precision (`fsdp_utils`)."""
    float32 = [attrs.evolve(tensor, size=_FLOAT32) for tensor in model.trained]
    trained = sum(tensor.bytes for tensor in float32)
    frozen = model.bytes - model.trained_bytes
    shards = [attrs.evolve(tensor, shape=_first_part(tensor.shape, gpus)) for tensor in float32]
    # What is in no layer stays gathered; of the layers, one computes while the next is fetched, with their gradients.
    gathered = (model.rest + 2 * model.layer) * model.size
    by_layer = min(2 * model.layer, model.trained_parameters) * model.size
    return -(-(frozen + trained) // gpus), -(-trained // gpus), state_bytes(state, shards), gathered + by_layer


def _first_part(shape: tuple[int, ...], ranks: int) -> tuple[int, ...]:
    """The largest part of a tensor that is cut along its first dimension."""
    return (-(-shape[0] // ranks), *shape[1:]) if shape else shape
