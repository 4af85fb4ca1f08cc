"""Predict, evaluate, look, and prepare data: detection with coordinate tokens. Torch-free until a command needs it."""

from __future__ import annotations

__version__ = "0.1.0"
