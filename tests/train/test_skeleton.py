"""A model without its weights: what stands in their place."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

from coordcore_train.checkpoint.merge.skeleton import without_weights
from coordcore_train.surgery.matrices import matrices_of


class Scaled(nn.Module):
    """As Gemma, whose embedding multiplies what it looks up."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(is_encoder_decoder=False)
        self.embedding = Gemma3TextScaledWordEmbedding(12, 4, padding_idx=0, embed_scale=2.0)
        self.head = nn.Linear(4, 12, bias=False)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def test_what_lies_in_memory_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`coordcore plan` of a Gemma refused its embedding now and then: NaN is not twice NaN."""
    model = Scaled()

    def used(*size: Any, **more: Any) -> torch.Tensor:
        return torch.full(*size, math.nan, **more)

    monkeypatch.setattr(torch, "empty", used)
    skeleton = without_weights(model)
    assert matrices_of(skeleton).embedding is model.embedding
    assert all(parameter.isfinite().all() for parameter in skeleton.parameters())
