"""Points, quads and keypoints in records and answers."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest

from coordcore.coords import ints_to_tokens
from coordcore.records.annotations import Annotation, Rules, read_annotations
from coordcore.records.answers import Located, answer_text, parse_answer
from coordcore.records.geometry import KINDS, clockwise
from coordcore.records.record import LeftOut, RecordError, parse_record

QUAD = (20, 10, 60, 30, 50, 50, 10, 30)
"""Clockwise, from the corner that is nearest to the top left."""


def read(space: str, left_out: LeftOut | None = None, width: int = 100, **item: Any) -> list[Annotation]:
    objects = [{"desc": "ship", **item}]
    line = json.dumps({"images": ["a.png"], "width": width, "height": 100, "objects": objects}).encode()
    return read_annotations(parse_record(line, left_out), Rules(space=space), left_out)


def corners(quad: tuple[float, ...]) -> list[tuple[float, float]]:
    return list(zip(quad[::2], quad[1::2], strict=True))


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("step", [1, -1])
def test_a_quad_is_one_whatever_corner_it_begins_with(start: int, step: int) -> None:
    places = [(start + step * place) % 4 for place in range(4)]
    written = [value for place in places for value in corners(QUAD)[place]]

    assert read("pixel", quad=written)[0].values == QUAD


def test_of_two_corners_that_are_as_near_the_upper_is_first() -> None:
    assert clockwise((0, 5, 5, 10, 10, 5, 5, 0)) == (5, 0, 10, 5, 5, 10, 0, 5)


def test_near_is_said_in_pixels_whatever_the_space() -> None:
    # 1000 x 100 pixels: the first of these in bins is the upper right corner, but not in pixels.
    quad = [0, 500, 40, 0, 999, 500, 959, 999]

    assert read("pixel", width=1000, quad=[0, 50, 40, 0, 999, 50, 959, 99])[0].values[:2] == (40, 0)
    assert read("bin", width=1000, quad=quad)[0].values[:2] == (40, 0)
    assert read("bin", width=10, quad=[0, 300, 500, 0, 999, 500, 500, 999])[0].values[:2] == (500, 0)


def test_the_first_corner_is_that_of_the_quad_as_it_is_cut() -> None:
    # -40, 60 is nearest as it is written; at the edge, 0, 60, it is farther than 10, 10.
    quad = [-40, 60, 10, 10, 60, 60, 10, 99]
    image = {"images": ["a"], "width": 100, "height": 100, "objects": [{"desc": "a", "quad": quad}]}
    [found] = read_annotations(parse_record(json.dumps(image).encode()), Rules(space="pixel", outside="clip"))
    assert found.values == (10, 10, 60, 60, 10, 99, -40, 60)
    image["objects"] = [{"desc": "a", "quad": [value / 100 for value in quad]}]
    [found] = read_annotations(parse_record(json.dumps(image).encode()), Rules(space="norm1", outside="clip"))
    assert found.values[:2] == (0.1, 0.1)


def test_corners_in_no_order_are_refused_and_nothing_else_is() -> None:
    square = ((0, 0), (9, 0), (9, 9), (0, 9))
    found = [clockwise([value for corner in order for value in corner]) for order in permutations(square)]

    assert found.count((0, 0, 9, 0, 9, 9, 0, 9)) == 8
    assert found.count(None) == 16


def test_a_lenient_reader_leaves_out_a_quad_that_crosses() -> None:
    left_out = LeftOut()

    assert read("pixel", left_out, quad=[0, 0, 9, 0, 0, 9, 9, 9]) == []
    assert [error.reason for error in left_out.objects] == [
        "objects[...].quad: its sides cross; write the corners in order around it: x1, y1 to x4, y4"
    ]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"point": [1]}, "objects[0].point: needs 2 numbers (x, y), got 1"),
        (
            {"point": [1, 2], "bbox_2d": [1, 2, 3, 4]},
            "objects[0]: needs exactly one geometry, bbox_2d, poly, point or quad",
        ),
        ({"point": [1, 200]}, "objects[0].point: y = 200 lies outside 0..100"),
        ({"quad": [1, 2, 3, 4, 5, 6]}, "objects[0].quad: needs 8 numbers (x1, y1 to x4, y4), got 6"),
        ({"quad": [*QUAD], "poly_points": 4}, "objects[0].poly_points: belongs to a poly; remove it from this quad"),
        ({"quad": [*QUAD[:7], 101]}, "objects[0].quad: y = 101 lies outside 0..100"),
        ({"point": [1, 2], "keypoints": []}, "objects[0].keypoints: needs x, y and visibility of each, got 0 numbers"),
        ({"point": [1, 2], "keypoints": [1, 2, 5]}, "objects[0].keypoints: visibility is 0, 1 or 2, got 5; write 0"),
        ({"point": [1, 2], "keypoints": [1, 2, "2"]}, "objects[0].keypoints: visibility is 0, 1 or 2, got '2'"),
        ({"point": [1, 2], "keypoints": [1, 102, 1]}, "objects[0].keypoints: y = 102 lies outside 0..100"),
        ({"keypoints": [1, 2, 2]}, "objects[0]: needs exactly one geometry"),
        ({"pont": [1, 2]}, "objects[0].pont: unknown key; did you mean 'point'?"),
    ],
)
def test_what_is_wrong_with_an_object(item: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError) as caught:
        read("pixel", **item)

    assert message in str(caught.value)


def test_keypoints_are_carried_in_any_space() -> None:
    assert read("pixel", point=[1, 2], keypoints=[0, 0, 0, 12.5, 99, 2])[0].keypoints == (0, 0, 0, 12.5, 99, 2)
    tokens = [*ints_to_tokens([5, 999]), 1]
    assert read("bin", point=[1, 2], keypoints=tokens)[0].keypoints == (5, 999, 1)


NUMBERS = {"bbox_2d": (1, 2, 3, 4), "poly": (0, 0, 9, 0, 9, 9), "point": (12, 999), "quad": (2, 1, 6, 3, 5, 5, 1, 3)}


@pytest.mark.parametrize("kind", KINDS)
def test_coordjson_says_every_kind(kind: str) -> None:
    text = answer_text([Located(desc="ship", kind=kind, bins=NUMBERS[kind])])
    answer = parse_answer(text)

    assert text == f'{{"objects": [{{"desc": "ship", "{kind}": [{", ".join(ints_to_tokens(NUMBERS[kind]))}]}}]}}'
    assert [(item.kind, item.bins, answer.unread) for item in answer.objects] == [(kind, NUMBERS[kind], ())]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"point_2d": [5, 7], "label": "a"}]', [("point", (5, 7))]),
        ('[{"point_2d": [[5, 7], [1, 2]], "label": "a"}]', [("point", (5, 7)), ("point", (1, 2))]),
        ('[{"quad": [[1, 2], [3, 2], [3, 4], [1, 4]], "label": "a"}]', [("quad", (1, 2, 3, 2, 3, 4, 1, 4))]),
        ('[{"point_2d": [5, 7, 9], "label": "a"}]', []),
        ('[{"quad": [1, 2, 3, 4], "label": "a"}]', []),
        ('[{"point": [5, 7], "label": "a"}]', []),  # Gemini writes y first
    ],
)
def test_numbers_of_other_models(text: str, found: list[Any]) -> None:
    answer = parse_answer(text, numbers=True)

    assert [(item.kind, item.numbers) for item in answer.objects] == found
    assert bool(answer.unread) is not bool(found)
