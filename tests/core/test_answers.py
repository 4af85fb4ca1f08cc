"""Reading answer text: what is a box, and the reason for all that is none."""

from __future__ import annotations

import ast
import time

import pytest

from coordcore.coords import ints_to_tokens
from coordcore.records.answers import parse_answer, reserved


def coords(*bins: int) -> str:
    return "[" + ", ".join(ints_to_tokens(bins)) + "]"


BOX = coords(1, 2, 3, 4)
A = f'{{"desc": "a", "bbox_2d": {BOX}}}'
B = f'{{"desc": "b", "bbox_2d": {BOX}}}'
CORNERS = "<|coord_1|>,<|coord_2|>),(<|coord_3|>,<|coord_4|>"


def read(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """The labels of the boxes, and what was not read."""
    answer = parse_answer(text)
    return [item.desc for item in answer.objects], [(item.at, item.reason) for item in answer.unread]


# --- what is read ---------------------------------------------------------------------------------------------------


def test_the_format() -> None:
    (item,) = parse_answer(f'{{"objects": [{A}]}}').objects
    assert (item.desc, item.kind, item.bins) == ("a", "bbox_2d", (1, 2, 3, 4))


def test_a_blank_description_is_one() -> None:
    # Constrained decoding allows it, and every answer of that parses.
    assert read(f'{{"objects": [{{"desc": " ", "bbox_2d": {BOX}}}]}}') == ([" "], [])


def test_a_poly() -> None:
    (item,) = parse_answer(f'{{"objects": [{{"desc": "roof", "poly": {coords(5, 1, 9, 1, 7, 0)}}}]}}').objects
    assert (item.kind, item.bins) == ("poly", (5, 1, 9, 1, 7, 0))


def test_spans_are_places_in_the_text() -> None:
    text = f'{{"objects": [{{"desc": "épée", "bbox_2d": {BOX}}}]}}'
    (item,) = parse_answer(text).objects
    found = text[slice(*item.desc_span)], [text[slice(*span)] for span in item.coord_spans]
    assert found == ("épée", ["<|coord_1|>", "<|coord_2|>", "<|coord_3|>", "<|coord_4|>"])


@pytest.mark.parametrize(
    "label",
    [
        *("<think>", "</Reasoning >", "◁think▷", "◁/think▷", "a <|channel>thought", "a<channel|>"),
        *("a < b > c", "think", "<channel>", "▷", "a ◁ b"),
    ],
)
def test_a_label_is_reserved_where_an_answer_would_lose_it(label: str) -> None:
    labels, unread = read(f'{{"objects": [{A}, {{"desc": "{label}", "bbox_2d": {BOX}}}]}}')
    assert (reserved(label) is None) is (labels == ["a", label] and not unread)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"objects": [{{"bbox_2d": {BOX}, "desc": "a"}}]}}',
        f'{{ "objects" : [ {{ "desc" : "a" , "bbox_2d" : {BOX} }} ] }}\n',
        f'[{{"bbox_2d": {BOX}, "label": "a"}}]',  # Qwen's own
        f'```json\n[{{"bbox_2d": {BOX}, "label": "a"}}]\n```',
        A,
        f'{{"objects": [{{"desc": "a", "score": 0.5, "bbox_2d": {BOX}}}]}}',
        '{"objects": [{"desc": "a", "bbox_2d": ["<|coord_1|>", "<|coord_2|>", "<|coord_3|>", "<|coord_4|>"]}]}',
        f'{{"objects": [{{"desc": "a" "bbox_2d": {BOX.replace(",", "")}}}]}}',
        f'[{{"bbox": {BOX}, "name": "a"}}]',
        f'[{{"category": "a", "box_2d": {BOX}}}]',
        f"[{{'bbox_2d': {BOX}, 'label': 'a'}}]",
        f'[{{"bbox_2d": {BOX[:-1]},], "label": "a",}},],',
        f'[{{"label": "a", "attributes": {{"colour": ["red", {{"x": 1}}]}}, "id": null, "bbox_2d": {BOX}}}]',
        f'[{{"label": "a", "name": "b", "category": 3, "bbox_2d": {BOX}}}]',
        f'[{{"label": "a", "bbox_2d": [{BOX}]}}]',
        f'[{{"label": "a", "bbox_2d": [({CORNERS})]}}]',
        f"<|object_ref_start|>a<|object_ref_end|><|box_start|>({CORNERS})<|box_end|>",
        f"<ref>a</ref><box>[{BOX}]</box>",
        f"<|ref|>a<|/ref|><|det|>[{BOX}]<|/det|>",
    ],
)
def test_other_ways_to_write_it(text: str) -> None:
    assert read(text) == (["a"], [])


