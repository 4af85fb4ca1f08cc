"""Optimizer groups for the parts of a vision-language model. The public names; torch-free at import."""

from __future__ import annotations

from coordcore_multimodal_optimizer.config import MultimodalOptimizerConfig, TagSettings
from coordcore_multimodal_optimizer.groups import MultimodalOptimizer, parameter_groups

__version__ = "0.1.0"

__all__ = ["MultimodalOptimizer", "MultimodalOptimizerConfig", "TagSettings", "parameter_groups"]
