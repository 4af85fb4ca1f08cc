"""A whole Qwen3-VL checkpoint with its tokenizer, an image, training steps and the merged folder."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from coordcore.coords import CoordVocab
from coordcore.testing.closeness import assert_close_to_scale
from coordcore_coord_offset import CoordOffsetSurgery
from coordcore_train.surgery.rows import LiveRows
from coordcore_train.testing.tiny import tiny_qwen3vl


@pytest.mark.parametrize(("tied", "tie_head"), [(True, True), (True, False), (False, False)])
def test_a_trained_checkpoint_is_merged_and_loads_plainly(tmp_path: Path, tied: bool, tie_head: bool) -> None:
    folder = tiny_qwen3vl(tmp_path / "base", tie_word_embeddings=tied)
    processor = AutoProcessor.from_pretrained(folder)
    text = (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>where?<|im_end|>\n<|im_start|>assistant\n"
        "[<|coord_0|>, <|coord_512|>, <|coord_999|>, <|coord_7|>]<|im_end|>"
    )
    inputs = processor(text=[text], images=[Image.new("RGB", (32, 48), "teal")], return_tensors="pt")
    base = AutoModelForImageTextToText.from_pretrained(folder)
    surgery = LiveRows(CoordOffsetSurgery(tie_head=tie_head))
    surgery.install(base, CoordVocab.from_tokenizer(processor.tokenizer))
    model = get_peft_model(
        base, LoraConfig(target_modules=["q_proj"], modules_to_save=list(surgery.modules_to_save))
    ).train()
    surgery.rebind(model)
    surgery.verify(model)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-2)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(**inputs, labels=inputs["input_ids"]).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)

    model.eval()
    with torch.no_grad():
        live = model(**inputs).logits
    merged = model.merge_and_unload()
    surgery.merge(merged)
    merged.save_pretrained(tmp_path / "merged")
    loaded, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert (report["missing_keys"], report["unexpected_keys"]) == (set(), set())
    with torch.no_grad():
        exact = copy.deepcopy(loaded).double()(**inputs).logits
        assert_close_to_scale(loaded(**inputs).logits, live, exact, what="the logits")
