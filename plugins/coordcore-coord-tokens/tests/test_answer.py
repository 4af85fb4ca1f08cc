"""The answer text."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordcore.records.answers import reserved
from coordcore_coord_tokens import Located, answer_text

BIN = st.integers(0, 999)
OBJECT = st.one_of(
    st.builds(
        lambda desc, bins: Located(desc=desc, kind="bbox_2d", bins=bins, values=bins),
        st.text(
            min_size=1,
        ),
        st.tuples(*[BIN] * 4),
    ),
    st.builds(
        lambda desc, points: Located(desc=desc, kind="poly", bins=sum(points, ()), values=sum(points, ())),
        st.text(
            min_size=1,
        ),
        st.lists(st.tuples(BIN, BIN), min_size=3, max_size=8),
    ),
)

CIRCLE = Located(desc="red circle", kind="bbox_2d", bins=(12, 40, 300, 412), values=(12.0, 40.0, 300.0, 412.0))


def test_coord_tokens() -> None:
    assert answer_text([CIRCLE]) == (
        '{"objects": [{"desc": "red circle", "bbox_2d": [<|coord_12|>, <|coord_40|>, <|coord_300|>, <|coord_412|>]}]}'
    )


def test_numbers() -> None:
    expected = '{"objects": [{"desc": "red circle", "bbox_2d": [12, 40, 300, 412]}]}'
    assert answer_text([CIRCLE], coord_tokens=False) == expected


def test_geometry_first() -> None:
    expected = '{"objects": [{"bbox_2d": [12, 40, 300, 412], "desc": "red circle"}]}'
    assert answer_text([CIRCLE], coord_tokens=False, geometry_first=True) == expected


def test_no_objects() -> None:
    assert answer_text([]) == '{"objects": []}'


def test_a_description_is_escaped_as_json_and_keeps_its_letters() -> None:
    item = Located(desc='a "blue" häuschen\n', kind="bbox_2d", bins=(0, 0, 1, 1), values=(0, 0, 1, 1))
    expected = r'{"objects": [{"desc": "a \"blue\" häuschen\n", "bbox_2d": [0, 0, 1, 1]}]}'
    assert answer_text([item], coord_tokens=False) == expected


@given(objects=st.lists(OBJECT, max_size=5), geometry_first=st.booleans())
def test_an_answer_reads_back(objects: list[Located], geometry_first: bool) -> None:
    text = answer_text(objects, coord_tokens=False, geometry_first=geometry_first)
    assert json.loads(text) == {"objects": [{"desc": item.desc, item.kind: list(item.bins)} for item in objects]}


@given(objects=st.lists(OBJECT, max_size=5), geometry_first=st.booleans())
def test_coord_tokens_stand_where_the_numbers_stand(objects: list[Located], geometry_first: bool) -> None:
    plain = [Located(desc="x", kind=item.kind, bins=item.bins, values=item.values) for item in objects]
    tokens = answer_text(plain, geometry_first=geometry_first)
    numbers = answer_text(plain, coord_tokens=False, geometry_first=geometry_first)
    assert re.sub(r"<\|coord_(\d+)\|>", r"\1", tokens) == numbers


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a <b> c | d", None),
        ("ends <|im_end|> here", "<|im_end|>"),
        ("at <|coord_5|>", "<|coord_5|>"),
        ("an <image> here", "<image>"),
        ("</think>", "</think>"),
    ],
)
def test_reserved(text: str, found: str | None) -> None:
    assert reserved(text) == found
