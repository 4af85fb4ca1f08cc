"""Tiny models, offline and on one thread."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3VLConfig, Qwen3VLForConditionalGeneration

torch.set_num_threads(1)

VOCABULARY = 96


def qwen2(*, tied: bool) -> Any:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=tied,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
    )


def qwen3_vl(*, tied: bool) -> Any:
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            text_config={
                "vocab_size": VOCABULARY,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 16,
                "tie_word_embeddings": tied,
                "bos_token_id": None,
                "eos_token_id": None,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1000.0,
                    "mrope_interleaved": True,
                    "mrope_section": [4, 2, 2],
                },
            },
            vision_config={
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_heads": 2,
                "patch_size": 8,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "out_hidden_size": 16,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
            image_token_id=1,
            video_token_id=2,
            vision_start_token_id=3,
            vision_end_token_id=4,
            tie_word_embeddings=tied,
        )
    )


@pytest.fixture(params=[qwen2, qwen3_vl], ids=["qwen2", "qwen3_vl"])
def load(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`load(tied=True, dtype=torch.float32)`: the same random base at every call, as `from_pretrained` would give."""

    def load(*, tied: bool = True, dtype: torch.dtype = torch.float32) -> Any:
        torch.manual_seed(0)
        model = request.param(tied=tied).to(dtype).eval()
        # Large enough that an error in an offset or its row shows.
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3 if parameter.dim() > 1 else 0.1)
        return model

    return load


@pytest.fixture(params=["in order", "scattered"])
def coord_ids(request: pytest.FixtureRequest) -> list[int]:
    """20 ids in bin order."""
    if request.param == "in order":
        return list(range(60, 80))
    return [11, 95, 7, 60, 61, 30, 5, 88, 87, 86, 40, 42, 41, 70, 13, 90, 22, 21, 20, 50]


@pytest.fixture
def tokens(coord_ids: list[int]) -> torch.Tensor:
    """[2, 8] token ids, coord tokens among others, some of them twice."""
    plain = [number for number in range(5, VOCABULARY) if number not in coord_ids][:5]
    return torch.tensor(
        [
            [plain[0], coord_ids[0], coord_ids[7], plain[1], coord_ids[7], coord_ids[19], plain[2], coord_ids[3]],
            [plain[3], plain[4], coord_ids[5], coord_ids[6], coord_ids[5], coord_ids[4], plain[0], plain[1]],
        ]
    )


@pytest.fixture
def randomise() -> Callable[[torch.nn.Module], None]:
    """Fill the offsets that act on a model with noise, as training would."""
    from coordcore_coord_offset import live_coord_offset_adapter

    def randomise(model: torch.nn.Module) -> None:
        generator = torch.Generator().manual_seed(1)
        for table in live_coord_offset_adapter(model).parameters():
            table.data.copy_(0.3 * torch.randn(table.shape, generator=generator))

    return randomise
