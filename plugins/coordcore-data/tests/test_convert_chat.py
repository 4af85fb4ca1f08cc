"""Chat rows: what placeholders stand for, boxes in the text of answers, and which answers say that nothing is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conversion_support import records_of, run, write_image, write_json, write_lines

from coordcore import InputError

FIRST, SECOND, THIRD = [5, 5, 50, 50], [60, 5, 90, 50], [10, 5, 15, 50]
BIN = {"from_space": "bin", "from_quantisation": "qwen_1000"}
LISTED = '[{"label": "Text", "bbox_2d": [100, 250, 400, 1000]}]'
PICTURE: dict[str, Any] = {"role": "user", "content": "<image>Find text"}
SAID: dict[str, Any] = {"role": "assistant", "content": LISTED}


def chat(question: str, answer: str | None, ref: Any = None, bbox: Any = None, **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": f"<image>{question}"}]
    said += [] if answer is None else [{"role": "assistant", "content": answer}]
    objects = {} if ref is None and bbox is None else {"objects": {"ref": ref or [], "bbox": bbox or []}}
    return {"messages": said, "images": ["a.png"], **objects, **more}


def convert(tmp_path: Path, *rows: Any, **options: Any) -> tuple[list[Any], Any]:
    for name in ("a.png", "b.png", "good.png"):
        write_image(tmp_path / name, 100, 80)
    good = chat("Find <ref-object>", "<bbox>", ["cat"], [FIRST]) | {"images": ["good.png"]}
    records, account = records_of(write_lines(tmp_path / "a.jsonl", *rows, good), "swift", tmp_path, **options)
    return records[:-1], account


def labels(records: list[Any]) -> list[tuple[str, Any]]:
    return [(item["desc"], item["bbox_2d"]) for record in records for item in record["objects"]]


@pytest.mark.parametrize(
    ("question", "answer", "refs", "expected"),
    [
        # Case 01: the refs of the question come first among all refs.
        (
            "Find the <ref-object>.",
            '[{"bbox_2d": <bbox>, "label": "<ref-object>"}, {"bbox_2d": <bbox>, "label": "<ref-object>"}]',
            ["goat", "goat", "goat"],
            ["goat", "goat"],
        ),
        ("<ref-object> and <ref-object>", "<ref-object><bbox><bbox>", ["cat", "dog", "dog"], ["dog", "dog"]),
        ("<ref-object>, <ref-object>", "<ref-object><bbox>, <ref-object><bbox>", ["a", "b", "b", "a"], ["b", "a"]),
        ("Find <ref-object> and <ref-object>.", "<ref-object>: <bbox><bbox>", ["crack", "rust", "rust"], ["rust"] * 2),
        ("Find <ref-object>", "<bbox> and <bbox>", ["cat"], ["cat", "cat"]),
        ("Find all", "<bbox>: <ref-object>, <bbox>: <ref-object>", ["cat", "dog"], ["cat", "dog"]),
        ("Find all", "<bbox><bbox> (<ref-object>)", ["cat"], ["cat", "cat"]),
        ("Find cats", "<bbox><bbox>", ["cat"], ["cat", "cat"]),  # a ref that no message names
        (
            "Find all",
            '[{"bbox_2d": <bbox>, "label": "<ref-object>"}, {"label": "<ref-object>", "bbox_2d": <bbox>}]',
            ["cat", "dog"],
            ["cat", "dog"],
        ),
        ("Find all", '[{"bbox_2d": <bbox>, "label": "cat"}, {"bbox_2d": <bbox>, "label": "dog"}]', [], ["cat", "dog"]),
        ("What is in <bbox>?", "<ref-object>, beside <bbox>", ["a cat"], ["a cat", "a cat"]),
        ("Is the <ref-object> at <bbox> left of the <ref-object> at <bbox>?", "Yes.", ["cat", "dog"], ["cat", "dog"]),
        ("Find all", '[{"bbox_2d": <bbox>, "label": "<ref-object>"}]', ['12" pipe\\'], ['12" pipe\\']),
    ],
)
def test_a_box_belongs_to_the_ref_beside_it(
    tmp_path: Path, question: str, answer: str, refs: list[str], expected: list[str]
) -> None:
    boxes = [FIRST, SECOND][: len(expected)]
    records, _ = convert(tmp_path, chat(question, answer, refs, boxes))
    assert labels(records) == list(zip(expected, boxes, strict=True))


def test_turns_have_their_own_refs_and_boxes(tmp_path: Path) -> None:
    row = chat("Find <ref-object>", "<bbox><bbox>", ["cat", "dog"], [FIRST, SECOND, THIRD])
    row["messages"] += [{"role": "user", "content": "And <ref-object>?"}, {"role": "assistant", "content": "<bbox>"}]
    records, _ = convert(tmp_path, row)
    assert labels(records) == [("cat", FIRST), ("cat", SECOND), ("dog", THIRD)]


@pytest.mark.parametrize(
    ("question", "answer", "refs", "boxes"),
    [
        ("Find <ref-object> and <ref-object>", "<bbox>", ["a", "b"], 1),
        ("Find all", "<ref-object> and <ref-object>: <bbox><bbox>", ["a", "b"], 2),
        ("Find all", "<ref-object><bbox><ref-object>", ["a", "b"], 1),
        ("Find <ref-object>", "<bbox>", ["a"], 2),
        ("Find <ref-object>", "<bbox><bbox>", ["a"], 1),
        ("Find <ref-object>", "<bbox>", ["a", "b"], 1),
        ("Find <ref-object> and <ref-object>", "<bbox>", ["a"], 1),
        # The answer is no.
        ("Is <bbox> a <ref-object>?", "No.", ["a"], 1),
        ("Is <bbox> a <ref-object>?", "Wrong, a <ref-object>.", ["a", "b"], 1),
        ("Is there a <ref-object> at <bbox>?", "There is none.", ["a"], 1),
        ("Is there a <ref-object> at <bbox>?", "[]", ["a"], 1),
    ],
)
def test_rows_that_could_mean_several_things_are_dropped(
    tmp_path: Path, question: str, answer: str, refs: list[str], boxes: int
) -> None:
    records, account = convert(tmp_path, chat(question, answer, refs, [FIRST, SECOND][:boxes]))
    assert (records, sum(account.images.dropped.values()), account.objects.read) == ([], 1, boxes + 1)


# --- nothing is there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        "[]",
        "```json\n[]\n```",
        '{"objects": []}',
        '<think>[{"bbox_2d": [1, 2, 3, 4], "label": "a"}]? No.</think>[]',
        "<think>Hm.</think><answer>[]</answer><|im_end|>",
    ],
)
def test_an_empty_list_says_that_nothing_is_there(tmp_path: Path, answer: str) -> None:
    records, _ = convert(tmp_path, chat("Detect <ref-object>, <ref-object>.", answer, ["crack", "rust"], []))
    assert [(record["objects"], record["metadata"]) for record in records] == [([], {"asked": ["crack", "rust"]})]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (chat("Find cats", None), "row without an answer"),
        ({"images": ["a.png"]}, "row without an answer"),
        ({"images": ["a.png"], "objects": {"ref": [], "bbox": []}}, "row without an answer"),
        (chat("Find cats", ""), "row without an answer"),
        (chat("Find cats", LISTED), "boxes in the text of the answer, whose numbers nothing declares"),
        (chat("Find cats", "at (10,20),(30,40)"), "boxes in the text of the answer, in a form that is not read"),
        (chat("Find cats", "<loc0100><loc0050><loc0500><loc0400> cat"), "boxes in the text of the answer, in a form"),
        (chat("Find cats", '[{"bbox_2d": [1, 2, 3], "label": "a"}]'), "boxes in the text of the answer that cannot be"),
        (chat("Find <ref-object>", "<bbox><bbox>", ["cell"], [[12, 30], [40, 22]]), "only points ("),
        (chat("Find cats", "[]", images=None), "row without an image, which every record has; `[data.chat_jsonl]`"),
        (chat("Find cats", "[]", images=[{"bytes": "AA"}]), "row without the path of an image file"),
        (
            {"messages": [PICTURE | {"content": [{"type": "image", "image": "data:image/png;base64,"}]}]},
            "row without the",
        ),
        (chat("Find cats", "[]", messages=7), "messages that are no list of objects"),
    ],
)
def test_nothing_else_says_so(tmp_path: Path, row: Any, reason: str) -> None:
    records, account = convert(tmp_path, row)
    assert (records, [key.startswith(reason) for key in account.images.dropped]) == ([], [True])


def test_nothing_asked_for_is_not_nothing_there(tmp_path: Path) -> None:
    negative = chat("Detect <ref-object>, <ref-object>.", "[]", ["paint", "rust"], [])
    records, account = convert(tmp_path, negative, chat("Find <ref-object>", "<bbox>", ["cat"], [FIRST]))
    assert labels(records) == [("cat", FIRST)]
    assert account.images.dropped == {"answered with nothing, but the image has boxes in another row": 1}


@pytest.mark.parametrize(
    ("row", "how"),
    [
        (chat("Find cats", "at (10,20),(30,40)"), "may have"),
        (chat("Find <ref-object>", "<bbox><bbox>", ["cat"], [FIRST]), "may have"),
        (chat("Find <ref-object>", "<bbox>", ["cat"], [[1, 2, 3]]), "has"),
    ],
)
def test_nothing_is_not_there_where_another_row_could_not_be_read(tmp_path: Path, row: Any, how: str) -> None:
    records, account = convert(tmp_path, chat("Find dogs", "[]"), row)
    assert (records, len(account.images.dropped)) == ([], 2)
    assert f"answered with nothing, but the image {how} boxes in another row" in account.images.dropped


@pytest.mark.parametrize("answer", ["A cow at 10 20 30 40", "<bbox>", ""])
def test_every_answer_of_a_row_says_that_nothing_is_there(tmp_path: Path, answer: str) -> None:
    row = chat("Find dogs", "[]")
    row["messages"] += chat("And cows?", answer)["messages"]
    records, account = convert(tmp_path, row)
    assert (records, list(account.images.dropped)) == (
        [],
        ["answered with nothing, and with something that is not read"],
    )


def test_nothing_in_a_part_of_the_image_is_not_nothing_there(tmp_path: Path) -> None:
    records, account = convert(tmp_path, chat("A cat in <|box_start|>(1,2),(3,4)<|box_end|>?", "[]"))
    assert (records, len(account.images.dropped)) == ([], 1)


def test_what_a_later_turn_repeats_is_said_once(tmp_path: Path) -> None:
    row = chat("Find text", LISTED)
    row["messages"] += chat("Sure?", LISTED)["messages"]
    records, account = convert(tmp_path, row, **BIN)
    assert len(labels(records)) == 1
    assert account.objects.dropped == {"box that its row holds twice": 1}


def test_an_image_of_a_row_whose_boxes_are_on_another_is_not_empty(tmp_path: Path) -> None:
    row = chat("Find <ref-object>", "<bbox>", ["cat"], [FIRST], images=["a.png", "b.png"])
    records, account = convert(tmp_path, row)
    assert ([record["images"] for record in records], account.images.dropped) == (
        [["a.png"]],
        {"image without boxes, in a row that has boxes": 1},
    )


# --- thoughts --------------------------------------------------------------------------------------------------------

LISTS_IT = '{"bbox_2d": <bbox>, "label": "<ref-object>"}'


@pytest.mark.parametrize(
    ("question", "answer", "refs", "boxes", "expected"),
    [
        # The draft is another box than the answer's, and its ref another.
        ("Find all", f"<think>A <ref-object> <bbox>?</think>[{LISTS_IT}]", ["dog", "cat"], [FIRST, SECOND], "cat"),
        ("Find <ref-object>", "<think><bbox>? No.</think><bbox>", ["cat"], [FIRST, SECOND], "cat"),
        ("Find cats", "<think><bbox>? No.</think><bbox>", ["cat"], [FIRST, SECOND], "cat"),  # no placeholder of a ref
        ("Find cats", "<think><bbox></think>It is at <bbox>", ["dog", "cat"], [FIRST, SECOND], "cat"),
        ("Find <ref-object>", "I see <bbox>.</think>It is at <bbox>.", ["cat"], [FIRST, SECOND], "cat"),
    ],
)
def test_a_box_of_a_thought_is_no_object(
    tmp_path: Path, question: str, answer: str, refs: list[str], boxes: list[Any], expected: str
) -> None:
    records, account = convert(tmp_path, chat(question, answer, refs, boxes))
    assert labels(records) == [(expected, SECOND)]
    assert account.objects.dropped == {"box in a thought, which is no answer": 1}


def test_a_thought_behind_the_answer_is_none_either(tmp_path: Path) -> None:
    records, _ = convert(tmp_path, chat("Find <ref-object>", "<bbox><think>Or <bbox>?", ["cat"], [FIRST, SECOND]))
    assert labels(records) == [("cat", FIRST)]


def test_a_box_that_is_thought_of_and_answered_is_one(tmp_path: Path) -> None:
    records, _ = convert(tmp_path, chat("Find <ref-object>", "<think><bbox></think><bbox>", ["cat"], [FIRST, FIRST]))
    assert labels(records) == [("cat", FIRST)]


def test_boxes_in_the_text_behind_a_thought_are_the_answer(tmp_path: Path) -> None:
    row = chat("Find text", f"<think>At <bbox>?</think>{LISTED}", ["word"], [FIRST])
    records, _ = convert(tmp_path, row, **BIN)
    assert labels(records) == [("Text", pytest.approx([10, 20, 40, 80]))]


def test_what_is_answered_behind_a_thought_decides_whether_there_is_nothing(tmp_path: Path) -> None:
    thought = "<think>Is the <ref-object> <bbox> one? No.</think>"
    rows = [chat("Find <ref-object>", thought + said, ["cat", "dog"], [FIRST]) for said in ("[]", "", "Nothing.")]
    records, account = convert(tmp_path, rows[0], *(row | {"images": ["b.png"]} for row in rows[1:]))
    assert [(record["objects"], record["task"], record["question"]) for record in records] == [([], "refer", "cat")]
    assert account.images.dropped == {"answer without boxes that is not []": 2}
    assert account.objects.dropped == {"box in a thought, which is no answer": 3}


def test_a_denial_behind_a_thought_is_one(tmp_path: Path) -> None:
    row = chat("Is the <ref-object> at <bbox>?", "<think>Hm.</think>No.", ["cat"], [FIRST])
    _, account = convert(tmp_path, row)
    assert account.images.dropped == {"row that asks whether a box is of a ref: what its answer means is not read": 1}


# --- boxes in the text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        (LISTED, BIN),
        ('[{"label": "Text", "bbox_2d": [10, 20, 40, 80]}]', {"from_space": "pixel"}),
        ('[{"label": "Text", "bbox_2d": [0.1, 0.25, 0.4, 1]}]', {"from_space": "norm1"}),
        ('[{"label": "Text", "bbox": [10, 20, 40, 80]}]', {"from_space": "pixel", "boxes": "xyxy"}),
        ("<|object_ref_start|>Text<|object_ref_end|><|box_start|>(100,250),(400,1000)<|box_end|>", BIN),
        ("<ref>Text</ref><box>[[100,250,400,1000]]</box>", BIN),
        (
            "<ref>Text</ref><|box_start|><|coord_100|><|coord_250|><|coord_400|><|coord_999|><|box_end|>",
            BIN,
        ),
        ("<think>[1, 2, 3, 4]</think>" + LISTED, BIN),
        (
            '{"objects": [{"desc": "Text", "bbox_2d": [<|coord_100|>, <|coord_250|>, <|coord_400|>, <|coord_999|>]}]}',
            {"from_space": "bin", "from_quantisation": "qwen_1000"},
        ),
        (
            '{"objects": [{"desc": "Text", "bbox_2d": [<|coord_102|>, <|coord_256|>, <|coord_410|>, <|coord_1023|>]}]}',
            {"from_space": "bin", "from_quantisation": "paligemma_1024"},
        ),
    ],
)
def test_boxes_of_the_text_are_read_as_declared(tmp_path: Path, answer: str, options: dict[str, str]) -> None:
    records, _ = convert(tmp_path, chat("List the text areas.", answer), **options)
    ((desc, box),) = labels(records)
    assert (desc, box) == ("Text", pytest.approx([10, 20, 40, 80], abs=0.1))


@pytest.mark.parametrize(
    ("ref", "boxes"),
    [
        (
            "<|object_ref_start|>goat<|object_ref_end|>",
            "<|box_start|>(100,200),(150,260)<|box_end|><|box_start|>(400,600),(550,660)<|box_end|>",
        ),
        ("<ref>goat</ref>", "<box>[[100,200,150,260],[400,600,550,660]]</box>"),
        ("<|ref|>goat<|/ref|>", "<|det|>[[100,200,150,260],[400,600,550,660]]<|/det|>"),
    ],
)
def test_boxes_in_tags_may_be_of_the_questions_only_ref(tmp_path: Path, ref: str, boxes: str) -> None:
    records, _ = convert(tmp_path, chat(f"Find the {ref}", boxes), **BIN)
    assert [desc for desc, _ in labels(records)] == ["goat", "goat"]


@pytest.mark.parametrize(
    ("answer", "options", "reason"),
    [
        ('[{"label": "a", "bbox": [10, 20, 40, 60]}]', {"from_space": "pixel"}, "numbers under bbox"),
        ('[{"label": "a", "bbox_2d": [10, 20, 1400, 1600]}]', BIN, "numbers outside 0..1000"),
        ('[{"label": "a", "bbox_2d": [<|coord_1|>, <|coord_2|>, <|coord_3|>, <|coord_4|>]}]', {}, "coord tokens"),
        ('[{"label": "a", "box_2d": [10, 20, 40, 60]}]', BIN, "boxes in the text of the answer that cannot be read"),
        ("<|box_start|>(100,200),(150,260)<|box_end|>", BIN, "boxes in the text of the answer that cannot be read"),
        (LISTED + " and (1,2),(3,4)", BIN, "boxes in the text of the answer, in a form that is not read"),
        (
            LISTED + " b lies at [[1,2],[9,2],[9,8],[1,8]].",
            BIN,
            "boxes in the text of the answer, in a form that is not",
        ),
        (LISTED + " b lies at [1, 2, 9, 2, 9, 8].", BIN, "boxes in the text of the answer, in a form that is not read"),
    ],
)
def test_boxes_of_the_text_that_could_be_others_drop_the_row(
    tmp_path: Path, answer: str, options: dict[str, str], reason: str
) -> None:
    records, account = convert(tmp_path, chat("Find all", answer), **options)
    assert (records, [key.startswith(reason) for key in account.images.dropped]) == ([], [True])


QUAD = '[{"label": "Text", "quad": [100, 250, 400, 250, 400, 1000, 100, 1000]}]'
POLY = '[{"label": "Text", "poly": [100, 250, 400, 250, 250, 1000]}]'


@pytest.mark.parametrize(
    ("answer", "geometry", "kind", "expected"),
    [
        (QUAD, "own", "quad", [10, 20, 40, 20, 40, 80, 10, 80]),
        (POLY, "own", "poly", [10, 20, 40, 20, 25, 80]),
        (POLY, "box", "bbox_2d", [10, 20, 40, 80]),
        (QUAD, "box", "bbox_2d", [10, 20, 40, 80]),
        (
            "<|object_ref_start|>Text<|object_ref_end|><|quad_start|>(100,250),(400,250),(400,1000),(100,1000)"
            "<|quad_end|>",
            "own",
            "quad",
            [10, 20, 40, 20, 40, 80, 10, 80],
        ),
        ('[{"label": "Text", "poly": [(100, 250), (400, 250), (250, 1000)]}]', "own", "poly", [10, 20, 40, 20, 25, 80]),
        (LISTED[:-1] + ", " + QUAD[1:], "own", "quad", [10, 20, 40, 20, 40, 80, 10, 80]),
    ],
)
def test_outlines_of_the_text_are_shapes(
    tmp_path: Path, answer: str, geometry: str, kind: str, expected: list[float]
) -> None:
    records, account = convert(tmp_path, chat("List the text areas.", answer), geometry=geometry, **BIN)
    item = records[0]["objects"][-1]
    assert item.pop("poly_points", 3) == 3
    assert item == {"desc": "Text", kind: pytest.approx(expected, abs=0.1)}
    assert account.objects.dropped == {}


def test_an_outline_of_the_text_that_lies_beside_the_image_is_dropped(tmp_path: Path) -> None:
    answer = '[{"label": "a", "poly": [400, 400, 500, 400, 450, 500]}, {"label": "b", "bbox_2d": [10, 20, 40, 60]}]'
    records, account = convert(tmp_path, chat("Find all", answer), geometry="own", from_space="pixel")
    assert [[item["desc"] for item in record["objects"]] for record in records] == [["b"]]
    assert sum(account.objects.dropped.values()) == 1


def test_boxes_of_the_text_about_several_images_drop_the_row(tmp_path: Path) -> None:
    _, account = convert(tmp_path, chat("Find all", LISTED, images=["a.png", "b.png"]), **BIN)
    assert account.images.dropped == {
        "boxes in the text of an answer about several images: which belong where is not said": 2
    }


@pytest.mark.parametrize(
    "row",
    [
        {"image": "a.png", "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": LISTED}]},
        {"images": ["a.png"], "query": "<image>Find text", "response": LISTED},
        {"images": ["a.png"], "messages": [{"role": "assistant", "content": [{"type": "text", "text": LISTED}]}]},
        {"messages": [PICTURE | {"content": [{"type": "image", "image": "a.png"}]}, SAID]},
        {"messages": [PICTURE | {"content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}, SAID]},
        {"messages": [PICTURE | {"content": "Picture 1: <img>a.png</img> Find text"}, SAID]},
        {"images": ["a.png"], "messages": [PICTURE, SAID | {"content": f"<Think>[1, 2, 3, 4]</Think>{LISTED}"}]},
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", ""])
def test_other_spellings_of_a_row(tmp_path: Path, row: Any, name: str) -> None:
    write_image(tmp_path / "a.png", 100, 80)
    source = write_json(tmp_path / name, [row]) if name else write_lines(tmp_path / "a.jsonl", row)
    records, _ = records_of(source, "swift", tmp_path, **BIN)
    assert labels(records) == [("Text", [10, 20, 40, 80])]


def test_boxes_of_answers_are_two_corners(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"boxes of answers are read as two corners: --boxes xyxy, not xywh"):
        convert(tmp_path, boxes="xywh")


# --- what is asked --------------------------------------------------------------------------------------------------


def asks(records: list[Any]) -> list[dict[str, Any]]:
    return [{key: record[key] for key in ("task", "question", "categories") if key in record} for record in records]


NOT_ASKED = "question: not carried, its record asks the usual one"
TAGGED = "<|object_ref_start|>left cat<|object_ref_end|>"


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (chat("Where is <ref-object>?", "<bbox>", ["left cat"], [FIRST]), ["left cat"]),
        (chat("Where is <ref-object>?", "<bbox><bbox>", ["left cat"], [FIRST, SECOND]), ["left cat"] * 2),
        (
            chat("Find <ref-object>", '[{"bbox_2d": <bbox>, "label": "<ref-object>"}]', ["left cat"] * 2, [FIRST]),
            ["left cat"],
        ),
        (chat("Find <ref-object>", "<think>At <bbox>?</think><bbox>", ["left cat"], [SECOND, FIRST]), ["left cat"]),
        (chat(f"Find {TAGGED}", "<|box_start|>(50,62),(500,625)<|box_end|>"), ["left cat"]),
        (chat("Where is <ref>left cat</ref>?", "<ref>left cat</ref><box>[[50, 62, 500, 625]]</box>"), ["left cat"]),
        (chat("Find <ref-object>", "[]", ["left cat"], []), []),
        (
            chat("Locate what this phrase refers to: left cat", '[{"bbox_2d": [50, 62, 500, 625], "label": "cat"}]'),
            ["cat"],
        ),
        (chat("Locate what this phrase refers to: left cat", "[]"), []),
    ],
)
def test_the_one_ref_of_a_question_is_what_its_record_refers_to(tmp_path: Path, row: Any, found: list[str]) -> None:
    records, account = convert(tmp_path, row, **BIN)
    assert asks(records) == [{"task": "refer", "question": "left cat"}]
    assert [desc for desc, _ in labels(records)] == found
    assert account.notes['question: a record of the task "refer"'] == 2
    assert NOT_ASKED not in account.notes


def test_rows_of_one_image_do_not_contradict_each_other(tmp_path: Path) -> None:
    rows = [
        chat("Where is <ref-object>?", "<bbox>", ["the left dog"], [FIRST]),
        chat("Where is <ref-object>?", "<bbox>", ["the right dog"], [SECOND]),
        chat("Where is <ref-object>?", "[]", ["the red dog"], []),
    ]
    records, account = convert(tmp_path, *rows)
    assert asks(records) == [{"task": "refer", "question": f"the {which} dog"} for which in ("left", "right", "red")]
    assert [record["objects"] for record in records] == [
        [{"desc": "the left dog", "bbox_2d": FIRST}],
        [{"desc": "the right dog", "bbox_2d": SECOND}],
        [],
    ]
    assert account.images.dropped == {}


def test_questions_that_differ_within_an_image_are_its_records_own(tmp_path: Path) -> None:
    dog, car = (f'[{{"bbox_2d": [5, 5, 50, 50], "label": "{label}"}}]' for label in ("dog", "car"))
    rows = [
        chat("Locate the dog.", dog),
        chat("Find all cars.", car),
        chat("Locate every object in the image, each with its description and its place.", dog[:-1] + ", " + car[1:]),
        chat("Find all bikes.", "[]"),
        chat("How many?", "Two."),
        chat("List.", dog) | {"images": ["b.png"]},
        chat("List.", car) | {"images": ["b.png"]},
    ]
    records, account = convert(tmp_path, *rows, from_space="pixel")
    assert asks(records) == [
        {"question": "Locate the dog."},
        {"question": "Find all cars."},
        {},
        {"task": "chat", "question": "How many?"},
        {},
        {},
    ]
    assert account.images.dropped == {"answered with nothing, but the image has boxes in another row": 1}
    assert account.notes[NOT_ASKED] == 2
    assert account.examples[NOT_ASKED][0] == "line 6 'List.'"


def test_rows_that_all_ask_the_same_are_detection(tmp_path: Path) -> None:
    row = chat("Find all.", '[{"bbox_2d": <bbox>, "label": "<ref-object>"}]', ["cat"], [FIRST])
    records, account = convert(tmp_path, row, row | {"images": ["b.png"]}, chat("Find all.", "[]", images=["b.png"]))
    assert records[:2] == [
        {"images": [name], "width": 100, "height": 80, "objects": [{"desc": "cat", "bbox_2d": FIRST}]}
        for name in ("a.png", "b.png")
    ]
    assert account.notes[NOT_ASKED] == 2


@pytest.mark.parametrize(
    "row",
    [
        chat("What does <ref-object> hold?", "<ref-object> at <bbox>", ["the man", "cup"], [FIRST]),
        chat("Find <ref-object> or <ref-object>", "<ref-object>: <bbox>", ["cat", "dog", "cat"], [FIRST]),
        chat("What is beside <bbox>?", "<bbox>", ["cat"], [FIRST, SECOND]),
        chat("Say {box}: <ref-object>", "<bbox>", ["cat"], [FIRST]),
        chat("Locate every object of these categories: dog.", "<bbox>", ["cat"], [FIRST]),
        chat("Locate every object of these categories: dog, dog.", "[]"),
    ],
)
def test_a_question_of_several_things_is_counted(tmp_path: Path, row: Any) -> None:
    records, account = convert(tmp_path, row)
    assert (asks(records), account.notes[NOT_ASKED]) == ([{}], 1)


def test_turns_of_a_row_are_one_record_and_counted(tmp_path: Path) -> None:
    row = chat("Find <ref-object>", "<bbox>", ["cat", "dog"], [FIRST, SECOND])
    row["messages"] += [{"role": "user", "content": "And <ref-object>?"}, {"role": "assistant", "content": "<bbox>"}]
    other = chat("Find all dogs.", "<bbox>", ["dog"], [SECOND])
    records, account = convert(tmp_path, row, other)
    assert (asks(records), account.notes[NOT_ASKED]) == ([{}, {"question": "Find all dogs."}], 1)


def test_a_ref_that_is_answered_with_points_is_pointed_at(tmp_path: Path) -> None:
    row = chat("Click <ref-object>", "<bbox>", ["the bell"], [[10, 20]])
    records, _ = convert(tmp_path, row, geometry="point")
    assert asks(records) == [{"task": "point", "question": "the bell"}]
    assert records[0]["objects"] == [{"desc": "the bell", "point": [10, 20]}]


def test_a_phrase_that_lost_a_box_is_not_answered_in_part(tmp_path: Path) -> None:
    row = chat("Find <ref-object>", "<bbox><bbox>", ["cats"], [FIRST, [1, 2, 3]])
    records, account = convert(tmp_path, row)
    assert records == []
    assert account.images.dropped == {
        "one of several objects that a phrase asks for was dropped: the answer would lack it": 1
    }


def test_a_coco_file_holds_what_rows_refer_to(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 100, 80)
    rows = [chat("Find <ref-object>", "<bbox>", [label], [box]) for label, box in (("cat", FIRST), ("dog", SECOND))]
    run(write_lines(tmp_path / "a.jsonl", *rows), "swift", tmp_path / "a.json", to="coco")
    content = json.loads((tmp_path / "a.json").read_text())
    assert [item["bbox"] for item in content["annotations"]] == [[5, 5, 45, 45], [60, 5, 30, 45]]


# --- answers in words -----------------------------------------------------------------------------------------------

HUMAN = {"from": "human", "value": "<image>\nWhat is it?"}
GPT = {"from": "gpt", "value": "A street."}
TO_ROWS = "`[data.chat_jsonl]` trains on such rows as they are"


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        (chat("Describe.", "A street."), {"task": "chat", "question": "Describe.", "answer": "A street."}),
        (chat("", "A street."), {"task": "caption", "answer": "A street."}),
        (
            chat("Find <ref-object>", "There is none.", ["cat"], []),
            {"task": "chat", "question": "Find cat", "answer": "There is none."},
        ),
        (
            {"image": "a.png", "conversations": [HUMAN, GPT]},
            {"task": "chat", "question": "What is it?", "answer": "A street."},
        ),
        (
            {"images": ["a.png"], "query": "What is it?<image>", "response": "A street."},
            {"task": "chat", "question": "What is it?", "answer": "A street."},
        ),
        (
            {"messages": [{"role": "user", "content": "<img>a.png</img>\nWhat?"}, SAID | {"content": "A\nstreet."}]},
            {"task": "chat", "question": "What?", "answer": "A\nstreet."},
        ),
    ],
)
def test_a_question_answered_in_words_is_a_record_that_asks_it(tmp_path: Path, row: Any, asked: Any) -> None:
    records, account = convert(tmp_path, row)
    assert records == [{"images": ["a.png"], "width": 100, "height": 80, "objects": [], **asked}]
    assert account.notes[f'answer in words: a record of the task "{asked["task"]}"'] == 1
    assert "image without objects: an empty record" not in account.notes


def test_a_question_about_a_box_is_a_region(tmp_path: Path) -> None:
    records, account = convert(tmp_path, chat("What is at <bbox>?", "A cat.", [], [FIRST]))
    assert records[0] | {"images": 0} == {
        "images": 0,
        "width": 100,
        "height": 80,
        "objects": [{"desc": "region", "bbox_2d": FIRST}],
        "task": "region",
        "question": "What is at {box}?",
        "answer": "A cat.",
    }
    assert account.objects.written == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            chat("What?", "A cat.")
            | {"messages": [*chat("What?", "A cat.")["messages"], *chat("So?", "Ok")["messages"]]},
            f"several questions and answers in words: a record has one of each; {TO_ROWS}",
        ),
        (
            chat("Which is older?", "The left.", images=["a.png", "b.png"]),
            f"answer in words about several images: a record has one; {TO_ROWS}",
        ),
        (chat("Before <image> after", "Yes."), f"<image> within a question: a record's image comes first; {TO_ROWS}"),
        (
            chat("What is at [10, 20, 30, 40]?", "A cat."),
            f"question about boxes that is answered in words; {TO_ROWS}",
        ),
        (
            {"images": ["a.png"], "messages": [{"role": "tool", "content": "7"}, PICTURE, SAID | {"content": "Yes."}]},
            f"message of another than user, assistant and system; {TO_ROWS}",
        ),
        (chat("Find <ref-object>", "No.", [], []), "row with another number of <ref-object> than of refs"),
        (
            chat("Say <|im_end|>", "No."),
            "text that a record cannot hold: question: contains '<|im_end|>', which the tokenizer or the template "
            "reads as a control token; reword it",
        ),
        (chat("What is {box}?", "A"), "{box} in a question, where a record has its box; reword it"),
        (chat("What?", "A cat.", label=False), "answer that its row calls rejected (label false)"),
    ],
)
def test_what_a_record_cannot_say_is_dropped_with_what_reads_it(tmp_path: Path, row: Any, reason: str) -> None:
    records, account = convert(tmp_path, row)
    assert (records, list(account.images.dropped)) == ([], [reason])


@pytest.mark.parametrize(
    "said",
    [
        "pyautogui.click(x=10, y=20)",
        "click(10, 20)",
        "click(start_box='(10,20)')",
        '{"action": "left_click", "coordinate": [10, 20]}',
        '{"type": "click", "button": "left", "x": 10, "y": 20}',
        '{"x1": 1, "y1": 2, "x2": 30, "y2": 40}',
        "CLICK <point>[[10, 20]]</point>",
        '<points x1="10" y1="20">cups</points>',
        "(0.49,0.40)",
        "[0.49, 0.40]",
        "[[490, 400]]",
        "<think>Hm.</think><answer>(490, 400)</answer>",
        "The dogs[0.1,0.2,0.3,0.4;0.5,0.6,0.7,0.8] run.",
        "[[012,034,567,789;100,200,300,400]]",
        "[10 20 300 400]",
        "at (10 20 300 400)",
        "x1=10, y1=20, x2=300, y2=400",
        "Xmin: 10; Ymin: 20; Xmax: 300 and Ymax: 400",
        "<p>dog</p> {<12><13><50><60>}",
        "<loc_12><loc_30>",
        "<patch_index_0044><patch_index_0863>",
    ],
)
def test_places_are_not_carried_as_words(tmp_path: Path, said: str) -> None:
    records, account = convert(tmp_path, chat("Do it.", said))
    reason = "places that a record's text cannot hold; `[data.chat_jsonl]` reads clicks and corners"
    assert (records, list(account.images.dropped)) == ([], [reason])


def test_numbers_in_words_are_carried(tmp_path: Path) -> None:
    said = [
        'At (1, 2) I click 3 times: x = 4, {"x": 2019, "y": 3}, {"x1": 2, "x2": -3}, "position": "upper left".',
        "[0, 5)",
        "(1, 2) and [3, 4]",
        "[10 20 30], [1 2 3 4 5], call (0800 12 34 56), in [0; 1.5], {1, 2, 3, 4}, v1.2.3.4",
        "x1 = 2, x2 = -3, so y1 = 4; f(x0=1, x1=2, x2=3, y=4); <line x1='1' y1='2' x2='3' y2='4'/>",
        "| 2019 | 10 | 20 | 30 |, vec<1><2>, <loc>Paris</loc> at 10:20, 30:40",
    ]
    records, _ = convert(tmp_path, *(chat(f"{number}. (1, 2)?", text) for number, text in enumerate(said)))
    assert [record["answer"] for record in records] == said


def test_words_beside_boxes_leave_both(tmp_path: Path) -> None:
    """A description says nothing of whether boxes are in another row of its image, and an empty list does."""
    found = chat("Find <ref-object>", "<bbox>", ["cat"], [FIRST])
    records, _ = convert(tmp_path, chat("Describe.", "A street."), found)
    assert [record.get("task") for record in records] == ["chat", "refer"]


def test_a_system_message_is_counted(tmp_path: Path) -> None:
    row = chat("Describe.", "A street.")
    row["messages"].insert(0, {"role": "system", "content": "Be brief."})
    records, account = convert(tmp_path, row)
    assert records[0]["question"] == "Describe."
    assert account.notes["system message: not carried; `system` of [data.coord_jsonl] says one to all"] == 1
