"""Chat rows through ms-swift's own Qwen3-VL template: what is supervised, and with which real-valued targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from coordcore import BuildContext, Example
from coordcore.coords import CoordVocab
from coordcore_coord_tokens import ChatJsonl, ChatJsonlConfig, apply_coord_template_adapter
from coordcore_train.engine import EncodedRow
from coordcore_train.objective.targets import make_targets
from coordcore_train.swift.encode import TemplateEncoder
from coordcore_train.swift.template import align, plain_row, sizes_of
from coordcore_train.testing.tiny import tiny_qwen3vl


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TemplateEncoder:
    from swift.model import get_processor
    from swift.template import get_template

    torch.set_num_threads(1)
    base = tiny_qwen3vl(tmp_path_factory.mktemp("tiny") / "base")
    template = get_template(get_processor(str(base), model_type="qwen3_vl", use_hf=True))
    template.set_mode("train")
    apply_coord_template_adapter(template, coord_tokens=True, skip_bbox_norm=True)
    return TemplateEncoder(template, plain_row)


@pytest.fixture
def example(write: Any, context: BuildContext) -> Example:
    """Two images and three turns: boxes in questions and answers, in objects and in the text."""
    Image.new("RGB", (100, 50), "white").save("small.png")
    said = [
        ("user", "<image><image>What is at <bbox>?"),
        ("assistant", "<ref-object>, beside <bbox>"),
        ("user", "And at [0.5, 0.5, 0.75, 0.75]?"),
        ("assistant", "Nothing."),
        ("user", "Where is <ref-object>?"),
        ("assistant", '<bbox> and [{"bbox_2d": [0.1, 0.2, 0.3, 0.4], "label": "ball"}]'),
    ]
    row = {
        "messages": [{"role": role, "content": content} for role, content in said],
        "images": ["photo.png", "small.png"],
        "objects": {
            "ref": ["a dog", "the ball"],
            "bbox": [[0, 0, 64, 48], [64, 48, 320, 240], [10, 10, 50, 25]],
            "image_id": [0, 0, 1],
        },
    }
    return ChatJsonl.open(ChatJsonlConfig(train=write(row), space="norm1"), context).train()[0]


def answer(encoder: TemplateEncoder, row: EncodedRow) -> str:
    return encoder.tokenizer.decode([label for label in row.labels if label != -100])


def test_every_answer_is_supervised_and_no_question(encoder: TemplateEncoder, example: Example) -> None:
    answers = [message["content"] for message in example.messages if message["role"] == "assistant"]
    row = encoder.encode(example)
    assert answer(encoder, row) == "".join(f"{text}<|im_end|>\n" for text in answers)
    vocab = CoordVocab.from_tokenizer(encoder.tokenizer)
    counts = [int((vocab.bins(torch.tensor(ids)) >= 0).sum()) for ids in (row.ids, row.labels)]
    assert counts == [20, 12]  # five boxes, three of them in answers


def test_coord_tokens_of_all_answers_keep_their_real_valued_targets(encoder: TemplateEncoder, example: Example) -> None:
    vocab = CoordVocab.from_tokenizer(encoder.tokenizer)
    labels = list(encoder.encode(example).labels)
    places = align(labels, example, vocab)
    values, corners = torch.tensor([places.values]), torch.tensor([places.corners])
    targets = make_targets(torch.tensor([labels]), vocab, values=values, corners=corners)
    boxes = targets["values"][targets["boxes"]]
    wanted = [[0.1, 0.1, 0.5, 0.5], [0.1, 0.2, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4]]
    assert torch.allclose(boxes, torch.tensor(wanted) * 999, atol=1e-3)
    assert targets["bins"].tolist() == [100, 100, 500, 500, 100, 200, 500, 500, 100, 200, 300, 400]


def test_boxes_of_several_images_have_no_size(
    encoder: TemplateEncoder, example: Example, context: BuildContext
) -> None:
    places = align(list(encoder.encode(example).labels), example, CoordVocab.from_tokenizer(encoder.tokenizer))
    assert bool(sizes_of(example, places, context.quantisation).isnan().all())


def test_every_image_is_encoded(encoder: TemplateEncoder, example: Example) -> None:
    assert encoder.encode(example).seen == ((640, 480), (96, 48))


def test_thoughts_are_supervised_with_their_boxes(encoder: TemplateEncoder, write: Any, context: BuildContext) -> None:
    said = ["<image>?", "<think>at <bbox></think>\n\nA dog.", "Where?", "<think>there</think>\n\n<bbox>"]
    messages = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(said)]
    row = {"messages": messages, "images": ["photo.png"], "objects": {"bbox": [[64, 48, 320, 240]] * 2}}
    example = ChatJsonl.open(ChatJsonlConfig(train=write(row)), context).train()[0]
    labels = list(encoder.encode(example).labels)
    places = align(labels, example, CoordVocab.from_tokenizer(encoder.tokenizer))
    assert [geometry for geometry in places.geometries if geometry >= 0] == [0] * 4 + [1] * 4


def test_a_call_is_supervised_with_its_point(encoder: TemplateEncoder, write: Any, context: BuildContext) -> None:
    call = '<tool_call>\n{"arguments": {"action": "left_click", "coordinate": [64, 48]}}\n</tool_call>'
    messages = [{"role": "user", "content": "<image>Open it"}, {"role": "assistant", "content": call}]
    path = write({"messages": messages, "images": ["photo.png"]})
    example = ChatJsonl.open(ChatJsonlConfig(train=path, space="pixel"), context).train()[0]
    labels = list(encoder.encode(example).labels)
    places = align(labels, example, CoordVocab.from_tokenizer(encoder.tokenizer))
    assert [geometry for geometry in places.geometries if geometry >= 0] == [0] * 2
    said = encoder.tokenizer.decode([label for label in labels if label >= 0])
    assert said.startswith("<tool_call>")
    assert said.rstrip().endswith("</tool_call><|im_end|>")