@pytest.mark.parametrize(
    "boxes", [f"[{BOX}, {BOX}]", f"[[{BOX}], [{BOX}]]"], ids=["lists in a list", "lists in lists in a list"]
)
def test_several_boxes_of_a_label(boxes: str) -> None:
    found = parse_answer(f'[{{"label": "a", "bbox_2d": {boxes}}}]')
    assert ([item.bins for item in found.objects], found.unread) == ([(1, 2, 3, 4)] * 2, ())


def test_the_points_of_a_poly_may_be_lists() -> None:
    points = ", ".join(coords(*pair) for pair in ((5, 1), (9, 1), (7, 0)))
    (item,) = parse_answer(f'[{{"label": "roof", "poly": [{points}]}}]').objects
    assert item.bins == (5, 1, 9, 1, 7, 0)


@pytest.mark.parametrize("tokens", [True, False])
def test_a_quad_in_its_tags(tokens: bool) -> None:
    values = (1, 2, 5, 2, 5, 4, 1, 4)
    written = "".join(ints_to_tokens(values)) if tokens else "(1,2),(5,2),(5,4),(1,4)"
    text = (
        f"<|object_ref_start|>a<|object_ref_end|><|quad_start|>{written}<|quad_end|><|box_start|>({CORNERS})<|box_end|>"
    )
    found = parse_answer(text, numbers=True)
    kinds = [(item.kind, tuple(map(int, item.bins or item.numbers))) for item in found.objects]
    assert (kinds, found.unread) == ([("quad", values), ("bbox_2d", (1, 2, 3, 4))], ())


def test_boxes_in_tags_belong_to_the_label_before_them() -> None:
    box = f"<|box_start|>({CORNERS})<|box_end|>"
    text = f"<|object_ref_start|>a<|object_ref_end|>{box}{box}, <|object_ref_start|>b<|object_ref_end|>{box}"
    found = parse_answer(text)
    assert ([item.desc for item in found.objects], found.unread) == (["a", "a", "b"], ())
    assert text[slice(*found.objects[2].desc_span)] == "b"


def test_several_boxes_in_one_pair_of_tags_have_commas_between_them() -> None:
    first, second = ("".join(ints_to_tokens(box)) for box in ((1, 2, 3, 4), (5, 6, 7, 8)))
    text = f"<|object_ref_start|>a<|object_ref_end|><|box_start|>{first},{second}, {first}<|box_end|>"
    found = parse_answer(text)
    assert [(item.desc, item.bins) for item in found.objects] == [
        ("a", (1, 2, 3, 4)),
        ("a", (5, 6, 7, 8)),
        ("a", (1, 2, 3, 4)),
    ]
    assert (found.unread, text[slice(*found.objects[1].coord_spans[3])]) == ((), "<|coord_8|>")


@pytest.mark.parametrize("numbers", [False, True])
def test_so_have_boxes_of_two_pairs_each(numbers: bool) -> None:
    written = list(range(1, 9)) if numbers else ints_to_tokens(range(1, 9))
    pairs = ",".join(f"({x},{y})" for x, y in zip(written[::2], written[1::2], strict=True))
    found = parse_answer(f"<ref>a</ref><box>{pairs}</box>", numbers=True)
    assert [item.numbers or item.bins for item in found.objects] == [(1, 2, 3, 4), (5, 6, 7, 8)]


@pytest.mark.parametrize("commas", [(2, 4, 6), (), (1, 2, 3, 4, 5, 6, 7), (3,)])
def test_coordinates_in_one_pair_of_tags_may_be_points_or_a_quad(commas: tuple[int, ...]) -> None:
    tokens = "".join(("," if k in commas else "") + token for k, token in enumerate(ints_to_tokens(range(1, 9))))
    found = parse_answer(f"<ref>a</ref><box>{tokens}</box>")
    assert ([item.reason for item in found.unread], found.objects) == (["8 coordinates; a bbox_2d has 4"], ())


@pytest.mark.parametrize(
    ("text", "at", "reason"),
    [
        (f"<box>({CORNERS})</box>", "objects[0].desc", "no description"),
        (
            f"<ref>a</ref><ref>b</ref><box>({CORNERS})</box>",
            "objects[0]",
            "2 labels before one box, which may be of any",
        ),
        ("<ref>a</ref>", "objects[0]", "a label without a box"),
        ("<ref>a</ref><box>(<|coord_1|>,", "objects[0].bbox_2d", "cut off behind 1 coordinate"),
        (f"<ref>a</ref><box>({CORNERS})</ref>", "objects[0].bbox_2d", "cut off behind 4 coordinates"),
        # The second box may be b's.
        (f"<box>({CORNERS})</box><ref>a</ref><box>({CORNERS})</box><ref>b</ref>", "objects[0].desc", "no description"),
    ],
)
def test_boxes_in_tags_that_are_not_read(text: str, at: str, reason: str) -> None:
    labels, unread = read(text)
    assert (labels, unread[0]) == ([], (at, reason))


