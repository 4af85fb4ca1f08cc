"""Plain torch stand-ins for a run: tagged parameters and the [train] settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch

from coordcore.protocols import TaggedParameter

torch.set_num_threads(1)


@attrs.frozen(kw_only=True)
class Settings:
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    total_steps: int = 100

    def create(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, lr=self.learning_rate, weight_decay=self.weight_decay)


@pytest.fixture
def settings() -> Callable[..., Settings]:
    return Settings


@pytest.fixture
def tagged() -> Callable[..., list[TaggedParameter]]:
    """`tagged("llm.w", "llm.b")`: one parameter per name; the part before the dot is its tag, "b" does not decay."""

    def tagged(*names: str) -> list[TaggedParameter]:
        return [
            TaggedParameter(
                name=name,
                parameter=torch.nn.Parameter(torch.ones(2)),
                tag=name.partition(".")[0],
                decay=not name.endswith("b"),
            )
            for name in names
        ]

    return tagged
