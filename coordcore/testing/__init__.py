"""The conformance kit for plugin authors: checks of every kind of component, and a short real training run."""

from __future__ import annotations

from coordcore.testing.checks import checks_for, components_of
from coordcore.testing.parametrize import parametrize_with_checks
from coordcore.testing.training import logged, train_briefly

__all__ = [
    "checks_for",
    "components_of",
    "logged",
    "parametrize_with_checks",
    "train_briefly",
]
