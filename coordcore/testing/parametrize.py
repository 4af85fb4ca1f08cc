"""The checks as pytest tests, one per component and check. Imports pytest when it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from coordcore.components import Component
from coordcore.testing.checks import checks_for, components_of

if TYPE_CHECKING:
    import pytest


def parametrize_with_checks(
    plugin: Any, *, configs: Iterable[Any] = (), expected_failures: Mapping[str, str] | None = None
) -> pytest.MarkDecorator:
    """Run every check on every component that a plugin module offers:

        @parametrize_with_checks(my_package.plugin)
        def test_conformance(check):
            check()

    configs: config instances to check with, each given to the components of its class; a component without one is
        checked with its defaults.
    expected_failures: test id, as pytest prints it in brackets -> the reason. Such a test must fail, so that the entry
        goes when the reason is gone. Raises ValueError for an id that no test has.
    """
    import pytest

    reasons = dict(expected_failures or {})
    parameters = []
    known = []
    for name, check in _tests(plugin, list(configs)):
        known.append(name)
        marks = [pytest.mark.xfail(reason=reasons[name], strict=True)] if name in reasons else []
        parameters.append(pytest.param(check, id=name, marks=marks))
    unknown = sorted(reasons.keys() - set(known))
    if unknown:
        raise ValueError(f"expected_failures names no test: {', '.join(unknown)}; the tests are {', '.join(known)}")
    return pytest.mark.parametrize("check", parameters)


def _tests(plugin: Any, configs: list[Any]) -> Iterator[tuple[str, Callable[[], None]]]:
    for kind, component in components_of(plugin):
        for suffix, config in _configs(component, configs):
            for check in checks_for(kind):
                yield f"{component.name}{suffix}-{check.__name__}", partial(check, component, config)


def _configs(component: Component, configs: list[Any]) -> list[tuple[str, Any]]:
    """The configs of one component, each with what its test ids add."""
    own = [config for config in configs if isinstance(config, component.config)] or [None]
    return [("" if len(own) == 1 else str(number), config) for number, config in enumerate(own)]
