"""`coordcore doctor`: what silently ruins a run, looked for before it starts. Torch-free; the checks import it."""

from __future__ import annotations

__version__ = "0.1.0"
