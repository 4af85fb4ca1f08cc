"""Strict and lenient reading of records: the one refuses just what the other leaves out, with the same path."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordcore.records.annotations import Rules, read_annotations
from coordcore.records.record import LeftOut, RecordError, parse_record

BOX = {"desc": "red circle", "bbox_2d": [12, 40, 300, 412]}
BINS = Rules(space="bin")

VALUES = st.sampled_from(
    [None, True, 0, -1, 5, 10.0, 12.5, 1e300, 2**60, "", "a", "<|coord_5|>", [], [1], {}, {"a": 1}]
)
KEYS = st.sampled_from(["desc", "bbox_2d", "poly", "poly_points", "line", "score", "_coord_tokens"])
OBJECTS = st.just(BOX) | st.dictionaries(KEYS, VALUES | st.just([12, 40, 300, 412]), max_size=3).map(lambda d: BOX | d)
RECORD_KEYS = st.sampled_from(["images", "width", "height", "summary", "metadata", "colour", "objects"])
RECORDS = st.builds(
    lambda objects, crowd, keys: {
        "images": ["a.png"],
        "width": 640,
        "height": 480,
        "objects": objects,
        "metadata": {"crowd": crowd},
        **keys,
    },
    st.lists(OBJECTS, max_size=3),
    st.lists(OBJECTS, max_size=1),
    st.just({}) | st.dictionaries(RECORD_KEYS, VALUES, max_size=1),
)


def line(**keys: Any) -> bytes:
    return json.dumps({"images": ["a.png"], "width": 640, "height": 480, "objects": [BOX], **keys}).encode()


@given(record=RECORDS)
def test_lenient_reading_leaves_out_what_strict_reading_refuses(record: dict[str, Any]) -> None:
    data = json.dumps(record).encode()
    left_out, refused, lost = LeftOut(), "", ""
    try:
        strict = read_annotations(parse_record(data), BINS)
    except RecordError as error:
        refused = str(error)
    try:
        lenient = read_annotations(parse_record(data, left_out), BINS, left_out)
    except RecordError as error:
        lost = str(error)
    told = [str(error) for error in (*left_out.objects, *left_out.parts)] + ([lost] if lost else [])
    if not refused:
        assert (told, lenient) == ([], strict)
    else:  # of two mistakes, one in an object and one that loses the record, each reading tells another
        assert refused in told or lost


def test_an_object_that_is_left_out_keeps_its_number() -> None:
    left_out = LeftOut()
    record = parse_record(line(objects=[BOX, {"desc": 5}, {"desc": "a", "bbox_2d": [1]}, BOX]), left_out)
    found = read_annotations(record, BINS, left_out)
    assert [(item.path, item.index) for item in found] == [("objects[0].bbox_2d", 0), ("objects[3].bbox_2d", 3)]
    assert [error.path for error in left_out.objects] == ["objects[1].desc", "objects[2].bbox_2d"]


def test_a_key_that_records_do_not_have_leaves_the_rest() -> None:
    left_out = LeftOut()
    record = parse_record(line(colour="red", objects=[{**BOX, "score": 1}]), left_out)
    assert [item.desc for item in read_annotations(record, BINS, left_out)] == ["red circle"]
    assert ([error.path for error in left_out.parts], left_out.objects) == (["colour", "objects[0].score"], [])


@pytest.mark.parametrize(
    ("box", "message", "reason"),
    [
        ([0, 0, 1016, 9], "objects[0].bbox_2d: 1016 > 999: this looks", "objects[...].bbox_2d: > 999: this looks"),
        ([9, 0, 5, 9], "objects[0].bbox_2d: x2 = 5 < x1 = 9: corners", "objects[...].bbox_2d: corners are"),
        ([0, 0, None, 9], "objects[0].bbox_2d[2]: expected", "objects[...].bbox_2d[...]: expected"),
    ],
)
def test_equal_mistakes_have_one_reason(box: list[Any], message: str, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_annotations(parse_record(line(objects=[{"desc": "a", "bbox_2d": box}])), BINS)
    assert (str(caught.value)[: len(message)], caught.value.reason[: len(reason)]) == (message, reason)


def test_bins_are_whole_numbers_however_they_are_written() -> None:
    record = parse_record(
        b'{"images": ["a"], "width": 9, "height": 9, "objects": [{"desc": "a", "bbox_2d": [-0.0, 1, 10.0, 9]}]}'
    )
    (item,) = read_annotations(record, BINS)
    assert [(value, type(value)) for value in item.values] == [(0, int), (1, int), (10, int), (9, int)]
