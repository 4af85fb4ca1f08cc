"""The names our classes have in ms-swift's registries. Torch-free."""

from __future__ import annotations

OPTIMIZER = "coordcore"
"""The name under which `register` puts our optimizer into ms-swift's registry."""

ALL_OF_A_KIND = ("all-linear", "all-embedding")
"""What ms-swift itself turns into names of modules."""


def ours(name: str) -> str:
    """What a model type or template of ms-swift is called with our classes: `coordcore_qwen3_vl`."""
    return f"coordcore_{name}"
