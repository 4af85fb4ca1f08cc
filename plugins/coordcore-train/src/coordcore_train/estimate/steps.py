"""Tokens and steps: how long the examples are, how many there are, and what batches they make. Torch-free to import."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from coordcore import kinds
from coordcore.errors import InputError
from coordcore.manifest.sections import Train

if TYPE_CHECKING:
    from coordcore_train.engine import Encoder
    from coordcore_train.run.plan import Plan

_SAMPLE = 24  # examples that are encoded, images and all


@attrs.frozen(kw_only=True)
class Examples:
    """count: of an epoch, None where unknown. mean, longest: tokens of one. sampled: how many were encoded."""

    count: int | None
    mean: float
    longest: int
    sampled: int


@attrs.frozen(kw_only=True)
class Steps:
    """What comes out. epochs, per_epoch: None where the number of examples is unknown; steps: where it decides."""

    examples: int
    tokens: float
    per_epoch: int | None
    steps: int | None
    epochs: float | None


def sampled(plan: Plan, encoder: Encoder, *, count: int | None) -> Examples:
    """Encode some of the run's examples, from all over them, as training does.

    count: the examples of an epoch, where the user says so. Raises InputError, with the cure, where that fails.
    """
    [data] = plan.manifest.of(kinds.DATA)
    cure = "or give --tokens-per-example and --examples"
    try:
        source = plan.data.train()
        number = len(source)
        if not number:
            raise InputError("gave no training example")
        places = sorted({number * part // _SAMPLE for part in range(_SAMPLE)})
        lengths = [len(encoder.encode(source[place]).ids) for place in places]
    except InputError as error:
        raise InputError(f"{data.path}: {str(error).removeprefix(f'{data.path}: ')}; mend it, {cure}") from error
    return Examples(count=count or number, mean=sum(lengths) / len(lengths), longest=max(lengths), sampled=len(lengths))


def steps_of(train: Train, examples: Examples, *, gpus: int) -> Steps:
    """As transformers' Trainer counts them: what is left of an epoch is a step of its own."""
    at_once = gpus * train.batch_size * train.accumulation
    per_epoch = None
    if examples.count is not None:
        batches = math.ceil(math.ceil(examples.count / gpus) / train.batch_size)
        per_epoch = max(1, math.ceil(batches / train.accumulation))
    steps = train.steps
    if steps is None and per_epoch is not None:
        steps = math.ceil(train.epochs * per_epoch)
    epochs = None if steps is None or per_epoch is None else steps / per_epoch
    return Steps(examples=at_once, tokens=at_once * examples.mean, per_epoch=per_epoch, steps=steps, epochs=epochs)
