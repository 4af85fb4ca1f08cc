"""An example of boxes: the text, the geometries and the size from one place."""

from __future__ import annotations

import pytest

from coordcore import Example, Geometry, InputError
from coordcore.quantisation import Quantisation, quantisation

OBJECTS = [("red ring", (0.0, 10.0, 50.0, 60.4)), ("Käfer", (99.0, 0.0, 100.0, 200.0))]


def boxes(*objects: tuple[str, tuple[float, float, float, float]], **options: object) -> Example:
    return Example.boxes(objects, image="a.png", image_size=(100, 200), prompt="Where?", **options)


def test_text_and_geometries_say_the_same() -> None:
    assert boxes(*OBJECTS, source="a.jsonl:3") == Example(
        messages=(
            {"role": "user", "content": "<image>Where?"},
            {
                "role": "assistant",
                "content": '{"objects": [{"desc": "red ring", '
                '"bbox_2d": [<|coord_0|>, <|coord_50|>, <|coord_500|>, <|coord_302|>]}, '
                '{"desc": "Käfer", "bbox_2d": [<|coord_989|>, <|coord_0|>, <|coord_999|>, <|coord_999|>]}]}',
            },
        ),
        images=("a.png",),
        geometries=(
            Geometry(kind="bbox_2d", values=(0.0, pytest.approx(49.95), 499.5, pytest.approx(301.698))),
            Geometry(kind="bbox_2d", values=(pytest.approx(989.01), 0.0, 999.0, 999.0)),
        ),
        source="a.jsonl:3",
        image_size=(100, 200),
    )


@pytest.mark.parametrize("convention", [quantisation("nearest_999"), quantisation("qwen_1000")])
def test_the_convention_is_that_of_the_run(convention: Quantisation) -> None:
    [(_, box)] = objects = OBJECTS[:1]
    bins = convention.encode(box, (100, 200, 100, 200)).tolist()
    written = ", ".join(f"<|coord_{k}|>" for k in bins)
    assert f"[{written}]" in boxes(*objects, quantisation=convention).messages[1]["content"]


def test_plain_numbers_have_no_geometry() -> None:
    example = boxes(OBJECTS[0], coord_tokens=False)
    assert example.messages[1]["content"] == '{"objects": [{"desc": "red ring", "bbox_2d": [0, 50, 500, 302]}]}'
    assert example.geometries == ()


def test_an_image_without_objects() -> None:
    assert boxes().messages[1]["content"] == '{"objects": []}'


def test_a_collapsed_box_is_widened_in_the_text_and_the_geometry() -> None:
    example = boxes(("dot", (50.0, 50.0, 50.0, 50.0)))
    assert "[<|coord_500|>, <|coord_250|>, <|coord_501|>, <|coord_251|>]" in example.messages[1]["content"]
    assert example.geometries[0].values[2:] == (501.0, 251.0)


def test_a_box_outside_the_image_names_the_example() -> None:
    with pytest.raises(InputError, match=r"^a\.jsonl:3: box 0 .* lies outside the image of 100 x 200"):
        boxes(("red ring", (0.0, 0.0, 101.0, 20.0)), source="a.jsonl:3")


def test_messages_call_it_by_its_source() -> None:
    assert [Example(messages=(), source=source).where for source in ("a.jsonl:3", "")] == [
        "a.jsonl:3",
        "an example without a source",
    ]
