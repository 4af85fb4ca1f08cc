"""This plugin needs no other plugin."""

from __future__ import annotations

import sys

import pytest

import coordcore_mixture
from coordcore.testing.isolation import assert_stands_alone


def test_no_other_plugin_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The kit's own, which conftest.py lays beside the installed ones, is none.
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "coordcore-testing-" not in entry])
    assert_stands_alone(coordcore_mixture)
