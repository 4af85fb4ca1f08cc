"""Pictures as examples."""

from __future__ import annotations

import json
import pickle

import pytest

from coordcore.quantisation import DEFAULT_QUANTISATION, quantisation
from coordcore.records.answers import Format, parse_answer
from coordcore.records.answers.format import Coords, Label
from coordcore_demo import PROMPT, ShapesConfig, answer_text, draw
from coordcore_demo.data import Shapes


def train(spec=DEFAULT_QUANTISATION, **settings):
    return Shapes(config=ShapesConfig(**settings), quantisation=spec).train()


LINES = Format(
    name="lines",
    label=(Label(without="<|"),),
    places={"bbox_2d": (Coords("bbox_2d", between=""),)},
    between="\n",
    again="",
)
"""A label a line, with all its boxes behind it."""


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


def test_shapes_called_by_their_colours_share_labels():
    example = train(seed=3, max_objects=9, label="colour")[8]
    shapes = draw(3, 8, split="train", max_objects=9)[1]
    answer = train(seed=3, max_objects=9, label="colour", coord_tokens=False)[8].messages[1]["content"]
    named = [item["desc"] for item in json.loads(answer)["objects"]]
    assert named == [shape.desc.split()[0] for shape in shapes]
    assert len(example.geometries) == len(shapes) > len(set(named))


def test_every_shape_can_have_the_same_name():
    one, plain = train(min_objects=9, max_objects=9, label="object")[8], train(min_objects=9, max_objects=9)[8]
    assert said(one) == ["object"] * 9
    assert one.geometries == plain.geometries
    grouped = Shapes(
        config=ShapesConfig(min_objects=9, max_objects=9, label="object"),
        quantisation=DEFAULT_QUANTISATION,
        form=LINES,
    ).train()[8]
    assert grouped.messages[1]["content"].count("object") == 1


@pytest.mark.parametrize("task", ["refer", "named"])
def test_one_name_for_all_leaves_nothing_to_ask_for(task):
    with pytest.raises(ValueError, match=f"label is 'object'.*task is '{task}'.*set label to 'colour_shape'"):
        ShapesConfig(label="object", task=task)


def test_objects_of_one_label_stand_together_where_that_is_asked_for():
    settings = {"min_objects": 9, "max_objects": 9, "label": "colour"}
    for index in range(5):
        plain, grouped = train(**settings)[index], train(**settings, object_order="label")[index]
        labels = said(grouped)
        assert labels == [label for label in dict.fromkeys(said(plain)) for _ in range(said(plain).count(label))]
        assert labels != said(plain)
        by_label = sorted(zip(said(plain), plain.geometries, strict=True), key=lambda item: labels.index(item[0]))
        assert [geometry for _, geometry in by_label] == list(grouped.geometries)


def test_a_format_that_groups_answers_the_same_in_either_order():
    settings = {"min_objects": 9, "max_objects": 9, "label": "colour"}
    plain, grouped = (
        Shapes(
            config=ShapesConfig(**settings, object_order=order), quantisation=DEFAULT_QUANTISATION, form=LINES
        ).train()[3]
        for order in ("top_left", "label")
    )
    assert plain.messages == grouped.messages
    assert plain.geometries == grouped.geometries


def said(example):
    """What an example answers, by name."""
    return [item.desc for item in parse_answer(example.messages[-1]["content"]).objects]


def test_a_phrase_asks_for_one_shape_and_is_in_vain_one_of_four_times():
    asking, plain = train(max_objects=3, task="refer"), train(max_objects=3)
    found = 0
    for index in range(200):
        example, whole = asking[index], plain[index]
        phrase = example.messages[0]["content"].removeprefix("<image>Find the ").removesuffix(".")
        there = said(whole)
        assert said(example) == [phrase] * (phrase in there)
        assert example.images[0].tobytes() == whole.images[0].tobytes()  # the picture is that of any other task
        assert (example.task, len(example.geometries)) == ("refer", len(said(example)))
        found += phrase in there
    assert 130 <= found <= 170


def test_a_phrase_that_is_pointed_at_asks_for_a_point():
    example = train(min_objects=9, max_objects=9, task="refer", geometry="point", label="colour")[0]
    assert (example.task, example.messages[0]["content"][:20]) == ("point", "<image>Point at the ")
    assert {geometry.kind for geometry in example.geometries} == {"point"}


def test_names_ask_for_present_and_absent_shapes_in_any_order():
    asking, plain = train(max_objects=3, task="named"), train(max_objects=3)
    firsts = set()
    for index in range(100):
        example, there = asking[index], said(plain[index])
        asked = example.categories
        assert example.messages[0]["content"] == f"<image>Find the shapes: {', '.join(asked)}."
        assert said(example) == [desc for desc in there if desc in asked]
        assert {*asked} - {*there}
        firsts.add(asked[0] in there)
    assert firsts == {True, False}


def test_a_checkpoint_carries_the_prompts_of_tasks():
    shapes = [Shapes(config=ShapesConfig(task=task), quantisation=DEFAULT_QUANTISATION) for task in ("detect", "refer")]
    assert shapes[0].prompts is None
    assert shapes[1].prompts["refer"].format(phrase="red ring") == "Find the red ring."


def test_what_is_asked_of_a_picture_is_always_the_same():
    asked = [train(max_objects=3, task="named")[7].messages for _ in range(2)]
    assert asked[0] == asked[1]
    assert train(max_objects=3, task="named", seed=1)[7].messages != asked[0]


def test_a_picture_with_every_shape_has_no_absent_one():
    asking = train(min_objects=9, max_objects=9, task="refer", label="colour")
    assert all(said(asking[index]) for index in range(20))


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


def test_points_are_the_middles_of_the_shapes():
    example = train(seed=3, max_objects=3, geometry="point")[8]
    shapes = draw(3, 8, split="train", max_objects=3)[1]
    found = parse_answer(example.messages[1]["content"])
    middles = [((x1 + x2) / 2 * 999 / 64, (y1 + y2) / 2 * 999 / 64) for _, (x1, y1, x2, y2) in shapes]
    assert [(item.desc, item.kind) for item in found.objects] == [(shape.desc, "point") for shape in shapes]
    assert [geometry.values for geometry in example.geometries] == [pytest.approx(middle) for middle in middles]
    assert example.messages[0] == train(seed=3, max_objects=3)[8].messages[0]
    assert train(seed=3, geometry="point", coord_tokens=False)[8].geometries == ()


@pytest.mark.parametrize("task", ["detect", "refer", "named"])
def test_a_picture_tells_how_long_its_texts_are_without_being_painted(task, monkeypatch):
    pictures = train(max_objects=9, task=task, image_size=96)
    examples = [pictures[index] for index in range(20)]
    monkeypatch.setattr("coordcore_demo.shapes.paint", lambda *_: 1 / 0)
    told = [pictures.length(0, index) for index in range(20)]
    assert {tuple(sizes) for _, sizes in told} == {((96, 96),)}
    by_text = sorted(range(20), key=lambda index: len(examples[index].geometries))
    assert told[by_text[-1]][0] > told[by_text[0]][0]
    with pytest.raises(IndexError, match="train picture -1 of 4000"):
        pictures.length(0, -1)
