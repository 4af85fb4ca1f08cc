"""Chat rows as examples: placeholders, several images and turns, boxes in texts, other spellings of a row."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from PIL import Image

from coordcore import BuildContext, Example
from coordcore.coords import CoordFormat
from coordcore.quantisation import quantisation
from coordcore_coord_tokens import ChatJsonl, ChatJsonlConfig

Say = Callable[..., Example]


@pytest.fixture
def say(write: Any, context: BuildContext) -> Say:
    """`say(row, space="pixel")` is the example of a row."""

    def say(row: dict[str, Any], coords: CoordFormat | None = None, **settings: Any) -> Example:
        Image.new("RGB", (100, 50), "white").save("small.png")
        used = context if coords is None else attrs.evolve(context, coords=coords)
        return ChatJsonl.open(ChatJsonlConfig(train=write(row), **settings), used).train()[0]

    return say


def row(question: str, *answers: str, images: Any = ("photo.png",), **objects: Any) -> dict[str, Any]:
    """An ms-swift row. answers: the first answer, then questions and answers in turn."""
    roles = ("user", "assistant")
    texts = enumerate((question, *answers))
    messages = [{"role": roles[number % 2], "content": text} for number, text in texts]
    return {"messages": messages, "images": list(images)} | ({"objects": objects} if objects else {})


def tokens(*bins: int, between: str = "") -> str:
    return between.join(f"<|coord_{k}|>" for k in bins)


def texts(example: Example) -> list[str]:
    return [message["content"] for message in example.messages]


def values(example: Example) -> list[tuple[float, ...]]:
    return [tuple(round(value, 3) for value in geometry.values) for geometry in example.geometries]


# --- placeholders ----------------------------------------------------------------------------------------------------


def test_a_question_for_a_ref_is_answered_with_its_box(say: Say) -> None:
    given = row("<image>Where is <ref-object>?", "<bbox>", ref=["the dog"], bbox=[[64, 48, 320, 240]])
    example = say(given)
    assert texts(example) == ["<image>Where is the dog?", tokens(100, 100, 500, 500)]
    assert values(example) == [(99.9, 99.9, 499.5, 499.5)]
    assert (example.image_size, example.source) == ((640, 480), "train.jsonl:1")


def test_placeholders_are_taken_in_the_order_of_the_messages(say: Say) -> None:
    given = row(
        "<image>What is at <bbox>?",
        "<ref-object> at <bbox>",
        "And <ref-object>?",
        "<bbox> and <bbox>",
        ref=["a cat", "the dog"],
        bbox=[[0, 0, 64, 48], [64, 48, 128, 96], [128, 96, 192, 144], [192, 144, 256, 192]],
    )
    example = say(given)
    assert texts(example) == [
        f"<image>What is at {tokens(0, 0, 100, 100)}?",
        f"a cat at {tokens(100, 100, 200, 200)}",
        "And the dog?",
        f"{tokens(200, 200, 300, 300)} and {tokens(300, 300, 400, 400)}",
    ]
    # Those of the answers alone: what is asked is not supervised.
    assert values(example) == [
        (99.9, 99.9, 199.8, 199.8),
        (199.8, 199.8, 299.7, 299.7),
        (299.7, 299.7, 399.6, 399.6),
    ]


def test_fractions(say: Say) -> None:
    example = say(row("<image>Where?", "<bbox>", bbox=[[0.1, 0.25, 0.5, 1]], bbox_type="norm1"))
    assert values(example) == [(99.9, 249.75, 499.5, 999.0)]


def test_boxes_of_several_images(say: Say) -> None:
    objects = {"bbox": [[64, 48, 128, 96], [10, 10, 50, 25]], "image_id": [0, 1]}
    example = say(row("<image><image>Where?", "<bbox><bbox>", images=["photo.png", "small.png"], **objects))
    assert values(example) == [(99.9, 99.9, 199.8, 199.8), (99.9, 199.8, 499.5, 499.5)]
    assert (example.image_size, [image.size for image in example.images]) == (None, [(640, 480), (100, 50)])


def test_the_size_is_that_of_the_image_that_the_answer_speaks_of(say: Say) -> None:
    objects = {"bbox": [[64, 48, 128, 96], [10, 10, 50, 25]], "image_id": [0, 1]}
    given = row("<image><image>Where is <bbox>?", "<bbox>", images=["photo.png", "small.png"], **objects)
    assert say(given).image_size == (100, 50)


def test_boxes_without_an_image_id_are_on_the_first_image_as_in_ms_swift(say: Say) -> None:
    objects = {"bbox": [[10, 10, 50, 25], [64, 48, 128, 96]], "image_id": [1]}
    example = say(row("<image><image>Where?", "<bbox><bbox>", images=["photo.png", "small.png"], **objects))
    assert values(example)[1] == (99.9, 99.9, 199.8, 199.8)


def test_a_row_without_boxes(say: Say) -> None:
    example = say(row("<image>What is it?", "A dog.", "Sure?", "Yes."))
    assert (texts(example), example.geometries) == (["<image>What is it?", "A dog.", "Sure?", "Yes."], ())


def test_a_row_without_images(say: Say) -> None:
    example = say(row("Who are you?", "A model.", images=[]))
    assert (example.images, example.image_size) == ([], None)


@pytest.mark.parametrize("space", [None, "norm1"])
def test_in_a_row_without_images_numbers_are_text(say: Say, space: str | None) -> None:
    example = say(row("Sort it.", "[1, 2, 3, 4]", images=[]), space=space)
    assert (texts(example)[1], example.geometries) == ("[1, 2, 3, 4]", ())


def test_missing_places_of_images_go_before_the_first_question_as_in_ms_swift(say: Say) -> None:
    assert texts(say(row("What is it?", "A dog.")))[0] == "<image>What is it?"


def test_in_json_a_placeholder_becomes_a_list(say: Say) -> None:
    answer = '[{"bbox_2d": <bbox>, "label": "<ref-object>"}, {"boxes": [<bbox>, <bbox>]}, "<bbox>"]'
    example = say(row("<image>?", answer, ref=["dog"], bbox=[[64, 48, 320, 240]] * 4))
    box = f"[{tokens(100, 100, 500, 500, between=', ')}]"
    bare = tokens(100, 100, 500, 500)
    assert texts(example)[1] == f'[{{"bbox_2d": {box}, "label": "dog"}}, {{"boxes": [{box}, {box}]}}, "{bare}"]'


def test_quotes_of_a_ref_are_escaped_in_json_alone(say: Say) -> None:
    answer = '"<ref-object>": [{"bbox_2d": <bbox>, "label": "<ref-object>"}]'
    example = say(row("<image>?", answer, ref=['5" pipe', 'a 5" pipe'], bbox=[[64, 48, 320, 240]]))
    place = tokens(100, 100, 500, 500, between=", ")
    assert texts(example)[1] == f'"5" pipe": [{{"bbox_2d": [{place}], "label": "a 5\\" pipe"}}]'


def test_a_pixel_in_the_corner_is_a_box(say: Say) -> None:
    assert values(say(row("<image>?", "<bbox>", bbox=[[0, 0, 1, 1]]))) == [(0.0, 0.0, 1.561, 2.081)]


def test_a_narrow_box_is_widened_and_counted(say: Say, caplog: pytest.LogCaptureFixture) -> None:
    say(row("<image>Where is <bbox>?", "<bbox>", bbox=[[64, 48, 64.1, 96], [64, 48, 64.1, 96]]))
    assert "train.jsonl: 2 boxes narrower than one bin were widened by one bin" in caplog.messages


def test_a_quad_without_area_is_counted(say: Say, caplog: pytest.LogCaptureFixture) -> None:
    say(row("<image>?", '[{"quad": [0, 0, 64, 48, 128, 96, 192, 144], "label": "cup"}]'), space="pixel")
    told = "1 polygons and quads have no area: in bins, their corners lie on one line"
    assert f"train.jsonl: {told}" in caplog.messages


def test_a_box_over_the_edge_is_cut_where_that_is_asked(say: Say, caplog: pytest.LogCaptureFixture) -> None:
    example = say(row("<image>Where?", "<bbox>", bbox=[[-3, 0, 650, 480]]), outside="clip")
    assert values(example) == [(0, 0, 999, 999)]
    assert "train.jsonl: 1 objects reaching over the image's edge were clipped" in caplog.messages


# --- boxes in texts --------------------------------------------------------------------------------------------------


def test_qwens_list(say: Say) -> None:
    answer = '```json\n[{"bbox_2d": [64, 48, 320, 240], "label": "dog"}]\n```'
    example = say(row("<image>?", answer), space="pixel")
    written = tokens(100, 100, 500, 500, between=", ")
    assert texts(example)[1] == f'```json\n[{{"bbox_2d": [{written}], "label": "dog"}}]\n```'
    assert values(example) == [(99.9, 99.9, 499.5, 499.5)]


@pytest.mark.parametrize(
    "answer",
    [
        "<|object_ref_start|>dog<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>",
        "<ref>dog</ref><box>[[100, 200, 300, 400]]</box>",
        "<|ref|>dog<|/ref|><|det|>[[100, 200, 300, 400]]<|/det|>",
        "<box>100 200 300 400</box>",
        "The dog [100, 200, 300, 400] runs.",
        "The dog (100,200,300,400) runs.",
        "{'bbox': [[100, 200], [300, 400]]}",
        '{"bbox_2d": "[100.0, 200, 300, 400]"}',
    ],
)
def test_numbers_become_tokens_in_the_form_they_had(say: Say, answer: str) -> None:
    example = say(row("<image>?", answer), space="norm1000")
    assert texts(example)[1] == re.sub(r"(\d00)(?:\.0)?", r"<|coord_\1|>", answer)
    assert values(example) == [(99.9, 199.8, 299.7, 399.6)]


def test_boxes_in_the_text_of_a_question(say: Say) -> None:
    example = say(row("<image>What is at [0.1, 0.2, 0.3, 0.4]?", "A dog."), space="norm1")
    written = tokens(100, 200, 300, 400, between=", ")
    assert (texts(example)[0], example.geometries) == (f"<image>What is at [{written}]?", ())


def test_several_boxes_and_polygons_of_a_text_in_its_order(say: Say) -> None:
    answer = '{"bbox_2d": [[1, 2, 3, 4], [5, 6, 7, 8]]} {"poly": [1, 2, 3, 4, 5, 0]} {"poly": [[1,2],[3,4],[5,0]]}'
    example = say(row("<image>?", answer), space="bin")
    assert [geometry.kind for geometry in example.geometries] == ["bbox_2d", "bbox_2d", "poly", "poly"]
    assert values(example) == [(1, 2, 3, 4), (5, 6, 7, 8), (1, 2, 3, 4, 5, 0), (1, 2, 3, 4, 5, 0)]


@pytest.mark.parametrize(
    ("answer", "written", "kinds"),
    [
        ('{"box": {"x1": 10, "y1": 20, "x2": 30, "y2": 40}}', '{"box": {"x1": A, "y1": B, "x2": C, "y2": D}}', "b"),
        ('{"xmin":10,"ymin":20,"xmax":30,"ymax":40,"score":3}', '{"xmin":A,"ymin":B,"xmax":C,"ymax":D,"score":3}', "b"),
        ('[{"x0": 10, "y0": 20, "x1": 30, "y1": 40}]', '[{"x0": A, "y0": B, "x1": C, "y1": D}]', "b"),
        (
            '{"xMin": "10", "yMin": "20", "xMax": "30", "yMax": "40"}',
            '{"xMin": "A", "yMin": "B", "xMax": "C", "yMax": "D"}',
            "b",
        ),
        ('{"action":"left_click","coordinate":[10,20]}', '{"action":"left_click","coordinate":[A,B]}', "p"),
        ('{"coordinate": [10, 20], "coordinate2": [30, 40]}', '{"coordinate": [A, B], "coordinate2": [C, D]}', "pp"),
        ('{"action": "CLICK", "position": [10, 20]}', '{"action": "CLICK", "position": [A, B]}', "p"),
        ('{"name": "click", "arguments": {"x": 10, "y": 20}}', '{"name": "click", "arguments": {"x": A, "y": B}}', "p"),
        ('{"action": "click", "x": 10, "y": 20}', '{"action": "click", "x": A, "y": B}', "p"),
        ('{"point_2d": {"x": 10, "y": 20}}', '{"point_2d": {"x": A, "y": B}}', "p"),
        ("pyautogui.click(x=10, y=20)", "pyautogui.click(x=A, y=B)", "p"),
        ("pyautogui.scroll(-5, x=10, y=20)", "pyautogui.scroll(-5, x=A, y=B)", "p"),
        ("pyautogui.moveTo(10, 20, duration=0.5)", "pyautogui.moveTo(A, B, duration=0.5)", "p"),
        ("pyautogui.dragTo(10, 20, 2)", "pyautogui.dragTo(A, B, 2)", "p"),
        ("click(10, 20)", "click(A, B)", "p"),
        ("swipe(from_coord=[10, 20], to_coord=[30, 40])", "swipe(from_coord=[A, B], to_coord=[C, D])", "pp"),
        ("drag(start_box='(10,20)', end_box='(30,40)')", "drag(start_box='(A,B)', end_box='(C,D)')", "pp"),
        ("click(start_box='<|box_start|>(10,20)<|box_end|>')", "click(start_box='<|box_start|>(A,B)<|box_end|>')", "p"),
        ("click(point='<point>10 20</point>')", "click(point='<point>A B</point>')", "p"),
        ("CLICK <point>[[10, 20]]</point>", "CLICK <point>[[A, B]]</point>", "p"),
        ('{"POINT": [10, 20], "to": "down"}', '{"POINT": [A, B], "to": "down"}', "p"),
        ("pyautogui.click((10, 20))", "pyautogui.click((A, B))", "p"),
        ("mouse.click(10, 20, {button: 'right'})", "mouse.click(A, B, {button: 'right'})", "p"),
        (
            '{"type": "click", "button": "left", "x": 10, "y": 20}',
            '{"type": "click", "button": "left", "x": A, "y": B}',
            "p",
        ),
        ('{"x": 10, "y": 20, "type": "double_click"}', '{"x": A, "y": B, "type": "double_click"}', "p"),
        (
            '{"name": "click", "arguments": "{\\"x\\": 10, \\"y\\": 20}"}',
            '{"name": "click", "arguments": "{\\"x\\": A, \\"y\\": B}"}',
            "p",
        ),
        ('"{\\"coordinate\\": [10, 20]}"', '"{\\"coordinate\\": [A, B]}"', "p"),
        ('"{\\"point_2d\\": [10, 20]}"', '"{\\"point_2d\\": [A, B]}"', "p"),
        ('{"point": "<point>10, 20</point>"}', '{"point": "<point>A, B</point>"}', "p"),
    ],
)
def test_places_as_agents_and_keys_of_json_write_them(say: Say, answer: str, written: str, kinds: str) -> None:
    for letter, number in zip("ABCD", (10, 20, 30, 40), strict=True):
        written = re.sub(rf"\b{letter}\b", f"<|coord_{number}|>", written)
    example = say(row(f"<image>Do {answer}", answer), space="norm1000")
    assert texts(example) == [f"<image>Do {written}", written]
    assert [geometry.kind[0] for geometry in example.geometries] == [*kinds]
    flat = [value for geometry in example.geometries for value in geometry.values]
    assert flat == pytest.approx([9.99, 19.98, 29.97, 39.96][: len(flat)])
    assert texts(say(row("<image>?", written)))[1] == written  # and as coord tokens they stay


@pytest.mark.parametrize(
    ("answer", "written", "places"),
    [
        (
            "The dogs[0.1,0.2,0.3,0.4;0.5,0.6,0.7,0.8] run.",
            "The dogs[100,200,300,400;500,599,699,799] run.",
            [(99.9, 199.8, 299.7, 399.6), (499.5, 599.4, 699.3, 799.2)],
        ),
        (
            "[[.1, .2, .3, .4 ; .5, .6, .7, .8;0,0,1,1]]",
            "[[100, 200, 300, 400 ; 500, 599, 699, 799;0,0,999,999]]",
            [(99.9, 199.8, 299.7, 399.6), (499.5, 599.4, 699.3, 799.2), (0, 0, 999, 999)],
        ),
        ("(0.49,0.40)", "(490,400)", [(489.51, 399.6)]),
        (" [0.49, 0.40]\n", " [490, 400]\n", [(489.51, 399.6)]),
        ("[[0.49, 0.40]]", "[[490, 400]]", [(489.51, 399.6)]),
        ("<think>[1, 2]?</think>(0.49,0.40)", "<think>[1, 2]?</think>(490,400)", [(489.51, 399.6)]),
        ("<answer>[0.49, 0.40]</answer>", "<answer>[490, 400]</answer>", [(489.51, 399.6)]),
    ],
)
def test_boxes_between_semicolons_and_an_answer_that_is_a_pair(
    say: Say, answer: str, written: str, places: list[tuple[float, ...]]
) -> None:
    example = say(row("<image>Where?", answer), space="norm1")
    tokens_in = re.sub(r"<\|coord_(\d+)\|>", r"\1", texts(example)[1])
    assert (tokens_in, values(example)) == (written, places)
    assert texts(example)[1].count("<|coord_") == sum(map(len, places))
    assert {geometry.kind for geometry in example.geometries} == {"bbox_2d" if len(places[0]) == 4 else "point"}
    assert texts(say(row("<image>?", texts(example)[1])))[1] == texts(example)[1]  # and as coord tokens they stay


def test_thousandths_between_semicolons(say: Say) -> None:
    example = say(row("<image>Where?", "[[012,034,567,789;100,200,300,400]]"), space="norm1000")
    assert values(example) == [(11.988, 33.966, 566.433, 788.211), (99.9, 199.8, 299.7, 399.6)]


@pytest.mark.parametrize("question", ["<image>Is (3, 4) on it?", "<image>[3, 4]"])
@pytest.mark.parametrize(
    "answer", ["[0, 5)", "(0, 5]", "At (3, 4).", "(3, 4) and [5, 6]", "x = [3, 4]", "(3, 4, 5)", "3, 4"]
)
def test_other_pairs_stay_text(say: Say, question: str, answer: str) -> None:
    example = say(row(question, answer), space="pixel")
    assert (texts(example), example.geometries) == ([question, answer], ())


@pytest.mark.parametrize(
    "answer",
    [
        "In 2019, 2020, 2021 and 2022 (four years) sales rose from 10 to 20 [3].",
        "| year | a | b | c |\n|---|---|---|---|\n| 2019 | 10 | 20 | 30 |\n| 2020 | 11 | 21 | 31 |",
        "[10 20 30], [1 2 3 4 5], call (0800 12 34 56) or (555 123 4567), in [10 - 20] or [0; 1.5]",
        "x1 = 2, x2 = -3, so y1 = 4; f(x0=1, x1=2, x2=3, y=4) of x_1: 3, x_2: 4, x1: 1, x2: 2, x3: 3, y1: 4",
        '{"x": [1, 2, 3], "y": [4, 5, 6]}, {"bars": [12, 30, 7], "labels": ["a", "b", "c"]}',
        "versions 1.2.3.4 and v10.20; std::array<int, 4> a{1, 2, 3, 4}; vec<1><2>; <p>10 20 300 400</p>",
        "for (i = 0; i < 4; i++) { a[i] = b[i][2]; }  plt.xlim(0, 10)  range(1, 2)",
        "\\begin{bmatrix} 1 & 2 \\\\ 3 & 4 \\end{bmatrix}, \\frac{1}{2}, {1, 2, 3, 4}, P(A | B) = (1 + 2 - 3)/4",
        "<loc>Paris</loc> at 10:20, 30:40; <12> and <13>; location_12; [12] [30] [50] [60]; (1) (2) (3) (4)",
        '<line x1="10" y1="20" x2="30" y2="40"/>, left: 10px; top: 20px; width: 30px; height: 40px',
    ],
)
def test_prose_tables_charts_code_and_formulas_stay_text(say: Say, answer: str) -> None:
    example = say(row("<image>?", answer), space="norm1000")
    assert (texts(example)[1], example.geometries) == (answer, ())


def test_names_stand_in_the_order_of_coord_tokens(say: Say) -> None:
    coords = CoordFormat(tokens="<loc{:04}>", order="yx")
    example = say(row("<image>?", '{"ymin": 10, "xmin": 20, "ymax": 30, "xmax": 40}'), coords, space="bin")
    written = '{"ymin": <loc0010>, "xmin": <loc0020>, "ymax": <loc0030>, "xmax": <loc0040>}'
    assert (texts(example)[1], values(example)) == (written, [(20, 10, 40, 30)])


def test_other_numbers_by_name_stay_text(say: Say) -> None:
    answer = (
        '[{"x": 2019, "y": 35}], roots {"x1": 2, "x2": -3}, f(x=1, y=2), x = 3, y = 4, to click (10, 20), scroll(3), '
        "press [1, 2], <point>Step 1</point>, pyautogui.hotkey('ctrl', 'c'), {\"y\": 3, \"x1\": 4}, "
        'the point = (3, 4), {"metric": "Impressions", "x": 1, "y": 2}, {"name": "Blood pressure", "x": 1, "y": 2}, '
        "pyautogui.write('x=5'), print(1, 2, sep)"
    )
    example = say(row("<image>?", answer), space="norm1000")
    assert (texts(example)[1], example.geometries) == (answer, ())


def test_other_numbers_stay_text(say: Say) -> None:
    answer = "[1, 2, 3] of (4, 5) and [6, 7, 8, 9, 10]; 4 dogs"
    example = say(row("<image>Answer with [x1, y1, x2, y2]", answer), space="pixel")
    assert (texts(example)[1], example.geometries) == (answer, ())


def test_four_numbers_are_text_where_that_is_declared(say: Say) -> None:
    example = say(row("<image>?", "[1, 2, 3, 4]"), space="text")
    assert (texts(example)[1], example.geometries) == ("[1, 2, 3, 4]", ())


@pytest.mark.parametrize("space", [None, "pixel", "text"])
def test_coord_tokens_are_bins_and_stay(say: Say, space: str | None) -> None:
    answer = f'dog{tokens(1, 2, 3, 4)}{tokens(5, 6, 7, 8)} {{"bbox_2d": [{tokens(9, 9, 9, 9, between=", ")}]}}'
    example = say(row("<image>?", answer), space=space)
    assert texts(example)[1] == answer
    assert values(example) == [(1, 2, 3, 4), (5, 6, 7, 8), (9, 9, 9, 9)]


def test_a_polygon_of_the_compact_format(say: Say) -> None:
    example = say(row("<image>?", f"kite|{tokens(1, 2, 3, 4, 5, 0, 7, 8)}"))
    assert [geometry.kind for geometry in example.geometries] == ["poly"]


def test_models_that_write_y_first(say: Say) -> None:
    coords = CoordFormat(tokens="<loc{:04}>", order="yx")
    given = row("<image>?", "<bbox> [1, 2, 3, 4] <loc0001><loc0002><loc0003><loc0004>", bbox=[[64, 96, 320, 240]])
    example = say(given, coords, space="bin")
    first, second = "<loc0200><loc0100><loc0500><loc0500>", "[<loc0002>, <loc0001>, <loc0004>, <loc0003>]"
    assert texts(example)[1] == f"{first} {second} <loc0001><loc0002><loc0003><loc0004>"
    assert values(example) == [(99.9, 199.8, 499.5, 499.5), (1, 2, 3, 4), (2, 1, 4, 3)]


def test_another_quantisation(write: Any, context: BuildContext) -> None:
    path = write(row("<image>?", "<bbox> [640, 0, 640, 480]", bbox=[[64, 48, 640, 480]]))
    used = attrs.evolve(context, quantisation=quantisation("qwen_1000"))
    example = ChatJsonl.open(ChatJsonlConfig(train=path, space="pixel"), used).train()[0]
    assert values(example) == [(100, 100, 999, 999), (998, 0, 999, 999)]


def test_a_long_text_takes_no_longer_per_letter(say: Say) -> None:
    begun = time.perf_counter()
    hostile = "[" * 20000 + "[1, " * 20000 + "(1,2 " * 20000 + "<box>1 " * 5000 + " " * 20000 + '"a":' * 5000
    hostile += '"x1": 1, "y1": ' * 9000 + '"x1": ' * 9000 + "pyautogui.a(" * 9000 + "<point " * 9000 + "click" * 9000
    hostile += '"x": 1, ' * 9000 + "x=1," * 9000 + "<point>" * 9000 + "left_" * 9000 + "(1, 2, a" * 9000
    hostile += '"click", "a": 1, ' * 9000 + "pyautogui.a('" * 9000 + "<point>[[1, 2" * 9000 + '\\\\"' * 9000
    hostile += "[1,1,1,1;" * 9000 + "[1 1 1 " * 9000 + "[1" + " " * 9000 + "x1=1 y1=" * 9000 + "{<1><2>" * 9000
    hostile += "x1 = 1, " * 9000 + "x1:" * 9000
    example = say(row("<image>?", hostile), space="norm1000")
    assert (example.geometries, time.perf_counter() - begun < 20) == ((), True)


# --- rows as people have them ----------------------------------------------------------------------------------------


def test_llava(say: Say) -> None:
    given = {
        "id": "1",
        "image": "photo.png",
        "conversations": [
            {"from": "human", "value": "Where is the dog?\n<image>"},
            {"from": "gpt", "value": "[0.1, 0.2, 0.3, 0.4]"},
        ],
    }
    example = say(given, space="norm1")
    assert [message["role"] for message in example.messages] == ["user", "assistant"]
    assert texts(example)[0] == "Where is the dog?\n<image>"
    assert values(example) == [(99.9, 199.8, 299.7, 399.6)]


def test_messages_in_parts(say: Say) -> None:
    parts = [{"type": "image", "image": "photo.png"}, {"type": "text", "text": "What is it?"}]
    given = {
        "messages": [
            {"role": "user", "content": parts},
            {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
        ]
    }
    assert texts(say(given)) == ["<image>What is it?", "A dog."]


@pytest.mark.parametrize("images", ["photo.png", ["photo.png"], [{"path": "photo.png", "bytes": None}]])
def test_spellings_of_images(say: Say, images: Any) -> None:
    assert len(say(row("<image>?", "A dog.") | {"images": images}).images) == 1
    assert len(say(row("<image>?", "A dog.") | {"images": [], "image": images}).images) == 1


def test_system_messages(say: Say) -> None:
    given = row("<image>?", "A dog.")
    own = {**given, "messages": [{"role": "system", "content": "Be kind."}, *given["messages"]]}
    assert texts(say(given, system="Be brief."))[0] == "Be brief."
    assert texts(say(own, system="Be brief."))[0] == "Be kind."
    assert texts(say({**given, "system": "Be wise."}))[0] == "Be wise."
    assert texts(say({**given, "system": ""}, system="Be brief."))[0] == "Be brief."
    assert texts(say({**given, "system": ""}))[0] == "<image>?"
    assert texts(say(given))[0] == "<image>?"


def test_boxes_are_those_of_the_upright_photograph(say: Say, write: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (100, 50), "white").save("turned.jpg", exif=exif)
    example = say(row("<image>?", "<bbox>", images=["turned.jpg"], bbox=[[5, 10, 50, 100]]))
    assert (example.image_size, values(example)) == ((50, 100), [(99.9, 99.9, 999, 999)])


def test_rows_of_bad_images_are_left_out_where_that_is_asked(write: Any, context: BuildContext) -> None:
    good, bad = row("<image>?", "A dog."), row("<image>?", "A cat.", images=["gone.png"])
    source = ChatJsonl.open(ChatJsonlConfig(train=write(bad, good, bad), on_bad_image="skip"), context).train()
    assert (len(source), source[0].source) == (1, "train.jsonl:2")


def test_the_next_start_finds_the_check_in_the_cache(
    write: Any, context: BuildContext, at_rest: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ChatJsonlConfig(train=write(row("<image>?", "[1, 2, 3, 4]")), space="pixel")
    ChatJsonl.open(config, context)
    monkeypatch.setattr("coordcore_coord_tokens.chat.builder.ChatJudge.judge", None)
    assert len(ChatJsonl.open(config, context).train()) == 1
    with pytest.raises(TypeError):  # another space may make a row wrong
        ChatJsonl.open(attrs.evolve(config, space="norm1"), context)


def test_a_thought_is_trained_as_it_is_written(say: Say) -> None:
    answer = f"<think>left, {tokens(1, 2, 3, 4)}</think>\nA dog."
    assert texts(say(row("<image>?", answer)))[1] == answer


@pytest.mark.parametrize(
    "said",
    [
        "swipe(320, 240, 64, 48)",
        "drag([320, 240, 64, 48])",
        '{"action": "swipe", "x1": 320, "y1": 240, "x2": 64, "y2": 48}',
        '{"action": "left_click_drag", "duration": 1, "x1": 320, "y1": 240, "x2": 64, "y2": 48}',
    ],
)
def test_a_drag_is_two_points_in_any_order(say: Say, said: str) -> None:
    example = say(row("<image>?", said), space="pixel")
    assert [geometry.kind for geometry in example.geometries] == ["point"] * 2
    assert values(example) == [(499.5, 499.5), (99.9, 99.9)]
    bare = re.sub(r"<\|coord_(\d+)\|>", r"\1", texts(example)[1])
    assert bare == said.replace("320", "500").replace("240", "500").replace("64", "100").replace("48", "100")


def test_a_call_of_an_agent_is_trained_as_it_is_written(say: Say) -> None:
    call = '<tool_call>\n{"arguments": {"action": "left_click", "coordinate": [64, 48]}}\n</tool_call>'
    example = say(row("<image>Within <tool_call></tool_call>: open it", call), space="pixel")
    assert texts(example)[1] == call.replace("[64, 48]", f"[{tokens(100, 100, between=', ')}]")
    assert [geometry.kind for geometry in example.geometries] == ["point"]


def test_json_dumps_of_rows_are_read(say: Say) -> None:
    assert texts(say(json.loads(json.dumps(row("<image>Où?", "Là.")))))[1] == "Là."
