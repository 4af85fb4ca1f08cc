"""Records from other formats and back, and their conventions checked. Torch-free."""

from __future__ import annotations

__version__ = "0.1.0"
