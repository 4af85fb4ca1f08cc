"""The hooks of the plugins that a run names, called one plugin after another. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pluggy

from coordcore.errors import Problem, RunError
from coordcore.guard import guarded, told

if TYPE_CHECKING:
    from coordcore.manifest.sections import Manifest


class Hooks:
    """The lifecycle hooks of some plugins, typed. Called in the order in which the plugins are listed."""

    def __init__(self, relays: Sequence[tuple[str, pluggy.HookRelay]]) -> None:
        """`relays`: each plugin's distribution and its own hooks."""
        self._relays = relays

    def check(self, run: Manifest) -> Iterator[Problem]:
        """What the plugins' `coordcore_check`, and the `check` of every selected component, report about `run`.

        A plugin that fails at it is a problem of the run, which names it, and of nobody else.
        """
        for selected in run.selected:
            check = selected.component.check
            ask = partial(map, check, [selected.config], [run])
            yield from asked(ask, selected.path, selected.distribution, run)
        for distribution, relay in self._relays:
            own = [selected.path for selected in run.selected if selected.distribution == distribution]
            ask = partial(relay.coordcore_check, run=run)
            yield from asked(ask, own[0] if own else "requires", distribution, run)

    def step_ended(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell the plugins that a step was logged. Raises RunError, with the plugin's name, for what one raises."""
        self._tell("coordcore_step_ended", step=step, metrics=metrics)

    def run_ended(self, run_dir: Path, error: BaseException | None) -> None:
        """Tell the plugins that the run is over. Raises RunError as `step_ended`."""
        self._tell("coordcore_run_ended", run_dir=run_dir, error=error)

    def _tell(self, hook: str, **arguments: Any) -> None:
        failures: list[tuple[str, BaseException]] = []
        for distribution, relay in self._relays:
            try:
                getattr(relay, hook)(**arguments)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a SystemExit, too: the others are told, then it is named and passed on
                failures.append((distribution, error))
        for distribution, failure in failures:
            raise RunError(f"plugin {distribution}: {hook} raised {told(failure)}") from failure


def asked(ask: Callable[[], Iterable[Any]], place: str, distribution: str, run: Manifest) -> list[Problem]:
    """The problems in the answers that `ask` gives. What the plugin does wrong meanwhile is a problem at `place`.

    Where it blames the section of another plugin, that says who speaks.
    """
    foreign = tuple(f"{selected.path}." for selected in run.selected if selected.distribution != distribution)

    def fault(what: str) -> Problem:
        return Problem(
            path=place, message=f"the check of plugin {distribution} {what}; tell its authors, or leave it out"
        )

    problems: list[Problem] = []
    with guarded() as watch:
        for answer in ask():
            if isinstance(answer, str) or not isinstance(answer, Iterable | None):
                problems.append(fault(f"returned {answer!r}, which is no iterable of Problem objects"))
                continue
            for item in () if answer is None else answer:
                if not isinstance(item, Problem):
                    item = fault(f"reported {item!r}, which is no Problem")
                elif place and f"{item.path}.".startswith(foreign):
                    item = attrs.evolve(item, message=f"{item.message} (says plugin {distribution})")
                problems.append(item)
    if watch.error is not None:
        problems.append(fault(f"raised {told(watch.error)}"))
    return problems
