"""The checkpoint in the wheel: small, plain, offline, and it finds shapes in plain numbers."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

from coordcore.coords import is_coord_token
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_demo import ShapesConfig
from coordcore_demo.data import Shapes
from coordcore_demo.train_base import WORDS, encode, question
from coordcore_demo.verify import verify


@pytest.fixture(scope="module")
def processor(base):
    return AutoProcessor.from_pretrained(base)


def test_it_takes_at_most_two_megabytes(base):
    assert sum(file.stat().st_size for file in base.iterdir()) <= 2_000_000


def test_it_holds_what_a_published_checkpoint_holds(base):
    assert sorted(file.name for file in base.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_weights_and_config_say_bfloat16(base):
    config = json.loads((base / "config.json").read_text())
    with safe_open(base / "model.safetensors", framework="pt") as file:
        dtypes = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a dict
    assert dtypes == {"BF16"}
    assert {part["dtype"] for part in (config, config["text_config"], config["vision_config"])} == {"bfloat16"}


def test_it_has_no_coord_tokens(processor):
    assert [token for token in processor.tokenizer.get_vocab() if is_coord_token(token)] == []


def test_its_embedding_is_tied_and_has_a_row_per_token(base, processor):
    model = Qwen3VLForConditionalGeneration.from_pretrained(base)
    embedding = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is embedding
    assert len(embedding) == model.config.text_config.vocab_size == len(processor.tokenizer)


def test_digits_are_tokens_of_their_own(processor):
    assert processor.tokenizer.tokenize("[907, 5]") == ["[", "9", "0", "7", ",", "Ġ", "5", "]"]


def test_the_words_of_an_answer_are_single_tokens(processor):
    assert [processor.tokenizer.tokenize(word.replace("Ġ", " ")) for word in WORDS] == [[word] for word in WORDS]


def test_an_answer_is_short(processor):
    source = Shapes(config=ShapesConfig(coord_tokens=False), quantisation=DEFAULT_QUANTISATION).train()
    lengths = encode(processor, [source[i] for i in range(32)])["attention_mask"].sum(1)
    assert lengths.max().item() <= 70


def test_the_chat_template_asks_the_question_of_the_training(processor):
    content = [{"type": "image"}, {"type": "text", "text": "Find the shapes."}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert text == question()


def test_the_training_writes_a_conversation_as_ms_swift_does(base, processor):
    from swift.model import get_model_processor
    from swift.template import get_template

    _, swift_processor = get_model_processor(str(base), load_model=False, model_type="qwen3_vl")
    template = get_template(swift_processor, template_type="qwen3_vl")
    template.image_token_id = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    template.set_mode("train")
    example = Shapes(config=ShapesConfig(coord_tokens=False), quantisation=DEFAULT_QUANTISATION).train()[0]
    theirs = template.encode(
        {"messages": [dict(message) for message in example.messages], "images": list(example.images)}
    )
    ours = encode(processor, [example])
    assert theirs["input_ids"] == ours["input_ids"][0].tolist()
    assert theirs["labels"] == ours["labels"][0].tolist()
    assert torch.equal(theirs["pixel_values"], ours["pixel_values"])


def test_it_finds_shapes_in_plain_numbers(base):
    scores, texts = verify(base, images=20)
    assert not any("coord" in text for text in texts)
    assert scores.parsed >= 0.95
    assert scores.class_agnostic_iou >= 0.65


def test_the_other_base_finds_several_shapes_in_plain_numbers(several):
    scores, texts = verify(several, images=20, max_objects=3)
    assert not any("coord" in text for text in texts)
    assert scores.parsed >= 0.85
    assert scores.class_agnostic_iou >= 0.65


def test_both_bases_differ_in_nothing_but_weights(base, several):
    names = sorted(file.name for file in base.iterdir())
    assert names == sorted(file.name for file in several.iterdir())
    same = [name for name in names if name != "model.safetensors"]
    assert [name for name in same if (base / name).read_bytes() != (several / name).read_bytes()] == []
    assert sum(file.stat().st_size for file in several.iterdir()) <= 2_000_000
