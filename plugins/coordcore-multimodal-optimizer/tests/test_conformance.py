"""The optimizer keeps the promises of an optimizer."""

from __future__ import annotations

from collections.abc import Callable

from coordcore_multimodal_optimizer import MultimodalOptimizerConfig, TagSettings, plugin

from coordcore.testing import parametrize_with_checks


@parametrize_with_checks(
    plugin,
    configs=[
        MultimodalOptimizerConfig(),
        MultimodalOptimizerConfig(offset_lr=1e-2, tags={"a_tag_of_another_surgery": TagSettings(lr=1e-3)}),
    ],
)
def test_conformance(check: Callable[[], None]) -> None:
    check()
