"""The hook: the data component `mixture`, and what its sources' plugins check. Torch-free."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import attrs

from coordcore import COORD_TOKENS, BuildContext, Component, Problem, hookimpl, kinds
from coordcore.components import LENGTHS, PLAIN_NUMBERS, no_problem
from coordcore.manifest import Manifest
from coordcore_mixture.config import NAME, MixtureConfig, Source

if TYPE_CHECKING:
    from coordcore_mixture.data import Mixture

_log = logging.getLogger(__name__)


def _build(config: MixtureConfig, context: BuildContext) -> Mixture:
    from coordcore_mixture.data import Mixture

    return Mixture.open(config, context)


def _check(config: MixtureConfig, run: Manifest) -> Iterator[Problem]:
    """What the plugin of each source says of the run in which that is the only data."""
    _tell_limit(config, run.train.max_pixels)
    answers = {kind: _who_provides(config, kind) for kind in (COORD_TOKENS, PLAIN_NUMBERS)}
    if all(answers.values()):
        message = (
            f"the answers of {', '.join(answers[COORD_TOKENS])} hold coord tokens, those of "
            f"{', '.join(answers[PLAIN_NUMBERS])} plain numbers, and a model writes one or the other; set coord_tokens "
            "alike where the builder has it (chat_jsonl always writes coord tokens), or leave some out"
        )
        yield Problem(path=f"{kinds.DATA}.{NAME}.sources", message=message)
    for name, source in config.sources.items():
        if run.train.group_by_length and LENGTHS not in source.chosen.provides:
            message = (
                f"the examples of {source.builder} do not tell how long they are before they are made (it provides no "
                f"{LENGTHS!r}), and train.group_by_length asks them; leave that out, or set packing instead"
            )
            yield Problem(path=f"{kinds.DATA}.{NAME}.sources.{name}", message=message)
        for problem in source.hooks.check(_run_of(source, run)):
            yield _told(problem, name, source)


def _who_provides(config: MixtureConfig, capability: str) -> list[str]:
    """The sources whose builders provide it, with their builders: "talk (chat_jsonl)"."""
    providing = ((name, item) for name, item in config.sources.items() if capability in item.chosen.provides)
    return [f"{name} ({item.builder})" for name, item in providing]


def _tell_limit(config: MixtureConfig, limit: int | None) -> None:
    """A warning where training sees no image as large as the merged checkpoint will be shown."""
    limits = [source.max_pixels for source in config.sources.values()]
    largest = max(size or 0 for size in limits)
    if None not in limits and (limit is None or limit > largest):
        _log.warning(
            "%s.%s: no source has images of more than %d pixels, and the merged checkpoint would be shown up to %s; "
            "its limit is train.max_pixels: set that to %d",
            kinds.DATA,
            NAME,
            largest,
            "its processor's own limit" if limit is None else f"{limit} (train.max_pixels)",
            largest,
        )


def _run_of(source: Source, run: Manifest) -> Manifest:
    """`run` with one source as its data; the checks of its other components are not asked again, and what they require
    may come from another source."""
    others = [
        attrs.evolve(selected, component=attrs.evolve(selected.component, check=no_problem), requires=())
        for selected in run.selected
        if selected.kind != kinds.DATA
    ]
    return attrs.evolve(run, selected=(source.chosen, *others))


def _told(problem: Problem, name: str, source: Source) -> Problem:
    """What a plugin found in the section that its builder has in other runs, where this manifest has it; of something
    else, a file perhaps, with the source that it is about."""
    own, here = source.chosen.path, f"{kinds.DATA}.{NAME}.sources.{name}"
    if problem.path == own or problem.path.startswith((f"{own}.", f"{own}[")):
        return attrs.evolve(problem, path=f"{here}.settings{problem.path.removeprefix(own)}")
    return attrs.evolve(problem, message=f"{problem.message} (asked for by {here})")


def _of_sources(config: MixtureConfig, question: str) -> list[str]:
    """What the sources provide or require, each capability once."""
    said = (capability for source in config.sources.values() for capability in getattr(source.chosen, question))
    return list(dict.fromkeys(said))


@hookimpl
def coordcore_data_builders() -> Iterable[Component]:
    return [
        Component(
            name=NAME,
            config=MixtureConfig,
            build=_build,
            summary="several data builders in one run, by weight or by number of records",
            # Of a source that tells no lengths `_check` says so, by its name.
            provides=lambda config: [*dict.fromkeys([*_of_sources(config, "provides"), LENGTHS])],
            requires=lambda config: _of_sources(config, "requires"),
            check=_check,
        )
    ]
