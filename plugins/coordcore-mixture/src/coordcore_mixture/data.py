"""The data builder `mixture`: the examples of several builders as those of one. Torch-free."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from itertools import accumulate

import attrs

from coordcore import BuildContext, Example, InputError
from coordcore.protocols import DataBuilder, ExampleSource
from coordcore_mixture.amounts import amounts
from coordcore_mixture.config import MixtureConfig, Source
from coordcore_mixture.order import place, shuffled


def _named(name: str, example: Example) -> Example:
    """`example`, whose place begins with the source's name."""
    return attrs.evolve(example, source=f"{name}: {example.where}")


@attrs.frozen(kw_only=True)
class MixedExamples:
    """The training examples of an epoch, source by source in their proportions.

    sources, counts: by name, in one order; counts are records in an epoch. seed: the run's.
    """

    sources: Mapping[str, ExampleSource]
    counts: Mapping[str, int]
    seed: int

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __getitem__(self, index: int, /) -> Example:
        return self.in_epoch(0, index)

    def in_epoch(self, epoch: int, index: int) -> Example:
        """A source of which an epoch takes a part goes on in the next where it was."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        number, drawn = place(index, [*self.counts.values()])
        name = [*self.counts][number]
        source = self.sources[name]
        taken = epoch * self.counts[name] + drawn
        which = shuffled(taken, len(source), f"{self.seed} {name}")
        # To a source whose examples differ from epoch to epoch, each pass over it is one.
        by_pass = getattr(source, "in_epoch", None)
        return _named(name, source[which] if by_pass is None else by_pass(taken // len(source), which))


@attrs.frozen(kw_only=True, slots=False)
class OneAfterAnother:
    """The validation examples of several sources, by name."""

    sources: Mapping[str, ExampleSource]

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
        name, source = [*self.sources.items()][number]
        return _named(name, source[index - self.ends[number] + len(source)])


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

    def train(self) -> ExampleSource:
        """The training examples. Raises InputError for a source that cannot give what it is asked for."""
        sources = {name: builder.train() for name, builder in self.builders.items()}
        counts = amounts(self.settings, {name: len(source) for name, source in sources.items()})
        return MixedExamples(sources=sources, counts=counts, seed=self.seed)

    def validation(self) -> ExampleSource | None:
        """The held-out examples of every source that has some, one source after another."""
        found = {name: builder.validation() for name, builder in self.builders.items()}
        held = {name: source for name, source in found.items() if source is not None and len(source)}
        return OneAfterAnother(sources=held) if held else None
