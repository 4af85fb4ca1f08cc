"""Pictures as examples."""

from __future__ import annotations

import json
import pickle

import pytest

from coordcore.quantisation import DEFAULT_QUANTISATION, quantisation
from coordcore_demo import PROMPT, ShapesConfig, answer_text, draw
from coordcore_demo.data import Shapes


def train(spec=DEFAULT_QUANTISATION, **settings):
    return Shapes(config=ShapesConfig(**settings), quantisation=spec).train()


def test_the_answer_is_coordjson():
    assert (
        answer_text([("red ring", [12, 40, 500, 999])])
        == '{"objects": [{"desc": "red ring", "bbox_2d": [<|coord_12|>, <|coord_40|>, <|coord_500|>, <|coord_999|>]}]}'
    )


def test_the_answer_in_plain_numbers_is_json():
    text = answer_text([("red ring", [1, 2, 3, 4]), ("blue cross", [5, 6, 7, 8])], coord_tokens=False)
    assert json.loads(text) == {
        "objects": [{"desc": "red ring", "bbox_2d": [1, 2, 3, 4]}, {"desc": "blue cross", "bbox_2d": [5, 6, 7, 8]}]
    }


def test_an_example_asks_and_answers_with_the_boxes_of_its_picture():
    example = train(seed=3, max_objects=3)[8]
    image, shapes = draw(3, 8, split="train", max_objects=3)
    bins = [DEFAULT_QUANTISATION.encode(shape.box, 64).tolist() for shape in shapes]
    expected = answer_text(zip([shape.desc for shape in shapes], bins, strict=True))
    assert [message["content"] for message in example.messages] == [f"<image>{PROMPT}", expected]
    assert [message["role"] for message in example.messages] == ["user", "assistant"]
    assert example.images[0].tobytes() == image.tobytes()


def test_shapes_without_their_colours_share_labels():
    example = train(seed=3, max_objects=9, label="shape")[8]
    shapes = draw(3, 8, split="train", max_objects=9)[1]
    answer = train(seed=3, max_objects=9, label="shape", coord_tokens=False)[8].messages[1]["content"]
    named = [item["desc"] for item in json.loads(answer)["objects"]]
    assert named == [shape.desc.split()[1] for shape in shapes]
    assert len(example.geometries) == len(shapes) > len(set(named))


def test_targets_are_real_valued():
    example = train(seed=3)[8]
    ((_, box),) = draw(3, 8, split="train")[1]
    (geometry,) = example.geometries
    assert geometry.kind == "bbox_2d"
    assert geometry.values == pytest.approx([edge / 64 * 999 for edge in box])


def test_the_quantisation_is_the_run_s():
    ((_, box),) = draw(0, 0, split="train")[1]
    spec = quantisation("qwen_1000")
    bins = ", ".join(f"<|coord_{k}|>" for k in spec.encode(box, 64))
    assert f"[{bins}]" in train(spec)[0].messages[1]["content"]


def test_plain_numbers_bring_no_geometries():
    example = train(coord_tokens=False)[0]
    assert (example.geometries, "coord" in example.messages[1]["content"]) == ((), False)


def test_validation_draws_from_its_own_split():
    builder = Shapes(config=ShapesConfig(), quantisation=DEFAULT_QUANTISATION)
    expected = draw(0, 4, split="validation")[0].tobytes()
    assert builder.validation()[4].images[0].tobytes() == expected


def test_a_source_survives_pickling():
    source = train(train_images=2)
    copied = pickle.loads(pickle.dumps(source))
    assert [copied[i].messages for i in range(2)] == [source[i].messages for i in range(2)]


def test_a_source_ends():
    assert [example.source for example in train(train_images=2)] == [
        "shapes train picture 0 (seed 0)",
        "shapes train picture 1 (seed 0)",
    ]


@pytest.mark.parametrize("index", [-1, 2])
def test_an_index_outside_is_an_index_error(index):
    with pytest.raises(IndexError, match=f"train picture {index} of 2"):
        train(train_images=2)[index]
