"""The order of an epoch in which the examples of a step are about as long as each other. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from random import Random
from typing import Any

import attrs

from coordcore.errors import RunError

STEPS = 50
"""Steps whose examples are sorted together, at most. As many as in transformers' `LengthGroupedSampler`."""


@attrs.frozen(kw_only=True)
class Lengths:
    """About how many tokens the examples of a source have, as the source says by its `length`.

    area: pixels of a visual token; None for a processor that does not cut images into patches, whose images count
    alike. least, most: visual tokens of an image. max_pixels: to which images are reduced first.
    """

    source: Any
    area: int | None = None
    least: float = 0
    most: float = math.inf
    max_pixels: int | None = None

    def __call__(self, epoch: int, index: int) -> float:
        """Raises RunError where the source gives no length: in no order, examples would be in another on each rank."""
        told = self.source.length(epoch, index)
        try:
            text, sizes = told
            length = float(text + sum(self._visual(width * height) for width, height in sizes))
        except (TypeError, ValueError, OverflowError):
            length = math.nan
        if not 0 <= length < math.inf:
            raise RunError(
                f"train.group_by_length: {type(self.source).__name__}.length({epoch}, {index}) gave {told!r}, where "
                "a number of tokens and the (width, height) of each image belong; tell its authors, or leave "
                "group_by_length out"
            )
        return length

    def _visual(self, pixels: int) -> float:
        if self.area is None:
            return 0.0
        return max(self.least, min(self.most, min(pixels, self.max_pixels or pixels) / self.area))


@attrs.frozen(kw_only=True)
class Grouping:
    """How examples are put together. step: examples in a step, over all of its micro-batches and ranks.

    The steps are those of one rank and one micro-batch, however the examples of a step are dealt out.
    """

    length: Callable[[int, int], float]
    step: int

    def ordered(self, order: Iterable[int], count: int, epoch: int, *, key: str, skip: int = 0) -> Iterator[int]:
        """The `count` examples of `order`, which is shuffled: those of `STEPS` steps sorted, and these steps shuffled.

        What is over a multiple of `step` ends the epoch. The same for the same order, key and lengths. skip: examples
        that are not trained again, of which whole blocks are not measured.
        """
        length = partial(self.length, epoch)
        remaining = iter(order)
        whole = count // self.step * self.step
        # Of few examples less steps are sorted together, so that they are not the same ones in every epoch.
        block = self.step * max(1, min(STEPS, count // (4 * self.step)))
        for first in range(0, whole, block):
            examples = [*islice(remaining, min(block, whole - first))]
            if first + block <= skip:
                yield from examples
                continue
            examples.sort(key=length)
            steps = [examples[start : start + self.step] for start in range(0, len(examples), self.step)]
            Random(f"{key} {first}").shuffle(steps)
            yield from chain.from_iterable(steps)
        yield from sorted(remaining, key=length)


def require_length(source: Any) -> None:
    """Raise RunError unless a source says how long its examples are, as its component promises."""
    if not callable(getattr(source, "length", None)):
        raise RunError(
            f"train.group_by_length: {type(source).__name__}, which the data builder returned, has no "
            "`length(epoch, index)`, though its component provides it; tell its authors, or leave group_by_length out"
        )
