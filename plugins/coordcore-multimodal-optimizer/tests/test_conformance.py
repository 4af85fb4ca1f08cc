"""The optimizer keeps the promises of an optimizer."""

from __future__ import annotations

from collections.abc import Callable

from coordcore.testing import parametrize_with_checks
from coordcore_multimodal_optimizer import MultimodalOptimizerConfig, plugin


@parametrize_with_checks(
    plugin, configs=[MultimodalOptimizerConfig(), MultimodalOptimizerConfig(offset_lr=1e-2, llm_weight_decay=0.0)]
)
def test_conformance(check: Callable[[], None]) -> None:
    check()
