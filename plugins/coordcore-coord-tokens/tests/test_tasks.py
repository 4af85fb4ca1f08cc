"""What is asked about records with tasks: the words, what is drawn for an epoch, and what the answer holds."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from coordcore import BuildContext, InputError
from coordcore.records.record import RecordError
from coordcore_coord_tokens import CoordJsonl, CoordJsonlConfig, JsonlSource
from coordcore_coord_tokens.augment.config import AugmentConfig
from coordcore_coord_tokens.config import DENSE_PROMPT
from coordcore_coord_tokens.quick import quick_reader

Build = Callable[..., CoordJsonl]
Write = Callable[..., Path]

RING = {"desc": "red ring", "bbox_2d": [12, 40, 300, 412]}
SQUARE = {"desc": "blue square", "bbox_2d": [500, 40, 600, 90]}
CUP = {"desc": "cup", "bbox_2d": [1, 2, 3, 4]}
PLACE = "[<|coord_12|>, <|coord_40|>, <|coord_300|>, <|coord_412|>]"


@pytest.fixture
def asks(record: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """`asks("refer", RING, question="the ring")`: a record with these objects and keys."""

    def asks(task: str | None, *objects: dict[str, Any], **keys: Any) -> dict[str, Any]:
        named = {} if task is None else {"task": task}
        return {**record, "objects": list(objects), **named, **keys}

    return asks


Asks = Callable[..., dict[str, Any]]


def said(source: JsonlSource, index: int = 0) -> tuple[str, str, int]:
    """Question and answer of an example, and the count of its geometries."""
    example = source[index]
    return example.messages[-2]["content"], example.messages[-1]["content"], len(example.geometries)


def test_a_phrase_is_asked_for_and_what_it_finds_is_answered(build: Build, asks: Asks) -> None:
    train = build(asks("refer", RING, question="the ring"), asks("refer", question="the cross")).train()
    answer = '{"objects": [{"desc": "red ring", "bbox_2d": ' + PLACE + "}]}"
    assert said(train) == ("<image>Locate what this phrase refers to: the ring", answer, 1)
    assert said(train, 1) == ("<image>Locate what this phrase refers to: the cross", '{"objects": []}', 0)
    assert (train[0].task, train[0].image_size) == ("refer", (640, 480))


def test_a_region_is_asked_about_by_coord_tokens_and_answered_with_text(build: Build, asks: Asks) -> None:
    train = build(
        asks("region", RING, answer="a ring"),
        asks("region", RING, question="What colour has {box}?", answer="red"),
    ).train()
    assert said(train) == (f"<image>What is at {PLACE}?", "a ring", 0)
    assert said(train, 1) == (f"<image>What colour has {PLACE}?", "red", 0)


def test_a_region_in_pixels_is_asked_about_in_bins(build: Build, asks: Asks) -> None:
    whole = {"desc": "all", "bbox_2d": [0, 0, 640, 480]}
    train = build(asks("region", whole, answer="all"), space="pixel").train()
    assert said(train)[0] == "<image>What is at [<|coord_0|>, <|coord_0|>, <|coord_999|>, <|coord_999|>]?"
    numbers = build(asks("region", whole, answer="all"), space="pixel", coord_tokens=False).train()
    assert said(numbers)[0] == "<image>What is at [0, 0, 999, 999]?"


def test_text_is_asked_for_and_answered(build: Build, asks: Asks) -> None:
    train = build(
        asks("caption", answer="A ring."),
        asks("caption", question="Say it briefly.", answer="A ring."),
        asks("chat", question="How many?", answer="One."),
    ).train()
    assert [said(train, index) for index in range(3)] == [
        ("<image>Describe the image.", "A ring.", 0),
        ("<image>Say it briefly.", "A ring.", 0),
        ("<image>How many?", "One.", 0),
    ]


def test_a_caption_needs_no_objects(build: Build, asks: Asks) -> None:
    given = asks("caption", answer="A ring.")
    del given["objects"]
    assert said(build(given).train())[1] == "A ring."


def test_a_detection_may_ask_in_its_own_words(build: Build, asks: Asks) -> None:
    train = build(asks(None, RING), asks(None, RING, question="All of it?"), asks("detect", RING)).train()
    assert [said(train, index)[0] for index in range(3)] == [
        f"<image>{DENSE_PROMPT}",
        "<image>All of it?",
        f"<image>{DENSE_PROMPT}",
    ]


@pytest.mark.parametrize("validate", [True, False])
def test_the_names_that_others_have_for_a_question_and_a_point(build: Build, asks: Asks, validate: bool) -> None:
    point = {"desc": "cup", "point_2d": [12, 40]}
    given = asks(None, point, prompt="Point at every cup.")
    example = build(given, geometry=("point",), validate=validate).train()[0]
    assert example.messages[0]["content"] == "<image>Point at every cup."
    assert '"point": [<|coord_12|>, <|coord_40|>]' in example.messages[1]["content"]
    with pytest.raises(InputError, match=r"objects\[0\].point: not among the kinds `geometry` allows: bbox_2d, poly"):
        _ = build(given, validate=validate).train()[0]


@pytest.mark.parametrize(
    ("space", "box", "settings", "place"),
    [
        ("bin", [12, 40, 15, 60], {}, (13, 50)),
        ("pixel", [64, 48, 320, 240], {}, (299.7, 299.7)),
        ("norm1", [0.1, 0.1, 0.5, 0.5], {}, (299.7, 299.7)),
        ("pixel", [-64, 48, 320, 240], {"outside": "clip"}, (249.75, 299.7)),  # of what can be seen of it
    ],
)
def test_of_a_box_that_is_to_be_pointed_at_the_middle_is_trained(
    build: Build, asks: Asks, space: str, box: list[float], settings: dict[str, Any], place: tuple[float, float]
) -> None:
    given = asks("point", {"desc": "ring", "bbox_2d": box}, question="the ring")
    example = build(given, geometry=("point",), space=space, **settings).train()[0]
    [geometry] = example.geometries
    assert (geometry.kind, geometry.values) == ("point", pytest.approx(place))
    assert f'"point": [<|coord_{place[0]:.0f}|>, <|coord_{place[1]:.0f}|>]' in example.messages[1]["content"]


def test_a_box_that_is_to_be_pointed_at_moves_with_its_picture(build: Build, asks: Asks) -> None:
    given = asks("point", {"desc": "ring", "bbox_2d": [64, 48, 320, 240]}, question="the ring")
    augment = AugmentConfig(flip=1.0)
    example = build(given, geometry=("point",), space="pixel", augment=augment).train().in_epoch(0, 0)
    assert example.geometries[0].values == pytest.approx((999 - 299.7, 299.7))


def test_a_point_must_be_among_the_kinds(build: Build, asks: Asks) -> None:
    told = r"objects\[0\]\.bbox_2d: its middle is what is trained, and a point is not among"
    with pytest.raises(InputError, match=told):
        build(asks("point", RING, question="the ring"))


def test_a_phrase_is_pointed_at(build: Build, asks: Asks) -> None:
    record = asks("point", {"desc": "ring", "point": [12, 40]}, question="the ring")
    train = build(record, geometry=("point",)).train()
    question, answer, count = said(train)
    assert question == "<image>Point at what this phrase refers to: the ring"
    assert (answer.count("<|coord_"), count, train[0].geometries[0].kind) == (2, 1, "point")


def test_every_kind_of_place_can_be_referred_to(build: Build, asks: Asks) -> None:
    triangle = {"desc": "roof", "poly": [0, 0, 9, 0, 9, 9]}
    assert [geometry.kind for geometry in build(asks("refer", triangle, question="roof")).train()[0].geometries] == [
        "poly"
    ]
    assert said(build(asks("region", triangle, answer="a roof")).train())[0].count("<|coord_") == 6


# --- named categories -----------------------------------------------------------------------------------------------


def test_absent_categories_are_drawn_from_the_file_anew_in_each_epoch(build: Build, asks: Asks) -> None:
    labels = [{**RING, "desc": f"thing {k}"} for k in range(20)]
    train = build(*(asks("named", item) for item in labels), asks("refer", CUP, question="cup")).train()
    drawn = [train.in_epoch(epoch, 4).categories for epoch in range(30)]
    assert all(len(item) == 4 and "thing 4" in item for item in drawn)  # one that is there, three that are not
    assert {label for item in drawn for label in item} == {item["desc"] for item in labels}
    assert len({item.index("thing 4") for item in drawn}) == 4
    assert train.in_epoch(0, 4).messages[0]["content"].endswith(f"categories: {', '.join(drawn[0])}.")
    assert all(train.in_epoch(epoch, 4).messages[-1] == train[4].messages[-1] for epoch in range(3))


def test_what_is_drawn_follows_from_seed_epoch_and_place_alone(
    build: Build, write: Write, context: BuildContext, asks: Asks
) -> None:
    records = [asks("named", {**RING, "desc": f"thing {k}"}) for k in range(9)]
    prompts = {"named": ("Find {categories}.", "Where is any of {categories}?", "Point out {categories}")}
    config = CoordJsonlConfig(train=write(*records), prompts=prompts)
    source = CoordJsonl.open(config, context).train()
    questions = [[source.in_epoch(epoch, k).messages[0]["content"] for k in range(9)] for epoch in range(4)]
    # A data-loader process gets a copy, asks in another order, and begins in the middle.
    worker = pickle.loads(pickle.dumps(CoordJsonl.open(config, context).train()))
    assert worker.in_epoch(2, 7).messages[0]["content"] == questions[2][7]
    assert [worker.in_epoch(1, k).messages[0]["content"] for k in reversed(range(9))] == questions[1][::-1]
    assert len({item.split()[0] for epoch in questions for item in epoch}) == 3
    other = CoordJsonl.open(config, attrs.evolve(context, seed=1)).train()
    assert [other.in_epoch(0, k).messages[0]["content"] for k in range(9)] != questions[0]


def test_evaluation_asks_the_first_wording_whatever_the_seed(write: Write, context: BuildContext, asks: Asks) -> None:
    config = CoordJsonlConfig(
        train=write(asks("named", RING), asks("named", SQUARE), asks("named", CUP)),
        prompts={"named": ("Find {categories}.", "Where is {categories}?")},
        absent_categories=1,
    )
    asked = [CoordJsonl.open(config, attrs.evolve(context, seed=seed)).train()[1].messages for seed in (0, 7)]
    assert asked[0] == asked[1]
    assert asked[0][0]["content"].startswith("<image>Find ")


def test_of_a_federated_image_what_is_not_all_marked_is_neither_asked_nor_answered(build: Build, asks: Asks) -> None:
    lists = {"absent_categories": ["horse"], "incomplete_categories": ["cup"]}
    train = build(asks("named", RING, CUP, metadata=lists), asks("named", SQUARE)).train()
    example = train.in_epoch(0, 0)
    assert sorted(example.categories) == ["horse", "red ring"]
    assert "cup" not in example.messages[-1]["content"]
    assert [geometry.values for geometry in example.geometries] == [(12, 40, 300, 412)]


def test_a_list_of_categories_is_asked_as_it_stands(build: Build, asks: Asks) -> None:
    train = build(asks("named", RING, categories=["cow", "red ring"])).train()
    assert {train.in_epoch(epoch, 0).categories for epoch in range(5)} == {("cow", "red ring")}


def test_an_image_of_which_nothing_can_be_asked_is_found_before_training(build: Build, asks: Asks) -> None:
    wrong = asks("named", CUP, metadata={"incomplete_categories": ["cup"], "absent_categories": []})
    message = "train.jsonl:2: categories: missing; nothing is there to ask for, nor known to be absent; write the list"
    with pytest.raises(InputError, match=re.escape(message)):
        build(asks("named", RING), wrong)


@pytest.mark.parametrize("keys", [{}, {"categories": ["cow", "cup", "red ring", "blue square"]}])
def test_what_an_answer_has_no_room_for_is_not_asked_for(build: Build, asks: Asks, keys: dict[str, Any]) -> None:
    """It would count as absent. Of what is there more often than there is room, the answer has the first."""
    train = build(
        asks("named", RING, SQUARE, RING, CUP, **keys), asks("named", {**CUP, "desc": "cow"}), max_objects=2
    ).train()
    for example in (train[0], *(train.in_epoch(epoch, 0) for epoch in range(5))):
        assert set(example.categories) == {"red ring", "blue square", "cow"}
        assert "cup" not in example.messages[0]["content"]
        assert len(example.geometries) == 2
    short = build(asks("named", RING, SQUARE, CUP), object_order="top_left", max_objects=1).train()[0]
    assert set(short.categories) == {"cup"}


def test_labels_that_are_known_to_be_absent_are_asked_for_beside_what_there_is_room_for(
    build: Build, asks: Asks
) -> None:
    lists = {"absent_categories": ["horse"], "incomplete_categories": ["cup"]}
    train = build(asks("named", CUP, RING, SQUARE, metadata=lists), max_objects=1).train()
    assert sorted(train[0].categories) == ["horse", "red ring"]


@pytest.mark.parametrize("validate", [True, False])
def test_a_question_in_own_words_must_have_room_for_its_answer(build: Build, asks: Asks, validate: bool) -> None:
    own = asks("named", RING, SQUARE, question="Rings and squares?")
    assert build(own, max_objects=2).train()[0].messages[0]["content"] == "<image>Rings and squares?"
    with pytest.raises(
        InputError, match=r":1: question: asks in its own words for 2 objects, of which `max_objects = 1`"
    ):
        _ = build(own, max_objects=1, validate=validate).train()[0]
    alike = asks("named", RING, RING, question="Rings?")
    assert len(build(alike, max_objects=1).train()[0].geometries) == 1
    listed = build({**own, "question": "Where is {categories}?"}, max_objects=1, absent_categories=0).train()[0]
    assert listed.messages[0]["content"] == "<image>Where is red ring?"


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("task", ["refer", "point"])
def test_a_phrase_must_have_room_for_all_that_it_refers_to(build: Build, asks: Asks, task: str, validate: bool) -> None:
    both = asks(task, RING, SQUARE, question="both")
    keys = {"geometry": ("bbox_2d", "point"), "validate": validate}
    assert len(build(both, max_objects=2, **keys).train()[0].geometries) == 2
    message = "question: refers to 2 objects, of which `max_objects = 1` leaves out 1; raise max_objects"
    with pytest.raises(InputError, match=re.escape(f"train.jsonl:1: {message}")):
        _ = build(both, max_objects=1, **keys).train()[0]


def test_no_absent_category_is_drawn_where_the_question_lists_none(build: Build, asks: Asks) -> None:
    own = asks("named", RING, question="Find all rings.")
    nothing = asks("named", question="Find all knives.")
    train = build(own, nothing, asks("named", CUP), asks("named", SQUARE)).train()
    for example in (train[0], *(train.in_epoch(epoch, 0) for epoch in range(5))):
        assert (example.messages[0]["content"], example.categories) == ("<image>Find all rings.", ("red ring",))
    assert said(train, 1) == ("<image>Find all knives.", '{"objects": []}', 0)
    assert train[1].categories == ()
    assert set(train[2].categories) == {"cup", "red ring", "blue square"}


def test_absent_categories_are_those_of_the_records_within_the_limit(build: Build, asks: Asks) -> None:
    files = asks("named", CUP), asks("named", RING), asks("named", SQUARE), asks("named", {**CUP, "desc": "<|im_end|>"})
    assert {*build(*files, limit=3).train()[0].categories} == {"cup", "red ring", "blue square"}
    assert {*build(*files, limit=2).train()[0].categories} == {"cup", "red ring"}
    assert build(*files, limit=1).train()[0].categories == ("cup",)


def test_what_cannot_be_asked_for_is_not_asked_for_by_another_record(build: Build, asks: Asks) -> None:
    wrong = [{**CUP, "desc": label} for label in ("<|im_end|>", "<|coord_5|>", " ")]
    train = build(asks("named", CUP), asks("named", RING, *wrong), validate=False).train()
    assert {*train[0].categories} == {"cup", "red ring"}
    with pytest.raises(InputError, match=r"train\.jsonl:2: objects\[1\]\.desc: contains '<\|im_end\|>'"):
        _ = train[1]


@pytest.mark.parametrize(
    ("augment", "drawn"),
    [
        ({"flip": 1.0}, {"cup", "red ring"}),
        ({"flip": 1.0, "left_right": "exchange"}, {"cup", "red ring", "right shoe"}),
        ({"resize": (0.5, 0.5)}, {"cup", "red ring", "left shoe"}),
    ],
)
def test_words_that_a_mirrored_image_makes_wrong_are_not_drawn(
    build: Build, asks: Asks, write: Write, augment: dict[str, Any], drawn: set[str]
) -> None:
    files = asks("named", CUP), asks("named", RING, {**CUP, "desc": "left shoe"})
    held_out = write(*files, name="v.jsonl")
    built = build(*files, validation=held_out, validate=False, augment=AugmentConfig(**augment))
    assert {*built.train().in_epoch(0, 0).categories} == drawn
    validation = built.validation()
    assert validation is not None
    assert {*validation[0].categories} == {"cup", "red ring", "left shoe"}  # which is never mirrored


# --- prompts --------------------------------------------------------------------------------------------------------


def test_wordings_are_drawn_in_training(build: Build, asks: Asks) -> None:
    prompts = {"refer": ("Find {phrase}.", "Where is {phrase}?"), "detect": ("Find all.", "Find everything.")}
    train = build(asks("refer", RING, question="it"), asks(None, RING), prompts=prompts).train()
    for index, wordings in enumerate((["Find it.", "Where is it?"], ["Find all.", "Find everything."])):
        drawn = {train.in_epoch(epoch, index).messages[0]["content"] for epoch in range(20)}
        assert drawn == {f"<image>{text}" for text in wordings}
        assert train[index].messages[0]["content"] == f"<image>{wordings[0]}"


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"referr": ("x",)}, "'referr' is no task; did you mean 'refer'?"),
        ({"chat": ("x",)}, "chat has no prompt, each of its records asks a question of its own; leave it out"),
        ({"refer": ()}, "refer must hold one wording at least, got none"),
        ({"refer": ("Find {phrase}", " ")}, "refer[1] must not be empty"),
        (
            {"refer": ("Find it.",)},
            "refer[0] must hold {phrase}, which stands for what a record asks for; got 'Find it.'",
        ),
        (
            {"refer": ("Find {categories}",)},
            "refer[0] has the placeholder {categories}, and its task fills {phrase}; got 'Find {categories}'",
        ),
        (
            {"caption": ("Say {phrase}",)},
            "caption[0] has the placeholder {phrase}, and its task fills none; got 'Say {phrase}'",
        ),
        (
            {"refer": ("<image>{phrase}",)},
            "refer[0] contains '<image>', which the model's template reads as a control token; "
            "write plain text (the image is put before the prompt by itself)",
        ),
    ],
)
def test_a_prompt_that_cannot_be_asked_is_refused(prompts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CoordJsonlConfig(train=Path("train.jsonl"), prompts=prompts)


def test_a_prompt_may_show_how_an_answer_is_written() -> None:
    shown = 'Find {phrase}; answer {"objects": [{"desc": "...", "bbox_2d": [...]}]}'
    assert CoordJsonlConfig(train=Path("a.jsonl"), prompts={"refer": (shown,)}).wordings("refer") == (shown,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "Find all.", "prompts": {"detect": ("x",)}}, "prompt and prompts.detect ask the same; keep one"),
        ({"mode": "summary", "prompts": {"refer": ("{phrase}",)}}, 'prompts are for `mode = "dense"`'),
        ({"prompt": "Find {categories}."}, "prompt has the placeholder {categories}, and its task fills none"),
        ({"prompt": "Say it {box}.", "mode": "summary"}, "prompt has the placeholder {box}, and its task fills none"),
    ],
)
def test_prompts_that_contradict_other_keys_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        CoordJsonlConfig(train=Path("train.jsonl"), **settings)


def test_summaries_have_no_tasks(build: Build, asks: Asks) -> None:
    message = 'train.jsonl:1: task: `mode = "summary"` asks each record for its summary; leave the key out'
    with pytest.raises(InputError, match=re.escape(message)):
        build(asks("caption", answer="x", summary="y"), mode="summary")


def test_the_builder_says_its_prompts_where_there_are_tasks(build: Build, asks: Asks) -> None:
    assert build(asks(None, RING), prompt="Find all.").prompts is None
    found = build(asks("refer", RING, question="it"), prompt="Find all.", prompts={"refer": ("{phrase}!", "x{phrase}")})
    assert found.prompts is not None
    assert (found.prompts["detect"], found.prompts["refer"]) == ("Find all.", "{phrase}!")
    assert "chat" not in found.prompts


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["task", "question", "answer", "categories"])
def test_the_fast_path_leaves_records_with_tasks_to_the_reference(
    build: Build, asks: Asks, context: BuildContext, key: str
) -> None:
    values = {"task": "refer", "question": "x", "answer": "x", "categories": ["x"]}
    source = build(asks(None, RING)).train()
    quick = quick_reader(source.config, context.quantisation)
    assert quick is not None
    line = source.file.lines.read(0)
    assert quick.read(line) is not None
    assert quick.read(json.dumps({**json.loads(line), key: values[key]}).encode()) is None


def test_a_wrong_record_is_found_when_it_is_used(build: Build, asks: Asks) -> None:
    train = build(asks("refer", RING), validate=False).train()
    with pytest.raises(InputError, match=r'^train\.jsonl:1: question: missing; the task "refer" needs it$') as caught:
        train[0]
    assert isinstance(caught.value.__cause__, RecordError)
