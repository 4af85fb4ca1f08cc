"""A run that began under version 0.1 continues: what its fingerprint covers has not changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conftest import ROOT
from coordcore.manifest import load
from coordcore_train.run.resolved import determining

BOTH = """
    coords.quantisation loss.coord_soft_ce_w1.ce_weight loss.coord_soft_ce_w1.gate_weight
    loss.coord_soft_ce_w1.sigma loss.coord_soft_ce_w1.soft_ce_weight loss.coord_soft_ce_w1.temperature
    loss.coord_soft_ce_w1.text_gate_weight loss.coord_soft_ce_w1.w1_weight loss.text_ce.coord_positions
    loss.text_ce.weight model.attention model.base model.dtype optimizer.multimodal_coord_offset.offset_lr
    optimizer.multimodal_coord_offset.offset_weight_decay optimizer.multimodal_coord_offset.tags
    surgery.coord_offset.dtype surgery.coord_offset.tie_head template.coord_template.coord_tokens
    template.coord_template.skip_bbox_norm train.accumulation train.batch_size train.betas train.device train.epochs
    train.gradient_checkpointing train.learning_rate train.max_grad_norm train.max_length train.optim train.schedule
    train.seed train.warmup train.weight_decay tuner.alpha tuner.dropout tuner.freeze_aligner tuner.freeze_vision
    tuner.rank tuner.target_modules tuner.type vocab.initialiser vocab.seed
"""
OWN = {
    "full.toml": """
    data.coord_jsonl.coord_tokens data.coord_jsonl.field_order data.coord_jsonl.geometry data.coord_jsonl.mode
    data.coord_jsonl.object_order data.coord_jsonl.outside data.coord_jsonl.space data.coord_jsonl.train
    data.coord_jsonl.validate data.coord_jsonl.validation optimizer.multimodal_coord_offset.vision_lr
    train.max_pixels train.swift.adam_epsilon
""",
    "shapes.toml": """
    data.shapes.coord_tokens data.shapes.image_size data.shapes.max_objects data.shapes.min_objects data.shapes.seed
    data.shapes.train_images data.shapes.validation_images train.steps train.swift
""",
}


def dotted(table: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from dotted(value, f"{path}{key}.")
        else:
            yield path + key


@pytest.mark.parametrize("example", OWN)
def test_the_keys_of_a_fingerprint_are_those_of_the_first_version(example: str) -> None:
    """A key that was added since says with `option(before=...)` what was done before."""
    covered = set(dotted(determining(load(ROOT / "docs/examples" / example).manifest)))

    assert covered == {*BOTH.split(), *OWN[example].split()}
