"""The data builder keeps the promises of a data builder."""

from __future__ import annotations

from collections.abc import Callable

from sources import boxes, config

from coordcore.testing import parametrize_with_checks
from coordcore_mixture import plugin


@parametrize_with_checks(
    plugin,
    configs=[
        config(first=boxes(5, weight=2), second=boxes(3, weight=1)),
        config(first=boxes(5, records=2), second=boxes(3)),
    ],
)
def test_conformance(check: Callable[[], None]) -> None:
    check()
