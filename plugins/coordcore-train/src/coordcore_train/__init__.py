"""Train what a manifest says: objective, checkpoints, runs, and ms-swift behind the engine. Torch-free to import."""

from __future__ import annotations

__version__ = "0.1.0"
