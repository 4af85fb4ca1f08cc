"""This plugin needs no other plugin but the engine."""

from __future__ import annotations

import coordcore_parallel_boxes
from coordcore.testing.isolation import assert_stands_alone


def test_no_other_plugin_is_needed() -> None:
    assert_stands_alone(coordcore_parallel_boxes)
