"""Records with tasks: what is asked about them, the answers, and the figures of each task."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from evaluation_support import header, row, truth
from PIL import Image
from prediction_support import checkpoint
from typer.testing import CliRunner

from coordcore import Example, InputError
from coordcore.cli import app
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.records.answers import Unread
from coordcore_detection.evaluate import results, tables
from coordcore_detection.evaluate.compare import compare
from coordcore_detection.evaluate.evaluation import Evaluated, evaluate
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.evaluate.truth_sources import truth_from_examples, truth_from_records
from coordcore_detection.evaluate.truth_tasks import read_prompts
from coordcore_detection.predict import answer_files, continuing, foreign, prediction_files
from coordcore_detection.predict.boxes import with_question
from coordcore_detection.predict.predictions import Box, Row

RING = {"desc": "red ring", "bbox_2d": [12, 40, 300, 412]}
SQUARE = {"desc": "blue square", "bbox_2d": [500, 40, 600, 90]}
PLACE = "[<|coord_12|>, <|coord_40|>, <|coord_300|>, <|coord_412|>]"


def answers_in(data: bytes) -> list[answer_files.Given]:
    return answer_files.read(answer_files.items(Path("x"), data))


def asks(task: str | None, *objects: dict[str, Any], **keys: Any) -> dict[str, Any]:
    named = {} if task is None else {"task": task}
    return {"images": ["a.png"], "width": 999, "height": 999, "objects": list(objects), **named, **keys}


def read(folder: Path, *records: dict[str, Any], **settings: Any) -> list[TruthImage]:
    path = folder / "val.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return list(truth_from_records(path, **{"quantisation": DEFAULT_QUANTISATION, "question": "All."} | settings))


# --- what is asked --------------------------------------------------------------------------------------------------


def test_every_record_of_an_image_asks_its_own_question(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        asks(None, RING),
        asks("refer", RING, question="the ring"),
        asks("refer", question="the cross"),
        asks("region", RING, question="What colour is {box}?", answer="red"),
        asks("caption", answer="A ring."),
        asks("named", RING, categories=["cow", "red ring"]),
        asks(None, RING, question="Everything."),
        system="Be brief.",
        prompts={"refer": "Find {phrase}."},
    )
    assert [item.asked for item in found] == [
        "All.",
        "Find the ring.",
        "Find the cross.",
        f"What colour is {PLACE}?",
        "Describe the image.",
        "Locate every object of these categories: cow, red ring.",
        "Everything.",
    ]
    assert [item.key for item in found] == ["a.png", *(f"a.png#{k}" for k in range(2, 8))]
    assert [len(item.labels) for item in found] == [1, 1, 0, 0, 0, 1, 1]
    assert [item.answer for item in found][3:5] == ["red", "A ring."]
    assert all(item.messages[0] == {"role": "system", "content": "Be brief."} for item in found)


@pytest.mark.parametrize(
    ("space", "box"), [("pixel", [12, 40, 300, 412]), ("norm1", [k / 999 for k in (12, 40, 300, 412)])]
)
def test_a_place_is_asked_about_in_bins_whatever_the_records_hold(tmp_path: Path, space: str, box: list[float]) -> None:
    [found] = read(tmp_path, asks("region", {"desc": "x", "bbox_2d": box}, answer="x"), space=space)
    assert found.asked == f"What is at {PLACE}?"


def test_a_model_of_plain_numbers_is_asked_in_them(tmp_path: Path) -> None:
    [found] = read(tmp_path, asks("region", RING, answer="x"), coord_tokens=False)
    assert found.asked == "What is at [12, 40, 300, 412]?"


def test_absent_categories_are_drawn_from_the_place_in_the_file(tmp_path: Path) -> None:
    records = [asks("named", {**RING, "desc": f"thing {k}"}) for k in range(9)]
    first, again = read(tmp_path, *records), read(tmp_path, *records)
    assert [item.categories for item in first] == [item.categories for item in again]
    assert all(len(item.categories) == 4 and f"thing {k}" in item.categories for k, item in enumerate(first))


def test_what_is_not_all_marked_is_neither_asked_for_nor_true(tmp_path: Path) -> None:
    lists = {"absent_categories": ["horse"], "incomplete_categories": ["blue square"]}
    [found] = read(tmp_path, asks("named", RING, SQUARE, metadata=lists))
    assert (sorted(found.categories), found.labels, len(found.boxes)) == (["horse", "red ring"], ("red ring",), 1)


def test_a_question_in_its_own_words_has_no_absent_categories_but_those_it_lists(tmp_path: Path) -> None:
    own = "Find all rings and squares."
    images = read(
        tmp_path,
        asks("named", RING, question=own),
        asks("named", question=own),
        asks("named", RING, categories=["cow", "red ring"], question=own),
        asks("named", SQUARE),
    )
    assert [item.categories for item in images[:3]] == [("red ring",), (), ("cow", "red ring")]
    assert {*images[3].categories} == {"blue square", "cow", "red ring"}
    assert [item.asked for item in images[:3]] == [own] * 3
    rows = [with_question(row(image.key, [], width=999, height=999), image) for image in images]
    named = evaluate(images, header(), rows).result.tasks["named"]
    assert (named["records"], named["absent"], named["absent_found"]) == (4.0, 3.0, 0.0)


def test_examples_that_ask_in_their_own_words_are_measured() -> None:
    example = attrs.evolve(
        Example.boxes(
            [("knife", (1, 2, 3, 4))], image=Image.new("RGB", (10, 10)), image_size=(10, 10), prompt="Knives?"
        ),
        task="named",
        categories=("knife",),
    )
    images = list(truth_from_examples([example], DEFAULT_QUANTISATION))
    rows = [with_question(row("example-0", [], width=10, height=10), images[0])]
    assert rows[0].question == "Knives?"
    assert evaluate(images, header(), rows).result.tasks["named"]["absent"] == 0.0


def test_a_record_that_cannot_be_asked_is_named_with_its_line(tmp_path: Path) -> None:
    wrong = asks("named", metadata={"absent_categories": []})
    with pytest.raises(InputError, match=r"val\.jsonl:2: categories: missing; nothing is there to ask for"):
        read(tmp_path, asks(None, RING), wrong)


def test_examples_tell_their_task(tmp_path: Path) -> None:
    image = Image.new("RGB", (10, 10))
    text = Example(
        messages=[{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "A ring."}],
        images=[image],
        task="caption",
    )
    named = attrs.evolve(
        Example.boxes([("cat", (1, 2, 3, 4))], image=image, image_size=(10, 10), prompt="Find cat, cow."),
        task="named",
        categories=("cat", "cow"),
    )
    found = list(truth_from_examples([text, named], DEFAULT_QUANTISATION))
    assert [(item.task, item.categories, item.answer, len(item.labels)) for item in found] == [
        ("caption", (), "A ring.", 0),
        ("named", ("cat", "cow"), "", 1),
    ]


@pytest.mark.parametrize("given", ["refer", "chat=x", "detect=x", "reffer={phrase}", "refer=Find it.", "caption= "])
def test_a_prompt_that_cannot_be_asked_is_refused(given: str) -> None:
    with pytest.raises(InputError, match=f"^--prompt: {re.escape(repr(given))} "):
        read_prompts([given])


def test_prompts_of_the_command_line() -> None:
    assert read_prompts(["refer=Find {phrase}=?", "caption=Say it."]) == {
        "refer": "Find {phrase}=?",
        "caption": "Say it.",
    }


# --- figures --------------------------------------------------------------------------------------------------------

WHOLE = (0.0, 0.0, 100.0, 100.0)


def asked(key: str, task: str, boxes: Sequence[Any] = (), **more: Any) -> TruthImage:
    return attrs.evolve(truth(key, boxes), task=task, **more)


def measured(images: Sequence[TruthImage], rows: Sequence[Row], **settings: Any) -> Evaluated:
    return evaluate(images, header(), rows, **settings)


def figures(images: Sequence[TruthImage], rows: Sequence[Row], task: str) -> dict[str, float | None]:
    tasks = measured(images, rows).result.tasks
    assert isinstance(tasks, dict)
    return tasks[task]


def test_a_phrase_is_right_by_the_box_of_highest_score() -> None:
    left = (0.0, 0.0, 50.0, 100.0)
    images = [asked(key, "refer", [("ring", WHOLE)]) for key in "abcd"] + [asked("e", "refer"), asked("f", "refer")]
    rows = [
        row("a", [("another name", WHOLE)]),  # IoU 1
        row("b", [("ring", left), ("ring", WHOLE)], [0.4, 0.9]),  # the better one counts
        row("c", [("ring", left), ("ring", WHOLE)], [0.9, 0.4]),  # .5, which is right at .5 alone
        row("d", []),
        row("e", []),  # nothing is there, nothing is found
        row("f", [("ring", left)]),
    ]
    assert figures(images, rows, "refer") == pytest.approx(
        {
            "records": 6,
            "accuracy_50": 4 / 6,
            "accuracy_70": 3 / 6,
            "accuracy_90": 3 / 6,
            "found_50": 3 / 4,
            "mean_iou": (1 + 1 + 0.5 + 0) / 4,
            "absent": 2,
            "absent_right": 0.5,
        }
    )


def test_of_several_true_boxes_the_nearest_counts() -> None:
    left, right = (0.0, 0.0, 50.0, 100.0), (50.0, 0.0, 100.0, 100.0)
    images = [asked("a", "refer", [("ring", left), ("ring", right)])]
    found = figures(images, [row("a", [("ring", right)])], "refer")
    assert (found["accuracy_90"], found["mean_iou"], found["absent_right"]) == (1.0, 1.0, None)


def test_without_scores_the_first_box_counts() -> None:
    images = [asked("a", "refer", [("ring", WHOLE)])]
    boxes = [("ring", WHOLE), ("ring", (0.0, 0.0, 1.0, 1.0))]
    assert figures(images, [row("a", boxes, [float("nan")] * 2)], "refer")["accuracy_90"] == 1.0


def test_a_point_is_right_near_a_true_one() -> None:
    true = [(label, 50.0, 50.0) for label in ("ring",)]
    images = [asked(key, "point", points=tuple(true)) for key in "abc"] + [asked("d", "point"), asked("e", "point")]

    def pointed(key: str, *places: tuple[float, float], scores: Sequence[float] = (0.5, 0.5)) -> Row:
        found = row(key, [("x", (x, y, x, y)) for x, y in places], scores[: len(places)])
        for box in found.boxes:
            box.kind = "point"
        return found

    rows = [
        pointed("a", (53.0, 50.0)),  # within 5 % of 100
        pointed("b", (53.0, 50.0), (90.0, 50.0), scores=(0.2, 0.9)),  # the worse one is the answer
        pointed("c"),
        pointed("d"),  # nothing is there, nothing is found
        pointed("e", (1.0, 1.0)),
    ]
    found = figures(images, rows, "point")
    assert (found["records"], found["hit_rate"], found["absent"], found["absent_right"]) == (5, 0.4, 2, 0.5)
    assert found["agnostic_point_distance"] == pytest.approx((3 + 3) / 2)


def test_a_point_is_right_anywhere_in_a_true_box(tmp_path: Path) -> None:
    given = [asks("point", RING, question="the ring", images=[f"{key}.png"]) for key in "abc"]
    images = read(tmp_path, *given, asks("refer", SQUARE, question="the square", images=["d.png"]))
    kinds = [(len(item.boxes), len(item.targets), *item.kinds) for item in images[2:]]
    assert kinds == [(0, 1, "point"), (1, 0, "bbox_2d")]
    places = {"a.png": (12.0, 40.0), "b.png": (301.0, 100.0)}  # on its edge, and beside it
    size = {"width": 999, "height": 999}
    rows = [row(key, [("x", (*place, *place))], **size) for key, place in places.items()]
    for item in rows:
        item.boxes[0].kind = "point"
    rows.append(row("d.png", [("blue square", tuple(images[3].boxes[0].tolist()))], **size))
    result = measured(images, rows).result
    assert result.metrics["AP"] == 1.0  # what is to be pointed at is no box that an answer misses
    assert result.metrics["agnostic_point_accuracy"] == pytest.approx(1 / 3)
    assert isinstance(result.tasks, dict)
    assert {*results.task_figures(result)}.isdisjoint(result.metrics)
    assert (result.tasks["point"]["hit_rate"], result.tasks["point"]["absent"]) == (pytest.approx(1 / 3), 0)
    assert result.contract["truth"]["targets"] == 3


def test_texts_have_no_points_and_no_outlines(tmp_path: Path) -> None:
    objects = [{"desc": "a", "quad": [1, 1, 9, 1, 9, 9, 1, 9]}]
    [found] = read(tmp_path, asks("region", *objects, answer="x"))
    assert (found.outlines, found.points, found.kinds, found.asked.count("<|coord_")) == ({}, (), frozenset(), 8)


def test_outlines_stay_with_their_boxes_where_some_are_not_asked_for(tmp_path: Path) -> None:
    quad = {"desc": "cup", "quad": [1, 1, 9, 1, 9, 9, 1, 9]}
    lists = {"incomplete_categories": ["blue square"]}
    [found] = read(tmp_path, asks("named", SQUARE, quad, RING, metadata=lists))
    assert (found.labels, [*found.outlines]) == (("cup", "red ring"), [0])


def test_absent_categories_that_are_found_are_counted() -> None:
    images = [
        asked("a", "named", [("cat", WHOLE)], categories=("cat", "dog", "cow")),
        asked("b", "named", [], categories=("dog",)),
    ]
    rows = [row("a", [("cat", WHOLE), ("dog", WHOLE), ("dog", WHOLE), ("horse", WHOLE)]), row("b", [])]
    found = figures(images, rows, "named")
    assert (found["absent"], found["absent_found"]) == (3, 1 / 3)
    assert (found["AP"], found["precision_50"], found["recall_50"]) == (1.0, 0.25, 1.0)


NOT_READ: dict[str, dict[str, Any] | None] = {
    "no answer": None,
    "garbage": {"unread": [Unread(at="", reason="no list of objects")]},
    "a broken coordinate": {"unread": [Unread(at="objects[0].bbox_2d", reason='"x" where a number belongs')]},
    "a list without an end": {"unread": [Unread(at="objects", reason="cut off: the list does not end")]},
    "too long": {"stopped": "length"},
    "a loop": {"stopped": "repetition"},
    "an image that was not shown": {"unread": [Unread(at=prediction_files.NO_IMAGE, reason="is no image")]},
}


@pytest.mark.parametrize("answer", NOT_READ.values(), ids=NOT_READ.keys())
def test_an_answer_that_was_not_read_is_wrong_where_nothing_is_there(answer: dict[str, Any] | None) -> None:
    images = [
        *(asked(key, "refer") for key in "ab"),
        *(asked(key, "point") for key in "cd"),
        *(asked(key, "named", categories=("dog",)) for key in "ef"),
    ]
    rows = [row(key, []) for key in "ace"]
    rows += [row(key, [], **answer) for key in "bdf" if answer is not None]
    tasks: Any = measured(images, rows).result.tasks
    assert [tasks["refer"][name] for name in ("accuracy_50", "absent", "absent_right")] == [0.5, 2, 0.5]
    assert [tasks["point"][name] for name in ("hit_rate", "absent", "absent_right")] == [0.5, 2, 0.5]
    assert [tasks["named"][name] for name in ("absent", "absent_found")] == [1, 0]


def test_without_any_answer_no_absent_category_was_left_alone() -> None:
    images = [asked("a", "named", categories=("dog",)), asked("b", "named", categories=("dog",))]
    found = figures(images, [row("a", [], stopped="length")], "named")
    assert (found["absent"], found["absent_found"]) == (0, None)


def test_an_answer_that_was_cut_off_behind_a_box_has_found_that_box() -> None:
    images = [asked("a", "named", categories=("dog", "cow"))]
    found = figures(images, [row("a", [("dog", WHOLE)], stopped="length")], "named")
    assert (found["absent"], found["absent_found"]) == (2, 0.5)


def test_what_is_said_around_an_empty_list_changes_nothing() -> None:
    texts = ["<think>A ring?</think>[]", "I see none.\n```json\n[]\n```"]
    images = [asked(key, "refer") for key in "ab"]
    given = [json.dumps({"image": key, "answer": text}) for key, text in zip("ab", texts, strict=True)]
    rows = foreign.rows(answers_in("\n".join(given).encode()), images, foreign.Written.said("pixel"))
    assert all(item.unread for item in rows)
    assert figures(images, rows, "refer")["absent_right"] == 1.0


def test_a_synonym_of_an_absent_category_is_that_category() -> None:
    images = [asked("a", "named", [("cat", WHOLE)], categories=("cat", "dog"))]
    rows = [row("a", [("kitten", WHOLE), ("puppy", WHOLE)])]
    tasks = measured(images, rows, synonyms={"cat": ("kitten",), "dog": ("puppy",)}).result.tasks
    assert isinstance(tasks, dict)
    assert tasks["named"]["absent_found"] == 1.0


# SQuAD's evaluate-v2.0: both texts in lower case; then the 32 characters of ASCII's punctuation go, nothing in their
# place; then a, an and the as whole words become a blank; then split at white space. Exact match: the words are equal.
# F1: shared words, each as often as both have it, over the mean of both counts; where a text has no words, whether
# both have none. Values worked out by that, by hand.
@pytest.mark.parametrize(
    ("true", "said", "equal", "exact", "f1"),
    [
        ("A red cup.", "a  red CUP.\n", 1, 1, 1),
        ("A red cup.", "red cup", 0, 1, 1),
        ("a red cup", "the red cup!", 0, 1, 1),
        ("A red ring.", "a blue cross", 0, 0, 0),
        ("A red ring.", "", 0, 0, 0),
        ("A cup on the table.", "The red cup is on a table", 0, 0, 2 * 3 / (3 + 5)),
        ("two two dogs", "two dogs dogs", 0, 0, 2 * 2 / (3 + 3)),
        ("the", "A.", 0, 1, 1),  # no word is left of either
        ("the", "cup", 0, 0, 0),
        ("", "", 1, 1, 1),
        ("a T-shirt", "tshirt", 0, 1, 1),
        ("theatre, an antenna", "theatre antenna", 0, 1, 1),
        ("a-b", "b", 0, 0, 0),  # punctuation goes before articles do: ab
        ("Straße", "STRASSE", 1, 0, 0),  # lower case, as SQuAD's; `equal` folds it
        ("“red”", "red", 0, 0, 0),  # punctuation beyond ASCII stays
        ("红色的杯子。", "红色的杯子", 0, 0, 0),
        ("红色的杯子.", "红色的杯子", 0, 1, 1),  # one word
    ],
)
def test_texts_are_compared_as_squad_does(true: str, said: str, equal: float, exact: float, f1: float) -> None:
    found = figures([asked("a", "caption", answer=true)], [row("a", [], text=said)], "caption")
    assert found == pytest.approx({"records": 1, "equal": equal, "word_EM": exact, "word_F1": f1})


def test_figures_of_texts_are_means_over_records() -> None:
    images = [asked(key, "caption", answer="A red ring.") for key in "abc"]
    rows = [row("a", [], text="red ring"), row("b", [], text="a red cross")]
    found = figures(images, rows, "caption")
    assert found == pytest.approx({"records": 3, "equal": 0, "word_EM": 1 / 3, "word_F1": (1 + 1 / 2 + 0) / 3})


def test_a_thought_is_no_part_of_a_text() -> None:
    found = figures([asked("a", "chat", answer="two")], [row("a", [], text="<think>one?</think>\n\nTwo")], "chat")
    assert found["equal"] == 1.0


def test_a_question_for_points_allows_them_where_nothing_is_there(tmp_path: Path) -> None:
    [found] = read(tmp_path, asks("point", question="the ring"))
    assert found.kinds == {"point"}


def test_each_task_of_a_file_has_its_own_figures_and_texts_are_not_in_the_whole() -> None:
    images = [
        asked("a", "detect", [("cat", WHOLE)]),
        asked("a#2", "refer", [("cat", WHOLE)]),
        asked("a#3", "chat", answer="two"),
    ]
    rows = [row("a", [("cat", WHOLE)]), row("a#2", []), row("a#3", [], text="two")]
    evaluated = measured(images, rows)
    assert list(evaluated.result.tasks) == ["detect", "refer", "chat"]
    assert evaluated.result.counts["images"] == 2
    assert evaluated.result.counts["unknown_images"] == 0
    assert (evaluated.place, evaluated.result.metrics["recall_50"]) == ((0, 1), 0.5)
    assert [*evaluated.result.contract["tasks"]] == ["detect", "refer", "chat"]
    lines = tables.task_lines(evaluated.result)
    assert lines[1].startswith("refer: 1 records, accuracy_50 0.0000, ")
    assert lines[2] == "chat: 1 records, equal 1.0000, word_EM 1.0000, word_F1 1.0000"


def test_places_are_those_of_the_records_that_have_boxes() -> None:
    images = [asked("a", "chat", answer="x"), asked("b", "refer", [("cat", WHOLE)])]
    assert measured(images, [row("b", [])]).place == (1,)


def test_a_file_of_texts_alone_has_no_figures_but_its_own() -> None:
    evaluated = measured([asked("a", "chat", answer="x")], [row("a", [], text="x")])
    assert (evaluated.result.metrics["AP"], evaluated.result.tasks["chat"]["equal"]) == (None, 1.0)


def test_detection_alone_is_written_as_ever(tmp_path: Path) -> None:
    result = measured([truth("a", [("cat", WHOLE)])], [row("a", [])]).result
    assert "tasks" not in results.summary(result)
    assert "tasks" not in result.contract
    assert tables.task_lines(result) == []


def test_figures_survive_their_file(tmp_path: Path) -> None:
    result = measured([asked("a", "chat", answer="x")], [row("a", [], text="x")]).result
    results.write(result, tmp_path / "evaluation.json")
    assert results.read(tmp_path / "evaluation.json").tasks == result.tasks


def test_two_results_are_compared_by_the_figures_of_their_tasks() -> None:
    images = [asked("a", "chat", answer="x"), asked("b", "refer", [("cat", WHOLE)])]
    a, b = (measured(images, [row("a", [], text=text), row("b", [])]).result for text in ("x", "y"))
    lines = {line.metric: line for line in compare(a, b, resamples=2).lines}
    assert (lines["chat_equal"].a, lines["chat_equal"].b) == (1.0, 0.0)


def test_the_answer_to_another_question_is_refused() -> None:
    images = [asked("a", "refer", [("cat", WHOLE)], question="left cat"), asked("a#2", "refer", question="right cat")]
    rows = [row("a", [], question="Find right cat."), row("a#2", [], question="Find left cat.")]
    with pytest.raises(InputError, match=r"a: was asked 'Find right cat\.', and its record asks for 'left cat'"):
        measured(images, rows)


@pytest.mark.parametrize("question", ["Find cow, red ring.", "Find all rings."])
def test_the_answer_to_another_question_for_categories_is_refused(tmp_path: Path, question: str) -> None:
    listed = read(tmp_path, asks("named", RING, categories=["cow", "red ring"]))
    own = read(tmp_path, asks("named", RING, question="Find all rings."))
    right = own if question == "Find all rings." else listed
    wrong = listed if right is own else own
    said = [row("a.png", [], width=999, height=999, question=question)]
    assert measured(right, said).result.tasks["named"]["records"] == 1.0
    with pytest.raises(InputError, match=f"a.png: was asked '{re.escape(question)}', and its record asks for "):
        measured(wrong, said)


def test_answers_of_other_tools_name_a_record_by_its_key(tmp_path: Path) -> None:
    images = [asked("a.png", "refer", [("cat", WHOLE)]), asked("a.png#2", "chat", answer="two")]
    box = '[{"bbox_2d": [0, 0, 1000, 1000], "label": "cat"}]'
    lines = [{"image": "a.png", "answer": box}, {"image": "a.png#2", "answer": "two"}]
    data = "\n".join(map(json.dumps, lines)).encode()
    rows = foreign.rows(answers_in(data), images, foreign.Written.said("qwen_1000"))
    assert [(item.image, len(item.boxes), item.unread) for item in rows] == [("a.png", 1, []), ("a.png#2", 0, [])]
    assert figures(images, rows, "refer")["accuracy_90"] == 1.0


# --- predict --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"))


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_every_record_is_asked_and_measured_by_its_task(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 32)).save("a.png")
    small = {"images": ["a.png"], "width": 40, "height": 32}
    records = [
        small | {"objects": [RING]},
        small | {"objects": [RING], "task": "refer", "question": "the ring"},
        small | {"task": "caption", "answer": "A ring."},
        small | {"objects": [RING], "task": "named", "categories": ["red ring", "cow"]},
    ]
    Path("val.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    how = ["val.jsonl", "--question", "Find.", "--prompt", "refer=Where is {phrase}?", "--max-new-tokens", 40]
    how += ["--device", "cpu", "--output", "out.jsonl"]
    first = call("predict", model, *how, "--limit", 2)
    assert first.exit_code == 0, first.output
    result = call("predict", model, *how)
    assert "holds 2 of 4 images already" in result.stderr
    found, rows = prediction_files.read(Path("out.jsonl"))
    assert [item.image for item in rows] == ["a.png", "a.png#2", "a.png#3", "a.png#4"]
    assert [getattr(item.question, "strip", str)() for item in rows] == [
        "",
        "Where is the ring?",
        "Describe the image.",
        "Locate every object of these categories: red ring, cow.",
    ]
    assert found.decoding["prompts"]["refer"] == "Where is {phrase}?"
    assert rows[0].text.startswith('{"objects": [')
    assert not rows[2].text.startswith('{"objects": [')  # nothing led it
    assert (rows[2].boxes, rows[2].unread) == ([], [])
    assert b'"question"' not in Path("out.jsonl").read_bytes().splitlines()[1]
    evaluated = call("eval", "out.jsonl", "val.jsonl", "--json")
    assert evaluated.exit_code == 0, evaluated.output
    assert {*json.loads(evaluated.stdout)["tasks"]} == {"detect", "refer", "caption", "named"}
    shown = call("eval", "out.jsonl", "val.jsonl")
    assert "caption: 1 records, equal 0.0000, word_EM 0.0000, word_F1 " in shown.stdout
    Path("val.jsonl").write_text("".join(json.dumps(item) + "\n" for item in [records[0], *records[:0:-1]]))
    assert call("eval", "out.jsonl", "val.jsonl").exit_code == 2


def test_a_category_that_is_there_as_a_point_is_not_absent(tmp_path: Path) -> None:
    point = {"desc": "cup", "point": [10, 20]}
    images = read(tmp_path, asks("named", point, categories=["cup", "cow"]))
    found = attrs.evolve(images[0], answer="")
    data = b'{"image": "a.png", "response": "[{\\"point_2d\\": [10, 20], \\"label\\": \\"cup\\"}]"}'
    rows = foreign.rows(answers_in(data), [found], foreign.Written.said("qwen_1000"))
    named = evaluate([found], header(), rows).result.tasks["named"]
    assert (named["absent"], named["absent_found"]) == (1.0, 0.0)


def test_answers_are_not_continued_where_a_record_asks_something_else_by_now(tmp_path: Path) -> None:
    before = read(tmp_path, asks(None, RING), asks("refer", RING, question="the ring"), asks(None, question="All?"))
    rows = [with_question(row(image.key, []), image) for image in before]
    continuing.require_same_questions(tmp_path / "p.jsonl", rows, before)
    continuing.require_same_questions(tmp_path / "p.jsonl", rows, before[:1])
    for place, other in (
        (1, asks("refer", RING, question="the cross")),
        (2, asks(None)),
        (0, asks("caption", answer="A ring.")),
    ):
        records = [asks(None, RING), asks("refer", RING, question="the ring"), asks(None, question="All?")]
        records[place] = other
        with pytest.raises(
            InputError, match=rf"^\S+p\.jsonl: {re.escape(before[place].key)}: was asked .*--overwrite$"
        ):
            continuing.require_same_questions(tmp_path / "p.jsonl", rows, read(tmp_path, *records))


def test_an_answer_of_another_kind_finds_something_too(tmp_path: Path) -> None:
    images = read(tmp_path, asks("refer", question="the cross"), asks("point", question="the cross"))
    place: Any = {"label": "cross", "box": (5.0, 5.0, 5.0, 5.0), "bins": (5, 5, 5, 5), "score": 0.5}
    said = [Box(kind="point", points=[5.0, 5.0], **place), Box(**place)]
    answers = [
        Row(image=image.key, width=999, height=999, text="", boxes=[box])
        for image, box in zip(images, said, strict=True)
    ]
    tasks = evaluate(images, header(), answers).result.tasks
    assert [tasks[task]["absent_right"] for task in ("refer", "point")] == [0.0, 0.0]
    assert [tasks["refer"]["accuracy_50"], tasks["point"]["hit_rate"]] == [0.0, 0.0]
