"""The data builder `mixture`: the examples of several builders as those of one. Torch-free."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import attrs

from coordcore import BuildContext, Example, InputError
from coordcore.protocols import DataBuilder, ExampleSource
from coordcore.tasks import TASKS
from coordcore_mixture.amounts import amounts
from coordcore_mixture.config import MixtureConfig, Source
from coordcore_mixture.order import place, shuffled


@attrs.frozen(kw_only=True)
class NamedExamples:
    """The examples of a source, each with its name: as its group, and in front of its place."""

    name: str
    source: ExampleSource
    max_pixels: int | None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int, /) -> Example:
        return self._named(self.source[index])

    def in_epoch(self, epoch: int, index: int) -> Example:
        """As the source has it in that epoch of its own."""
        source: Any = self.source
        return self._named(source.in_epoch(epoch, index)) if hasattr(source, "in_epoch") else self[index]

    def length(self, epoch: int, index: int) -> tuple[int, list[tuple[int, int]]]:
        """As of the source, in that epoch of its own."""
        source: Any = self.source
        tokens, sizes = source.length(epoch, index)
        return tokens, [_at_most(size, self.max_pixels) for size in sizes]

    def _named(self, example: Example) -> Example:
        least = [size for size in (self.max_pixels, example.max_pixels) if size is not None]
        return attrs.evolve(
            example,
            source=f"{self.name}: {example.where}",
            group=self.name,
            max_pixels=min(least, default=None),
        )


def _at_most(size: tuple[int, int], pixels: int | None) -> tuple[int, int]:
    """About what an image of `size` is reduced to."""
    width, height = size
    factor = 1.0 if pixels is None else min(1.0, (pixels / (width * height)) ** 0.5)
    return max(1, int(width * factor)), max(1, int(height * factor))


@attrs.frozen(kw_only=True)
class MixedExamples:
    """The training examples of an epoch, source by source in their proportions.

    sources, counts: by name, in one order; counts are records in an epoch. seed: the run's.
    """

    sources: Mapping[str, NamedExamples]
    counts: Mapping[str, int]
    seed: int

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __getitem__(self, index: int, /) -> Example:
        source, _, which = self._place(0, index)
        return source[which]

    def in_epoch(self, epoch: int, index: int) -> Example:
        """A source of which an epoch takes a part goes on in the next where it was.

        Where a source's own examples differ from epoch to epoch, each pass over it is an epoch of its own.
        """
        source, own_epoch, which = self._place(epoch, index)
        return source.in_epoch(own_epoch, which)

    def length(self, epoch: int, index: int) -> tuple[int, list[tuple[int, int]]]:
        """As of its source, in that source's own epoch."""
        source, own_epoch, which = self._place(epoch, index)
        return source.length(own_epoch, which)

    def _place(self, epoch: int, index: int) -> tuple[NamedExamples, int, int]:
        """The source, its own epoch and the example in it."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        number, drawn = place(index, [*self.counts.values()])
        name = [*self.counts][number]
        source = self.sources[name]
        number = epoch * self.counts[name] + drawn
        which = shuffled(number, len(source), f"{self.seed} {name}")
        return source, number // len(source), which


@attrs.frozen(kw_only=True, slots=False)
class OneAfterAnother:
    """The validation examples of several sources, by name."""

    sources: Mapping[str, NamedExamples]

    @cached_property
    def ends(self) -> list[int]:
        """How many examples there are up to the end of each source."""
        return list(accumulate(map(len, self.sources.values())))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int, /) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        number = bisect_right(self.ends, index)
        source = [*self.sources.values()][number]
        return source[index - self.ends[number] + len(source)]


@attrs.frozen(kw_only=True)
class Mixture:
    """The data builder `mixture`. settings, builders: of each source, by name."""

    settings: Mapping[str, Source]
    builders: Mapping[str, DataBuilder]
    seed: int

    @classmethod
    def open(cls, config: MixtureConfig, context: BuildContext) -> Mixture:
        """Build every source. Raises InputError, with its name, for what a builder refuses."""
        builders = {}
        for name, source in config.sources.items():
            try:
                builders[name] = source.chosen.component.build(source.settings, context)
            except InputError as error:
                raise InputError(f"sources.{name}: {error}") from error
        return cls(settings=config.sources, builders=builders, seed=context.seed)

    @property
    def groups(self) -> Sequence[str]:
        """The sources, which metrics tell apart."""
        return list(self.settings)

    @property
    def prompts(self) -> Mapping[str, str] | None:
        """By task, the first prompt of a source that is not the usual one, else that; None where no source has tasks.

        What the very first example asks, where its source has no tasks, is the prompt of "detect".
        """
        said = {name: getattr(builder, "prompts", None) for name, builder in self.builders.items()}
        if not any(said.values()):
            return None
        first = None if all(said.values()) else self.train()[0]
        found: dict[str, str] = {}
        if first is not None and not said[first.group]:
            found["detect"] = str(first.messages[-2]["content"]).replace("<image>", "")
        for prompts in said.values():
            for task, prompt in (prompts or {}).items():
                if found.get(task, TASKS[task].prompt) == TASKS[task].prompt:
                    found[task] = prompt
        return found

    def train(self) -> ExampleSource:
        """The training examples. Raises InputError for a source that cannot give what it is asked for."""
        sources = {name: self._named(name, builder.train()) for name, builder in self.builders.items()}
        counts = amounts(self.settings, {name: len(source) for name, source in sources.items()})
        return MixedExamples(sources=sources, counts=counts, seed=self.seed)

    def validation(self) -> ExampleSource | None:
        """The held-out examples of every source that has some, one source after another."""
        found = {name: builder.validation() for name, builder in self.builders.items()}
        held = {name: self._named(name, source) for name, source in found.items() if source is not None and len(source)}
        return OneAfterAnother(sources=held) if held else None

    def _named(self, name: str, source: ExampleSource) -> NamedExamples:
        return NamedExamples(name=name, source=source, max_pixels=self.settings[name].max_pixels)
