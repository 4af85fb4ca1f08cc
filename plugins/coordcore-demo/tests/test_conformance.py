"""The data builder keeps the promises of a data builder."""

from __future__ import annotations

from collections.abc import Callable

from coordcore.testing import parametrize_with_checks
from coordcore_demo import plugin
from coordcore_demo.config import ShapesConfig


@parametrize_with_checks(
    plugin,
    configs=[ShapesConfig(), ShapesConfig(max_objects=4, image_size=96), ShapesConfig(coord_tokens=False)],
)
def test_conformance(check: Callable[[], None]) -> None:
    check()
