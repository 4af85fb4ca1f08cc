"""What records ask: their tasks, what each needs, the categories that are named, and the question."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coordcore.coords import DEFAULT_COORDS
from coordcore.records.annotations import Rules, read_annotations
from coordcore.records.asking import asked_categories, asks_in_own_words, check_asked, question_of
from coordcore.records.record import LeftOut, Record, RecordError, parse_record
from coordcore.tasks import TASKS

CAT, DOG = ({"desc": desc, "bbox_2d": [1, 2, 3, 4]} for desc in ("cat", "dog"))


def record(**content: Any) -> Record:
    return parse_record(json.dumps({"images": ["a.png"], "width": 10, "height": 10, "objects": [], **content}).encode())


WRONG = [
    ("task: 'reffer' is no task; did you mean 'refer'?", {"task": "reffer"}),
    ("task: 'locate' is no task; known: caption, chat, detect, named, point, refer, region", {"task": "locate"}),
    ("task: '' is no task; known: caption, chat, detect, named, point, refer, region", {"task": ""}),
    ('question: missing; the task "refer" needs it', {"task": "refer"}),
    ('answer: missing; the task "caption" needs it', {"task": "caption"}),
    ('answer: missing; the task "region" needs it', {"task": "region", "objects": [CAT]}),
    ('question: missing; the task "chat" needs it', {"task": "chat", "answer": "two"}),
    (
        'answer: the task "detect" takes none; leave it out, or name the `task` that it belongs to',
        {"answer": "two"},
    ),
    (
        'categories: the task "refer" takes none; leave it out, or name the `task` that it belongs to',
        {"task": "refer", "question": "cat", "categories": ["cat"]},
    ),
    ("question: empty; write what is there", {"task": "refer", "question": " "}),
    (
        "question: contains '<|im_end|>', which the tokenizer or the template reads as a control token; reword it",
        {"task": "refer", "question": "a cat<|im_end|>"},
    ),
    (
        "answer: contains '<|coord_7|>', which the tokenizer or the template reads as a control token; reword it",
        {"task": "chat", "question": "Where?", "answer": "at <|coord_7|>"},
    ),
    (
        "categories: empty; list what is asked for, or leave the key out, which asks for what is there",
        {"task": "named", "categories": []},
    ),
    (
        "categories[1]: contains '<image>', which the tokenizer or the template reads as a control token; reword it",
        {"task": "named", "categories": ["cat", "<image>"]},
    ),
    (
        "categories[2]: 'cat' is there twice, or in metadata.incomplete_categories; drop it",
        {"task": "named", "categories": ["cat", "dog", "cat"]},
    ),
    (
        "categories[0]: 'cat' is there twice, or in metadata.incomplete_categories; drop it",
        {"task": "named", "categories": ["cat"], "metadata": {"incomplete_categories": ["cat"]}},
    ),
    (
        "metadata.incomplete_categories: expected array | null, got str",
        {"task": "named", "categories": ["cat"], "metadata": {"incomplete_categories": "cat"}},
    ),
    (
        "objects[1].desc: 'dog' is not among `categories`; ask for it too",
        {"task": "named", "categories": ["cat"], "objects": [CAT, DOG]},
    ),
    (
        'objects: holds 0, and the task "region" takes one, the place; write a record for each',
        {"task": "region", "answer": "a cat"},
    ),
    (
        'objects: holds 2, and the task "region" takes one, the place; write a record for each',
        {"task": "region", "answer": "x", "objects": [CAT, DOG]},
    ),
    (
        'objects: holds 1, and the task "caption" takes none; leave the key out',
        {"task": "caption", "answer": "x", "objects": [CAT]},
    ),
    (
        "objects[1].desc: 'dog' is in metadata.absent_categories too; drop it there, or the object",
        {"objects": [CAT, DOG], "metadata": {"absent_categories": ["cow", "dog"]}},
    ),
    (
        'question: must hold {box}, its place, for the task "region", and for no other; reword it',
        {"task": "region", "question": "What is this?", "answer": "a cat", "objects": [CAT]},
    ),
    *(
        ('question: must hold {box}, its place, for the task "region", and for no other; reword it', content)
        for content in (
            {"question": "What is at {box}?"},
            {"task": "refer", "question": "cat at {box}"},
            {"task": "chat", "question": "What is at {box}?", "answer": "a cat", "objects": None},
        )
    ),
    *(
        (f'question: holds {other}, which the task "{task or "detect"}" does not fill in; reword it', content)
        for task, other, content in (
            (None, "{categories}", {"question": "Find these: {categories}."}),
            ("named", "{phrase}", {"task": "named", "question": "Find {categories}, not {phrase}"}),
            ("refer", "{phrase}", {"task": "refer", "question": "cat of {phrase}"}),
            ("point", "{categories}", {"task": "point", "question": "one of {categories}"}),
        )
    ),
    *(
        (
            "categories[1]: 'cow' is neither among the objects nor known to be absent (metadata.absent_categories, "
            "crowd and points); drop it",
            {"task": "named", "categories": ["cat", "cow", "dog"], "objects": [CAT], "metadata": metadata},
        )
        for metadata in (
            {"absent_categories": ["dog"]},
            {"incomplete_categories": [], "absent_categories": ["dog"]},
            {"crowd": [{"desc": "cow", "bbox_2d": [1, 2, 3, 4]}]},
            {"points": [{"desc": "cow", "point": [1, 2]}]},
        )
    ),
    (
        'objects[0]: the task "point" takes a point or bbox_2d; write one, or name another task',
        {"task": "point", "question": "cat", "objects": [{"desc": "cat", "poly": [1, 2, 3, 4, 5, 0]}]},
    ),
    (
        'objects[1]: the task "refer" takes a bbox_2d or poly or quad; write one, or name another task',
        {"task": "refer", "question": "cat", "objects": [CAT, {"desc": "cat", "point": [1, 2]}]},
    ),
    ("objects: missing; write an empty list when the image holds none", {"task": "named", "objects": None}),
]


@pytest.mark.parametrize(("message", "content"), WRONG, ids=[message[:50] for message, _ in WRONG])
def test_a_record_without_what_its_task_needs_is_refused(message: str, content: dict[str, Any]) -> None:
    with pytest.raises(RecordError) as caught:
        read_annotations(record(**content), Rules(space="bin"))
    assert str(caught.value) == message


def test_keys_of_a_task_are_texts() -> None:
    with pytest.raises(RecordError, match=r"categories: expected array . null, got str"):
        record(task="named", categories="cat")


@pytest.mark.parametrize(
    "content",
    [
        {"objects": [CAT], "question": "Find the cat."},
        {"task": "detect", "objects": [CAT]},
        {"task": "refer", "question": "left cat"},
        {"task": "point", "question": "left cat", "objects": [{"desc": "cat", "point": [1, 2]}]},
        {"task": "point", "question": "right cat"},
        {"task": "point", "question": "left cat", "objects": [CAT]},
        {"task": "named", "categories": ["cat", "dog"], "objects": [CAT]},
        {"task": "region", "objects": [CAT], "question": "Is {box} a cat?", "answer": "yes"},
        {"task": "caption", "objects": None, "answer": "A cat."},
        {"task": "chat", "question": "How many?", "answer": "One."},
        {"task": "chat", "question": "What does {phrase} stand for here?", "answer": "A name."},
    ],
)
def test_a_record_with_what_its_task_needs_is_read(content: dict[str, Any]) -> None:
    found = record(**content)
    assert check_asked(found, DEFAULT_COORDS) == TASKS[content.get("task", "detect")]
    assert len(read_annotations(found, Rules(space="bin"))) == len(content.get("objects") or ())


def test_an_object_that_was_left_out_is_no_category() -> None:
    given = {"images": ["a.png"], "width": 9, "height": 9, "task": "named", "categories": ["cat"], "objects": [{}, CAT]}
    left_out = LeftOut()
    found = parse_record(json.dumps(given).encode(), left_out)
    assert [item.desc for item in read_annotations(found, Rules(space="bin"), left_out)] == ["cat"]


# --- categories -----------------------------------------------------------------------------------------------------

FILE = ("cat", "cow", "dog", "horse", "sheep")


def test_absent_categories_are_drawn_from_those_of_the_file() -> None:
    found = [asked_categories(record(task="named", objects=[CAT, DOG, CAT]), FILE, 2, f"{draw}") for draw in range(50)]
    assert all(len(item) == 4 and {"cat", "dog"} < {*item} <= {*FILE} for item in found)
    assert {label for item in found for label in item} == {*FILE}
    assert len({item.index("cat") for item in found}) == 4  # nothing is to be learnt from the order
    assert found[7] == asked_categories(record(task="named", objects=[CAT, DOG]), FILE, 2, "7")


def test_an_image_with_nothing_on_it_is_asked_for_something() -> None:
    assert len(asked_categories(record(task="named"), FILE, 0, "")) == 1


def test_of_a_federated_image_only_verified_absences_are_asked_for() -> None:
    lists = {"absent_categories": ["horse", "cow"], "incomplete_categories": ["dog"]}
    asked = asked_categories(record(task="named", objects=[CAT, DOG], metadata=lists), FILE, 9, "")
    assert sorted(asked) == ["cat", "cow", "horse"]
    silent = {"absent_categories": []}  # nothing was looked for but what is there
    assert asked_categories(record(task="named", objects=[CAT], metadata=silent), FILE, 9, "") == ["cat"]


def test_a_list_is_asked_as_it_stands() -> None:
    given = record(task="named", categories=["dog", "cat"], objects=[CAT])
    assert asked_categories(given, FILE, 9, "") == ["dog", "cat"]


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        ({"objects": [CAT, DOG, CAT]}, ["cat", "dog"]),
        ({"objects": []}, []),
        ({"objects": [CAT], "categories": ["dog", "cat"]}, ["dog", "cat"]),
        ({"objects": [CAT], "metadata": {"absent_categories": ["cow"]}}, ["cat"]),
        ({"objects": [CAT, DOG], "metadata": {"incomplete_categories": ["dog"]}}, ["cat"]),
        ({"objects": [], "metadata": {"absent_categories": []}}, []),
    ],
)
def test_a_question_in_its_own_words_asks_for_nothing_that_is_drawn(content: dict[str, Any], asked: list[str]) -> None:
    own = record(task="named", question="Find all pets.", **content)
    assert asks_in_own_words(own)
    assert asked_categories(own, FILE, 3, "1") == asked


@pytest.mark.parametrize(
    "content",
    [{"task": "named"}, {"task": "named", "question": "Any {categories}?"}, {"task": "refer", "question": "the cat"}],
)
def test_other_questions_are_not_in_words_of_their_own(content: dict[str, Any]) -> None:
    assert not asks_in_own_words(record(**content))


def test_a_record_with_nothing_to_ask_for_is_refused() -> None:
    with pytest.raises(RecordError, match="categories: missing; nothing is there to ask for, nor known to be absent"):
        asked_categories(record(task="named", metadata={"absent_categories": []}), FILE, 9, "")


# --- questions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "prompt", "question"),
    [
        ({"task": "refer", "question": "red {ring}"}, None, "Locate what this phrase refers to: red {ring}"),
        ({"task": "refer", "question": "it"}, "Find {phrase}, {phrase}!", "Find it, it!"),
        ({"task": "named"}, None, 'Locate every object of these categories: cat, "mouse, computer".'),
        ({"task": "named", "question": "Any {categories}?"}, "x", 'Any cat, "mouse, computer"?'),
        ({"task": "region", "answer": "x"}, None, "What is at [1, 2]?"),
        ({"task": "region", "question": "Is {box} red?"}, "x {box}", "Is [1, 2] red?"),
        ({"task": "caption"}, None, "Describe the image."),
        ({"task": "chat", "question": "Why {}?"}, None, "Why {}?"),
        ({}, "All of it.", "All of it."),
        ({"question": "All cats."}, "All of it.", "All cats."),
    ],
)
def test_the_question_of_a_record(content: dict[str, Any], prompt: str | None, question: str) -> None:
    categories = ("cat", "mouse, computer")
    assert question_of(record(**content), prompt, categories=categories, box="[1, 2]") == question


def test_what_a_crowd_region_shows_is_not_absent() -> None:
    crowd = {"crowd": [{"desc": "person", "bbox_2d": [1, 2, 30, 40]}]}
    asked = asked_categories(record(task="named", objects=[CAT], metadata=crowd), ("cat", "cow", "person"), 3, "1")
    assert sorted(asked) == ["cat", "cow"]


def test_what_points_under_metadata_show_is_not_absent() -> None:
    points = {"points": [{"desc": "eye", "points": [1, 2]}, 3, {"points": [1, 2]}]}
    asked = asked_categories(record(task="named", objects=[CAT], metadata=points), ("cat", "cow", "eye"), 3, "1")
    assert sorted(asked) == ["cat", "cow"]
    with pytest.raises(RecordError, match=r"metadata\.points: expected array"):
        asked_categories(record(task="named", objects=[CAT], metadata={"points": 3}), ("cow",), 3, "1")


def test_no_question_names_an_answer_format() -> None:
    assert [name for name, task in TASKS.items() if "json" in task.prompt.lower()] == []
