"""From a trained checkpoint to boxes: predict, evaluate, report. Torch-free until a model is asked."""

from __future__ import annotations

__version__ = "0.1.0"
