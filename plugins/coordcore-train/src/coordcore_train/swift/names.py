"""The model family that can be trained, and the names our classes have in ms-swift's registries. Torch-free."""

from __future__ import annotations

FAMILY = "qwen3_vl"
"""The `model_type` in the `config.json` of the checkpoints that can be trained, and ms-swift's name for them."""

MODEL_TYPE = TEMPLATE_TYPE = f"coordcore_{FAMILY}"
OPTIMIZER = "coordcore"
"""The names under which `register` puts our classes into ms-swift's registries."""

ALL_OF_A_KIND = ("all-linear", "all-embedding")
"""What ms-swift itself turns into names of modules."""
