"""A second format is one more description: writer and parser follow from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordcore import InputError
from coordcore.coords import ints_to_tokens
from coordcore.records.answers import COORDJSON, Format, Located, answer_text, geometry_text, parse_answer
from coordcore.records.answers.format import Coords, Label

LINES = Format(
    name="lines", label=(Label(without="<"),), places={"bbox_2d": (Coords("bbox_2d", between=""),)}, between="\n"
)
"""One object a line: its description and four coordinates."""

KINDS = Format(
    name="kinds",
    opening="found: ",
    label=(Label(without="<;(@"),),
    places={"bbox_2d": ("@", Coords("bbox_2d", between=" ")), "poly": ("(", Coords("poly", between=" "), ")")},
    between="; ",
    closing=".",
)

BIN = st.integers(0, 999)
DESC = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"], exclude_characters="<;(@"), min_size=1)
BOX = st.builds(
    lambda desc, x, y: Located(desc=desc, kind="bbox_2d", bins=(min(x), min(y), max(x), max(y))),
    DESC,
    st.tuples(BIN, BIN),
    st.tuples(BIN, BIN),
)
POLY = st.builds(
    lambda desc, points: Located(desc=desc, kind="poly", bins=sum(points, ())),
    DESC,
    st.lists(st.tuples(BIN, BIN), min_size=3, max_size=5),
)


def box(desc: str, *bins: int) -> Located:
    return Located(desc=desc, kind="bbox_2d", bins=bins)


def test_its_text() -> None:
    text = answer_text([box("red ring", 1, 2, 3, 4), box("a", 0, 0, 9, 9)], form=LINES)
    one, two = "".join(ints_to_tokens([1, 2, 3, 4])), "".join(ints_to_tokens([0, 0, 9, 9]))
    assert text == f"red ring{one}\na{two}"


def test_numbers_instead_of_tokens() -> None:
    assert answer_text([box("ring", 1, 2, 3, 4)], form=KINDS, coord_tokens=False) == "found: ring@1 2 3 4."


@given(objects=st.lists(BOX, max_size=4))
def test_what_is_written_line_by_line_is_read(objects: list[Located]) -> None:
    read = parse_answer(answer_text(objects, form=LINES), LINES)
    assert ([(one.desc, one.bins) for one in read.objects], read.unread) == ([(o.desc, o.bins) for o in objects], ())


@given(objects=st.lists(BOX | POLY, max_size=4), geometry_first=st.booleans())
def test_kinds_and_orders_are_read(objects: list[Located], geometry_first: bool) -> None:
    read = parse_answer(answer_text(objects, form=KINDS, geometry_first=geometry_first), KINDS)
    found = [(one.desc, one.kind, one.bins) for one in read.objects]
    assert (found, read.unread) == ([(o.desc, o.kind, o.bins) for o in objects], ())


def test_spans_are_places_in_the_text() -> None:
    text = answer_text([box("a", 0, 0, 9, 9), box("épée", 1, 2, 3, 4)], form=LINES)
    _, second = parse_answer(text, LINES).objects
    assert (text[slice(*second.desc_span)], [text[slice(*span)] for span in second.coord_spans]) == (
        "épée",
        ints_to_tokens([1, 2, 3, 4]),
    )


@pytest.mark.parametrize(
    ("text", "at", "reason"),
    [
        ("a<|coord_1|>", "objects[0]", 'not of the format lines: "a<|coord_1|>"'),
        ("a" + "<|coord_1|>" * 5, "objects[0]", "not of the format lines: "),
        ("<|coord_1|>" * 4, "objects[0]", "not of the format lines: "),
        ("a<|coord_*|>", "objects[0]", "not of the format lines: "),
        ("a" + "".join(ints_to_tokens([5, 0, 1, 9])), "objects[0].bbox_2d", "x2 = 1 < x1 = 5"),
    ],
)
def test_what_is_right_survives_what_is_wrong(text: str, at: str, reason: str) -> None:
    right = answer_text([box("b", 1, 2, 3, 4)], form=LINES)
    read = parse_answer(f"{text}\n{right}", LINES)
    assert [one.desc for one in read.objects] == ["b"]
    assert [(one.at, one.reason[: len(reason)]) for one in read.unread] == [(at, reason)]


@pytest.mark.parametrize(
    ("text", "at", "reason"),
    [
        ("found: ring@<|coord_1|>", "objects", "cut off: the list does not end"),
        ("I see a ring.", "", 'does not begin with "found: "'),
    ],
)
def test_openings_and_closings_are_asked_for(text: str, at: str, reason: str) -> None:
    assert (at, reason) in [(one.at, one.reason) for one in parse_answer(text, KINDS).unread]


@pytest.mark.parametrize("desc", ["a < b", "two\nlines"])
def test_a_description_it_cannot_hold_is_refused(desc: str) -> None:
    with pytest.raises(InputError, match="the format lines cannot hold"):
        answer_text([box(desc, 1, 2, 3, 4)], form=LINES)


def test_a_layout_has_its_choices_made() -> None:
    place = Coords("poly", between=", ")
    assert COORDJSON.layout("poly") == ('{"desc": ', Label(), ', "poly": [', place, "]}")
    assert COORDJSON.layout("poly", geometry_first=True) == ('{"poly": [', place, '], "desc": ', Label(), "}")


def test_the_text_of_a_geometry_alone() -> None:
    assert geometry_text("bbox_2d", (1, 2, 3, 4)) == f'"bbox_2d": [{", ".join(ints_to_tokens([1, 2, 3, 4]))}]'
