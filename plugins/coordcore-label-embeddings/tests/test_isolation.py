"""This plugin needs no other plugin but the engine and coordcore-detection."""

from __future__ import annotations

import coordcore_label_embeddings
from coordcore.testing.isolation import assert_stands_alone


def test_no_further_plugin_is_needed() -> None:
    assert_stands_alone(coordcore_label_embeddings, on=["coordcore_detection"])
