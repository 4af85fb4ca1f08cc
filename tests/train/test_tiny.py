"""The tiny checkpoint is a real Qwen3-VL: transformers and ms-swift load and use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from coordcore.coords import CoordVocab
from coordcore_train.testing.tiny import tiny_qwen3vl

IMAGE = Image.linear_gradient("L").resize((64, 48)).convert("RGB")


def test_it_reads_an_image_and_generates(coord_base: Path) -> None:
    processor = AutoProcessor.from_pretrained(coord_base)
    model, info = AutoModelForImageTextToText.from_pretrained(coord_base, output_loading_info=True)
    content = [{"type": "image", "image": IMAGE}, {"type": "text", "text": "find <|coord_7|>"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert type(model).__name__ == "Qwen3VLForConditionalGeneration"
    assert not any(info.values()), info
    assert processor.tokenizer.decode(inputs["input_ids"][0]) == (
        "<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * 12 + "<|vision_end|>find <|coord_7|><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    with torch.no_grad():
        logits = model(**inputs).logits
    assert (logits.isfinite().all().item(), logits.shape[-1]) == (True, len(processor.tokenizer))
    before = inputs["input_ids"].shape[1]
    assert before < model.generate(**inputs, max_new_tokens=3, do_sample=False).shape[1] <= before + 3


def test_tokenizer_and_config_agree(coord_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(coord_base)
    config = json.loads((coord_base / "config.json").read_text())
    named = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    assert {key: config[key] for key in named} == {
        key: tokenizer.convert_tokens_to_ids(token) for key, token in named.items()
    }
    generation = json.loads((coord_base / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])


def test_added_tokens_stand_in_qwens_order(coord_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(coord_base)
    order = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "</think>", "<|coord_0|>", "<|coord_999|>"]
    # Qwen3-VL has them from 151643 on.
    assert tokenizer.convert_tokens_to_ids(order) == [256 + offset for offset in (0, 1, 2, 12, 25, 26, 1025)]


def test_coord_tokens_are_left_out_on_request(plain_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(plain_base)
    assert (len(tokenizer), tokenizer.convert_tokens_to_ids("<|coord_0|>")) == (282, tokenizer.unk_token_id)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_or_not(tmp_path: Path, tied: bool) -> None:
    folder = tiny_qwen3vl(tmp_path, tie_word_embeddings=tied, coord_tokens=False)
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert ("lm_head.weight" in file.keys()) is not tied  # noqa: SIM118 - no mapping


def test_shapes_dtype_shards_merges_and_padding(tmp_path: Path) -> None:
    folder = tiny_qwen3vl(
        tmp_path,
        coord_tokens=False,
        padding_rows=7,
        merges=["h e", "he l"],
        hidden_size=96,
        layers=3,
        heads=3,
        head_dim=32,
        vision_hidden_size=64,
        vision_heads=4,
        dtype="bfloat16",
        max_shard_size="200KB",
    )
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert model.get_input_embeddings().weight.shape == (256 + 2 + 26 + 7, 96)
    assert (model.dtype, len(model.model.language_model.layers)) == (torch.bfloat16, 3)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert AutoTokenizer.from_pretrained(folder).tokenize("hello") == ["hel", "l", "o"]


def test_same_seed_same_weights_and_the_global_state_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    folders = [tiny_qwen3vl(tmp_path / str(i), coord_tokens=False, seed=seed) for i, seed in enumerate((5, 5, 6))]
    assert torch.rand(1) == expected
    first, second, third = ((folder / "model.safetensors").read_bytes() for folder in folders)
    assert (first == second, first == third) == (True, False)


def test_ms_swift_encodes_a_row(coord_base: Path) -> None:
    from swift.model import get_processor
    from swift.template import get_template

    processor = get_processor(str(coord_base), model_type="qwen3_vl", use_hf=True)
    template = get_template(processor, template_type="qwen3_vl")
    template.set_mode("train")
    # The stock template hard-codes Qwen's own id here.
    template.image_token_id = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    answer = "[<|coord_7|>, <|coord_999|>]"
    messages = [{"role": "user", "content": "<image>find"}, {"role": "assistant", "content": answer}]
    row = template.encode({"messages": messages, "images": [IMAGE]})
    supervised = [label for label in row["labels"] if label != -100]
    vocab = CoordVocab.from_tokenizer(processor.tokenizer)
    assert processor.tokenizer.decode(supervised) == answer + "<|im_end|>\n"
    assert [k for k in vocab.bins(supervised).tolist() if k >= 0] == [7, 999]
    assert row["input_ids"].count(template.image_token_id) == 12
