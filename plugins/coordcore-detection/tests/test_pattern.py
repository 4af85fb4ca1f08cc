"""The format as a regular expression."""

from __future__ import annotations

import re

import attrs
import pytest

from coordcore.coords import DEFAULT_COORDS, PRESETS, CoordFormat
from coordcore.records.answers import COORDJSON, Format, Located, answer_text
from coordcore.records.answers.format import Coords, Label
from coordcore_detection.decode.pattern import answer_grammar, answer_pattern, any_of, literal

LINES = Format(
    name="lines",
    label=(Label(without="<@"),),
    places={"bbox_2d": (Coords("bbox_2d", between=""),), "poly": ("@", Coords("poly", between=""))},
    between="\n",
    nothing="none",
)
ANGLES = CoordFormat(tokens="<{}>")
"""Tokens of which all that they begin with is `<`."""


def said(text: str, form: Format = COORDJSON, coords: CoordFormat = DEFAULT_COORDS, **more: object) -> bool:
    return bool(re.fullmatch(answer_pattern(form, coords, **more), text))


def boxes(*labels: str, form: Format = COORDJSON, coords: CoordFormat = DEFAULT_COORDS) -> str:
    items = [Located(desc=label, kind="bbox_2d", bins=(0, 9, 10, 999)) for label in labels]
    return answer_text(items, form=form, coords=coords)


@pytest.mark.parametrize(
    "texts",
    [
        ["a"], ["ab", "ac"], ["a", "ab"], ["", "a"], ["0", "7", "10", "11", "19"], ["<a>", "<b>"],
        ["]", "^", "-"], ["a.b", "a*b"], [*map(str, range(1000))], DEFAULT_COORDS.written,
        PRESETS["paligemma"][0].written,
    ],
)  # fmt: skip
def test_any_of_is_one_of_them_and_nothing_else(texts: list[str]) -> None:
    pattern = re.compile(any_of(texts))
    others = {f"{text}{more}" for text in texts for more in ("0", "a", ">")} | {text[:-1] for text in texts}
    others |= {text.replace("9", "a", 1) for text in texts} | {text[1:] for text in texts}
    assert all(pattern.fullmatch(text) for text in texts)
    assert not [text for text in others - {*texts} if pattern.fullmatch(text)]
    assert len(pattern.pattern) < 120


def test_a_literal_is_itself() -> None:
    text = 'a.b*[c]{2}|^$\\ "\n\t#-&~'
    assert re.fullmatch(literal(text), text)


@pytest.mark.parametrize("form", [COORDJSON, LINES])
@pytest.mark.parametrize("labels", [(), ("a",), ("épée 猫 😀", "b", "b"), ("~ [x]-^",)])
def test_what_the_writer_writes_is_allowed_and_no_part_of_it(form: Format, labels: tuple[str, ...]) -> None:
    text = boxes(*labels, form=form)
    assert said(text, form)
    assert not any(said(text[:end], form) for end in range(1, len(text)) if text[end : end + 1] != "\n")
    assert not any(said(text + more, form) for more in (" ", "x", "\n", "<|coord_1|>"))


@pytest.mark.parametrize("label", ['"', "\\", "\n", "\x00", "\ud83d", '\\"', "\\ud83d\\udc0d"])
def test_a_label_in_json_is_as_json_writes_it(label: str) -> None:
    text = '{"objects": [{"desc": "%s", "bbox_2d": [<|coord_1|>, <|coord_2|>, <|coord_3|>, <|coord_4|>]}]}'
    assert said(text % label) is (label in ('\\"', "\\ud83d\\udc0d"))


@pytest.mark.parametrize(
    ("label", "is_good"),
    [
        ("<", True), ("<<", True), ("a < b", True), ("|", True), ("||<", True), ("a|b<", True), ("< |", True),
        ("<|", False), ("<<|", False), ("a<|b", False), ("<|coord_5|>", False), ("|<|", False), ('<\\"|', True),
    ],
)  # fmt: skip
def test_a_label_does_not_begin_a_coord_token(label: str, is_good: bool) -> None:
    text = '{"objects": [{"desc": "%s", "bbox_2d": [<|coord_1|>, <|coord_2|>, <|coord_3|>, <|coord_4|>]}]}'
    assert said(text % label) is is_good


def test_tokens_that_begin_with_one_letter_leave_it_out_of_labels() -> None:
    assert said(boxes("a > b", coords=ANGLES), coords=ANGLES)
    assert not said(boxes("a < b", coords=ANGLES), coords=ANGLES)


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        ("<loc0000>, <loc0999>, <loc1000>, <loc1023>", True),
        ("<loc0000>, <loc0999>, <loc1000>, <loc1024>", False),
        ("<loc0>, <loc0999>, <loc1000>, <loc1023>", False),
        ("<loc0000>, <loc0999>, <loc1000>", False),
        ("0, 1, 2, 3", False),
    ],
)
def test_coordinates_are_the_tokens_of_the_checkpoint(text: str, is_good: bool) -> None:
    answer = f'{{"objects": [{{"desc": "a", "bbox_2d": [{text}]}}]}}'
    assert said(answer, coords=PRESETS["paligemma"][0]) is is_good


def test_plain_numbers_are_those_of_the_bins() -> None:
    form = attrs.evolve(COORDJSON, name="numbers", numbers=True)
    text = '{"objects": [{"desc": "<|a|>", "bbox_2d": [0, 10, 999, %s]}]}'
    assert [said(text % number, form) for number in ("7", "999", "1000", "07", "-1", "1.5")] == [True, True] + 4 * [
        False
    ]


@pytest.mark.parametrize(("count", "is_good"), [(4, False), (6, True), (7, False), (8, True), (40, True)])
def test_a_polygon_has_three_points_at_least(count: int, is_good: bool) -> None:
    tokens = "".join(f"<|coord_{k}|>" for k in range(count))
    assert said(f"a@{tokens}", LINES) is is_good


def test_kinds_and_the_order_of_fields_can_be_fixed() -> None:
    text = boxes("a")
    assert (said(text, geometry=["point"]), said(text, geometry=["point", "bbox_2d"])) == (False, True)
    assert (said(text, fields="geometry_first"), said(text, fields="desc_first")) == (False, True)


def test_a_grammar_names_the_tokens() -> None:
    form = answer_grammar(LINES, DEFAULT_COORDS, range(5, 1005), ["bbox_2d"], "desc_first")
    one = "([ -;=-?A-\ud7ff\ue000-\U0010ffff])+ coord (coord){3}"
    tokens = ", ".join(map(str, range(5, 1005)))
    assert form == f'root ::= ({one} ("\\n" {one})*|"none")\ncoord ::= Token({tokens})\n'


def test_a_grammar_of_plain_numbers_names_none() -> None:
    form = answer_grammar(attrs.evolve(COORDJSON, name="numbers", numbers=True), DEFAULT_COORDS, ())
    assert form.endswith('\ncoord ::= ("0"|[1-9] ([0-9] ([0-9])?)?)\n')


def test_a_long_answer_is_looked_at_once() -> None:
    text = boxes(*["a|<<b"] * 200)
    assert said(text)
    assert not said(text[:-1])