def test_a_list_in_quotes_is_one() -> None:
    text = f'[{{"bbox_2d": "{BOX}", "label": "a"}}, {A}]'
    (item, _), unread = parse_answer(text).objects, parse_answer(text).unread
    assert (item.desc, item.bins, unread) == ("a", (1, 2, 3, 4), ())
    assert text[slice(*item.coord_spans[3])] == "<|coord_4|>"


@pytest.mark.parametrize("written", [f'"{BOX[:-1]}", "x": "]"', f'"{BOX[1:-1]}"', '"none"', '""'])
def test_quotes_around_anything_else(written: str) -> None:
    labels, unread = read(f'[{{"bbox_2d": {written}, "label": "b"}}, {A}]')
    assert (labels, unread[0][0]) == (["a"], "objects[0].bbox_2d")


@pytest.mark.parametrize(
    "text",
    [
        f"<think>perhaps [{B}]</think>[{A}]",
        f"perhaps [{B}]</think>\n[{A}]",  # the template had opened it
        f"<thinking>[{B}]</thinking>[{A}]",
        f"<think>[{B}]</think><think>[{B}]</think>[{A}]",
        f"[{A}]<think>or rather [{B}]",
        f"<Think>[{B}]</THINK >[{A}]",
        f"Well. <reasoning>[{B}]</reasoning>[{A}]",
        f"◁think▷[{B}]◁/think▷[{A}]",
        f"[{A}] <thinking>or rather [{B}]",
        f"<|channel>thought\n[{B}]<channel|>[{A}]",
        f"[{A}]<|channel>thought\n[{B}]",
    ],
)
def test_thoughts_are_no_answer(text: str) -> None:
    assert read(text)[0] == ["a"]


@pytest.mark.parametrize("text", [f"<think>[{B}]", f"<think>[{B}]</think> ", f"<reasoning>[{B}]</think>"])
def test_thoughts_alone(text: str) -> None:
    assert read(text) == ([], [("", "thoughts, and no answer behind them")])


@pytest.mark.parametrize("written", ["'it\\'s'", '"it\'s"', "'a \"b\"'", "'\\u732b'"])
def test_labels_in_single_quotes_are_pythons(written: str) -> None:
    (item,) = parse_answer(f"[{{'bbox_2d': {BOX}, 'label': {written}}}]").objects
    assert item.desc == ast.literal_eval(written)


def test_numbers_are_read_when_they_are_asked_for() -> None:
    text = '[{"bbox_2d": [10, 20.5, 1000, 4e2], "label": "a"}]'
    (item,) = parse_answer(text, numbers=True).objects
    assert (item.numbers, item.bins) == ((10.0, 20.5, 1000.0, 400.0), ())
    assert not parse_answer(text).objects


def test_numbers_under_a_name_of_two_meanings_are_not() -> None:
    (unread,) = parse_answer('[{"box_2d": [10, 20, 30, 40], "label": "a"}]', numbers=True).unread
    assert unread.reason == "plain numbers, which begin with y where Gemini writes them and with x elsewhere"


def test_what_stands_behind_a_wrong_object_is_read_whatever_its_first_key() -> None:
    wrong = f'{{"id": 1, "label": "b", "bbox_2d": {coords(1, 2, 3)}}}'
    labels, unread = read(f'[{wrong}, {{"id": 2, "label": "a", "bbox_2d": {BOX}}}]')
    assert (labels, [at for at, _ in unread]) == (["a"], ["objects[0].bbox_2d"])


@pytest.mark.parametrize("text", ['{"objects": []}', "[]", "```json\n[]\n```"])
def test_nothing_is_an_answer(text: str) -> None:
    assert read(text) == ([], [])


@pytest.mark.parametrize(
    ("written", "label"),
    [('a \\"b\\"', 'a "b"'), ("\\u732b", "猫"), ("\\ud83d\\ude00", "😀"), ("\\ud83d", "\ufffd"), ("a\nb", "a\nb")],
)
def test_labels(written: str, label: str) -> None:
    assert read(f'{{"objects": [{{"desc": "{written}", "bbox_2d": {BOX}}}]}}') == ([label], [])


