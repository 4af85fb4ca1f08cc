"""Several data builders in one run, mixed by weight or by number of records."""

from __future__ import annotations

from coordcore_mixture.config import MixtureConfig, Source

__version__ = "0.1.0"

__all__ = ["MixtureConfig", "Source"]
