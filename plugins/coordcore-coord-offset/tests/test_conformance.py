"""The surgery keeps the promises of a surgery."""

from __future__ import annotations

from collections.abc import Callable

from coordcore.testing import parametrize_with_checks
from coordcore_coord_offset import CoordOffsetConfig, plugin


@parametrize_with_checks(plugin, configs=[CoordOffsetConfig(), CoordOffsetConfig(tie_head=False)])
def test_conformance(check: Callable[[], None]) -> None:
    check()
