"""The loss keeps the promises of a loss."""

from __future__ import annotations

from coordcore.testing import parametrize_with_checks
from coordcore_soft_ce_w1 import CoordSoftCEW1Config, plugin


@parametrize_with_checks(
    plugin,
    configs=[
        CoordSoftCEW1Config(),
        CoordSoftCEW1Config(sigma=0.3, truncate=2, text_gate_weight=1.0),
        CoordSoftCEW1Config(gate_weight=0.0, temperature=2.0),
    ],
)
def test_conformance(check):
    check()