# --- what is not ----------------------------------------------------------------------------------------------------


def test_what_is_right_survives_what_is_wrong() -> None:
    wrong = f'{{"desc": "b", "bbox_2d": {coords(1, 2, 3)}}}'
    assert read(f'{{"objects": [{A}, {wrong}, {A}]}}') == (
        ["a", "a"],
        [("objects[1].bbox_2d", "3 coordinates; a bbox_2d has 4")],
    )


@pytest.mark.parametrize(
    ("geometry", "at", "reason"),
    [
        (coords(1, 2, 3), ".bbox_2d", "3 coordinates; a bbox_2d has 4"),
        (coords(1, 2, 3, 4, 5), ".bbox_2d", "5 coordinates; a bbox_2d has 4"),
        ("[]", ".bbox_2d", "0 coordinates; a bbox_2d has 4"),
        (coords(5, 2, 3, 4), ".bbox_2d", "x2 = 3 < x1 = 5"),
        (coords(1, 9, 3, 4), ".bbox_2d", "y2 = 4 < y1 = 9"),
        ("[12, 40, 300, 412]", ".bbox_2d", "plain numbers, beginning 12, where coord tokens belong"),
        ("[<|coord_1|>, left, top]", ".bbox_2d", '"left" where a coord token belongs'),
        ("[<|coord_1|>, 7, <|coord_2|>, <|coord_2|>]", ".bbox_2d", '"7" where a coord token belongs'),
        ("[<|coord_1000|>]", ".bbox_2d", '"<|coord_1000|>" is no coord token'),
        ("[<|coord_*|>]", ".bbox_2d", '"<|coord_*|>" is no coord token'),
        (f"[{BOX[1:-1]}, [7]]", ".bbox_2d", "nested wrongly: 2 lists that are no bbox_2d"),
        (f"[{coords(1, 2, 3, 4)}, {coords(5, 6, 7)}]", ".bbox_2d", "nested wrongly: 2 lists that are no bbox_2d"),
        (f"[{', '.join([coords(1, 2)] * 4)}]", ".bbox_2d", "nested wrongly: 4 lists that are no bbox_2d"),
        (f'[{BOX}, {{"a": 1}}]', ".bbox_2d", 'nested wrongly: "{" in the list'),
        ("null", ".bbox_2d", 'a list belongs there, not "null"'),
        (f'{BOX}, "poly": {BOX}', ".poly", "a second geometry; an object has one"),
    ],
)
def test_wrong_geometry(geometry: str, at: str, reason: str) -> None:
    assert read(f'{{"objects": [{{"desc": "a", "bbox_2d": {geometry}}}]}}') == ([], [(f"objects[0]{at}", reason)])


@pytest.mark.parametrize(
    ("item", "at", "reason"),
    [
        (f'{{"bbox_2d": {BOX}}}', ".desc", "no description"),
        (f'{{"desc": "", "bbox_2d": {BOX}}}', ".desc", "no description"),
        (f'{{"desc": 5, "bbox_2d": {BOX}}}', ".desc", 'no text in quotes, but "5"'),
        ('{"desc": "a"}', "", "no geometry: neither bbox_2d nor poly nor point nor quad"),
        (
            f'{{"desc": "a", "poly": {coords(1, 2, 3, 4, 5)}}}',
            ".poly",
            "5 coordinates; a poly has an even number, at least 6",
        ),
        ('{"desc": "a", "parts": [1]}', "", "no geometry: neither bbox_2d nor poly nor point nor quad"),
        (f'{{"desc": "a", "parts": [1}}, "bbox_2d": {BOX}}}', ".parts", 'nested wrongly: "}" in the list'),
        (f'{{"desc": "a", "desc": "b", "bbox_2d": {BOX}}}', ".desc", "a second description; an object has one"),
        (f'{{"name": "a", "category": "b", "bbox_2d": {BOX}}}', "", "several descriptions: name, category"),
        (f'{{"label": ["a", "b"], "bbox_2d": {BOX}}}', ".label", 'no text in quotes, but "["'),
        (f'{{desc: "a", "bbox_2d": {BOX}}}', "", 'a key in quotes belongs there, not "desc"'),
        (f'{{"desc" "a", "bbox_2d": {BOX}}}', ".desc", 'a colon belongs there, not "\\"a\\""'),
        (f'{{"desc": "\\q", "bbox_2d": {BOX}}}', "", 'a wrong escape in "\\"\\\\q\\""'),
        ("7", "", 'an object belongs there, not "7"'),
    ],
)
def test_wrong_objects(item: str, at: str, reason: str) -> None:
    assert read(f'{{"objects": [{item}]}}') == ([], [(f"objects[0]{at}", reason)])


