"""The conformance kit for plugin authors: checks of every kind of component, and a short real training run."""

from __future__ import annotations

if not __debug__:
    raise RuntimeError(
        "coordcore.testing: the kit's checks are assert statements, which python -O (PYTHONOPTIMIZE) takes out; run "
        "pytest without it"
    )

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
