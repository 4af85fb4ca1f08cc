"""`annotate_coord_tokens`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordcore import InputError
from coordcore.coords import ints_to_tokens
from coordcore_coord_tokens import annotate_coord_tokens


def with_box(*values: Any) -> dict[str, Any]:
    return {"objects": [{"desc": "red circle", "bbox_2d": list(values)}]}


def test_numbers_gain_tokens_and_fractions() -> None:
    assert annotate_coord_tokens(with_box(0, 40, 333, 999)) == {
        "objects": [
            {
                "desc": "red circle",
                "bbox_2d": [0, 40, 333, 999],
                "_coord_tokens": {"bbox_2d": ["<|coord_0|>", "<|coord_40|>", "<|coord_333|>", "<|coord_999|>"]},
                "_coord_token_ints": {"bbox_2d": [0, 40, 333, 999]},
                "_coord_token_norm": {"bbox_2d": [0.0, 40 / 999, 333 / 999, 1.0]},
            }
        ],
        "_coord_tokens_enabled": True,
    }


def test_tokens_gain_numbers() -> None:
    tokens = ["<|coord_1|>", "<|coord_2|>", "<|coord_3|>", "<|coord_4|>"]
    annotated = annotate_coord_tokens(with_box(*tokens))
    assert annotated["objects"][0]["_coord_token_ints"] == {"bbox_2d": [1, 2, 3, 4]}


def test_polygons() -> None:
    record = {"objects": [{"desc": "roof", "poly": [0, 0, 9, 0, 9, 9], "poly_points": 3}]}
    assert annotate_coord_tokens(record)["objects"][0]["_coord_token_ints"] == {"poly": [0, 0, 9, 0, 9, 9]}


def test_other_keys_are_kept() -> None:
    record = {**with_box(1, 2, 3, 4), "images": ["a.jpg"], "metadata": {"split": "train"}}
    annotated = annotate_coord_tokens(record)
    assert {key: annotated[key] for key in ("images", "metadata")} == {
        key: record[key] for key in ("images", "metadata")
    }


@given(st.lists(st.tuples(*[st.integers(0, 499)] * 2, *[st.integers(500, 999)] * 2), max_size=4), st.booleans())
def test_the_record_is_not_changed_and_a_second_time_changes_nothing(boxes: list[Any], tokens: bool) -> None:
    write = ints_to_tokens if tokens else list
    record = {"objects": [{"desc": "thing", "bbox_2d": write(box)} for box in boxes]}
    before = deepcopy(record)
    once = annotate_coord_tokens(record)
    assert (record, annotate_coord_tokens(once)) == (before, once)


def test_keys_of_other_names_are_kept() -> None:
    record = with_box(1, 2, 3, 4) | {"source": "x"}
    record["objects"][0] |= {"score": 0.5, "attributes": {"colour": "red"}}
    annotated = annotate_coord_tokens(record)
    assert annotated["source"] == "x"
    assert {key: annotated["objects"][0][key] for key in ("score", "attributes")} == {
        "score": 0.5,
        "attributes": {"colour": "red"},
    }


def test_whole_numbers_may_be_floats() -> None:
    annotated = annotate_coord_tokens(with_box(10.0, 2.0, 30.0, 4.0))
    assert annotated["objects"][0]["_coord_token_ints"] == {"bbox_2d": [10, 2, 30, 4]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "objects: missing"),
        ({"objects": 3}, "objects: expected array, got int"),
        (with_box(1, 2, 3), "objects[0].bbox_2d: needs 4 numbers (x1, y1, x2, y2), got 3"),
        (with_box(1, 2, 3, True), "objects[0].bbox_2d[3]: expected int | float | str, got bool"),
        (
            with_box(1, 2, 3, "<|coord_4|>"),
            "objects[0].bbox_2d: mixes numbers and coord tokens; write one form throughout",
        ),
        (
            with_box(1, 2, 1016, 4),
            "objects[0].bbox_2d: 1016 > 999: this looks like absolute pixels; convert to bins 0..999 first "
            '(`space = "pixel"` converts on reading)',
        ),
    ],
)
def test_what_the_format_does_not_allow(record: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        annotate_coord_tokens(record)
    assert str(caught.value) == message