def test_an_object_within_an_object_is_read() -> None:
    assert read(f'{{"objects": [{{"desc": "b", "parts": [{A}]}}]}}') == (
        ["a"],
        [("objects[0]", "no geometry: neither bbox_2d nor poly nor point nor quad")],
    )


def test_coordinates_within_a_further_value_are_passed_over_and_told() -> None:
    assert read(f'{{"objects": [{{"desc": "b", "bbox_2d": {BOX}, "parts": [{A}]}}]}}') == (
        ["b"],
        [("objects[0].parts", "passed over, with its coordinates")],
    )


@pytest.mark.parametrize(
    ("text", "at", "reason"),
    [
        (
            '{"objects": [{"desc": "b", "bbox_2d": [<|coord_1|>, <|coo',
            "objects[0].bbox_2d",
            "cut off behind 1 coordinate",
        ),
        ('{"objects": [{"desc": "b", "bbox_2d": [<|coord_1|>,', "objects[0].bbox_2d", "cut off behind 1 coordinate"),
        ('{"objects": [{"desc": "b', "objects[0].desc", "cut off"),
        ('{"objects": [{"desc": ', "objects[0].desc", "cut off"),
        ('{"objects": [{"de', "objects[0]", "cut off"),
        ('{"objects": [{', "objects[0]", "cut off"),
        ('{"objects": [', "objects", "cut off: the list does not end"),
        (f'{{"objects": [{A}', "objects", "cut off: the list does not end"),
    ],
)
def test_cut_off(text: str, at: str, reason: str) -> None:
    _, ((found_at, found_reason),) = read(text)
    assert (found_at, found_reason[: len(reason)]) == (at, reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty answer"),
        (" \n ", "empty answer"),
        ("图像中没有物体。", 'no list of objects; the answer begins "图像中没有物体。"'),
        ("null", 'no list of objects; the answer begins "null"'),
        ('{"objects": null}', 'no list of objects; the answer begins "{\\"objects\\": null}"'),
        ("[[[[", 'no list of objects; the answer begins "[[[["'),
        ("x" * 100, f'no list of objects; the answer begins "{"x" * 39}…"'),
    ],
)
def test_no_list_at_all(text: str, reason: str) -> None:
    assert read(text) == ([], [("", reason)])


def test_text_around_the_list_is_passed_over_and_told() -> None:
    assert read(f'Sure: {{"objects": [{A}]}} Hope it helps.') == (
        ["a"],
        [("before", 'passed over "Sure:"'), ("after", 'passed over "Hope it helps."')],
    )


def test_further_lists_are_read_and_told() -> None:
    text = f"```json\n[{A}]\n```\nand\n```json\n[{B}]\n```"
    assert read(text) == (
        ["a", "b"],
        [("after", 'passed over "and"'), ("after", f"a further list, at character {text.rindex('[{')}: read as well")],
    )


def test_what_a_further_list_repeats_counts_once() -> None:
    labels, unread = read(f'{{"objects": [{A}, {A}]}} {{"objects": [{A}, {B}]}}')
    assert (labels, [at for at, _ in unread]) == (["a", "a", "b"], ["after"])


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"objects": [' + '{"desc": "a", ' * 5_000,
        '{"objects": [' + '{"desc": "a", "bbox_2d": [1]]]}, ' * 5_000,
        '{"objects": [{"desc": "a", "bbox_2d": [' + "<|coord_1|>, " * 20_000,
        "\\" * 100_000,
        '"' * 100_001,
        '{"objects": [' + " " * 100_000,
        "[{}]," * 20_000,
        "<ref>" * 20_000,
        "<ref>a</ref><box>" * 10_000,
        "<ref>a</ref>" * 100_000,
        '{"bbox_2d": "[' * 20_000,
        '[{"a": ' + '[{"desc": "a", "parts": ' * 5_000 + "[<|coord_1|>]" + "}]" * 5_000 + "}]",
        '[{"bbox_2d": [' + "[" * 100_000,
        '[{"bbox_2d": [' + "[<|coord_1|>]," * 20_000 + "]}]",
        "[{'" + "\\'" * 50_000,
    ],
)
def test_long_nonsense_takes_no_time(text: str) -> None:
    start = time.process_time()
    assert parse_answer(text).unread
    assert time.process_time() - start < 5.0


def test_a_reason_is_text_that_a_file_can_hold() -> None:
    assert parse_answer("\ud800").unread[0].reason == 'no list of objects; the answer begins "\ufffd"'
