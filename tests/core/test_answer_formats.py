"""A second format is one more description: writer and parser follow from it."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordcore import InputError
from coordcore.coords import ints_to_tokens
from coordcore.records.answers import COORDJSON, Format, Located, answer_text, geometry_text, parse_answer
from coordcore.records.answers.format import Coords, Label, Places

LINES = Format(
    name="lines",
    label=(Label(without="<"),),
    places={"bbox_2d": (Coords("bbox_2d", between=""),)},
    between="\n",
    nothing="none",
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

GROUPED = Format(
    name="grouped",
    label=(Label(without="<|"),),
    places={"bbox_2d": (Coords("bbox_2d", between=""),), "poly": ("|", Coords("poly", between=""))},
    between="\n",
    again="",
    nothing="none",
)

TAGS = Format(
    name="tags",
    before="<|object_ref_start|>",
    label=(Label(without="<"),),
    amid="<|object_ref_end|><|box_start|>",
    places={"bbox_2d": (Coords("bbox_2d", between=""),)},
    after="<|box_end|>",
    between=", ",
    again=",",
    nothing="none",
    geometry_first=False,
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
    first, two = "".join(ints_to_tokens([1, 2, 3, 4])), "".join(ints_to_tokens([0, 0, 9, 9]))
    assert text == f"red ring{first}\na{two}"


def test_numbers_instead_of_tokens() -> None:
    assert answer_text([box("ring", 1, 2, 3, 4)], form=KINDS, coord_tokens=False) == "found: ring@1 2 3 4."


@given(objects=st.lists(BOX, max_size=4))
def test_what_is_written_line_by_line_is_read(objects: list[Located]) -> None:
    read = parse_answer(answer_text(objects, form=LINES), LINES)
    assert ([(item.desc, item.bins) for item in read.objects], read.unread) == ([(o.desc, o.bins) for o in objects], ())


@given(objects=st.lists(BOX | POLY, max_size=4), geometry_first=st.booleans())
def test_kinds_and_orders_are_read(objects: list[Located], geometry_first: bool) -> None:
    read = parse_answer(answer_text(objects, form=KINDS, geometry_first=geometry_first), KINDS)
    found = [(item.desc, item.kind, item.bins) for item in read.objects]
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
    assert [item.desc for item in read.objects] == ["b"]
    assert [(item.at, item.reason[: len(reason)]) for item in read.unread] == [(at, reason)]


@pytest.mark.parametrize(
    ("text", "at", "reason"),
    [
        ("found: ring@<|coord_1|>", "objects", "cut off: the list does not end"),
        ("I see a ring.", "", 'does not begin with "found: "'),
    ],
)
def test_openings_and_closings_are_asked_for(text: str, at: str, reason: str) -> None:
    assert (at, reason) in [(item.at, item.reason) for item in parse_answer(text, KINDS).unread]


@pytest.mark.parametrize("desc", ["a < b", "two\nlines"])
def test_a_description_it_cannot_hold_is_refused(desc: str) -> None:
    with pytest.raises(InputError, match="the format lines cannot hold"):
        answer_text([box(desc, 1, 2, 3, 4)], form=LINES)


def test_a_layout_has_its_choices_made() -> None:
    place = Places(('"poly": [', Coords("poly", between=", "), "]"), again="")
    assert COORDJSON.layout("poly") == ('{"desc": ', Label(), ", ", place, "}")
    assert COORDJSON.layout("poly", geometry_first=True) == ("{", place, ', "desc": ', Label(), "}")


def test_the_text_of_a_geometry_alone() -> None:
    assert geometry_text("bbox_2d", (1, 2, 3, 4)) == f'"bbox_2d": [{", ".join(ints_to_tokens([1, 2, 3, 4]))}]'


# --- several places under one label -----------------------------------------------------------------------------------


def test_a_label_is_written_once_for_all_its_places() -> None:
    a, b, c = box("ring", 1, 2, 3, 4), box("cross", 0, 0, 9, 9), box("ring", 5, 6, 7, 8)
    first, two, three = ("".join(ints_to_tokens(item.bins)) for item in (a, b, c))
    assert answer_text([a, b, c], form=GROUPED) == f"ring{first}{three}\ncross{two}"
    assert answer_text([a, b, c], form=TAGS) == (
        f"<|object_ref_start|>ring<|object_ref_end|><|box_start|>{first},{three}<|box_end|>, "
        f"<|object_ref_start|>cross<|object_ref_end|><|box_start|>{two}<|box_end|>"
    )
    assert answer_text([], form=GROUPED) == "none"


@given(objects=st.lists(BOX | POLY, max_size=6), geometry_first=st.booleans())
def test_groups_are_read(objects: list[Located], geometry_first: bool) -> None:
    objects = [Located(desc=o.desc.replace("|", "/"), kind=o.kind, bins=o.bins) for o in objects]
    text = answer_text(objects, form=GROUPED, geometry_first=geometry_first)
    read = parse_answer(text, GROUPED)
    expected = [(o.desc, o.kind, o.bins) for group in GROUPED.grouped(objects) for o in group]
    assert ([(item.desc, item.kind, item.bins) for item in read.objects], read.unread) == (expected, ())
    for item in read.objects:
        assert text[slice(*item.desc_span)] == item.desc
        assert [text[slice(*span)] for span in item.coord_spans] == ints_to_tokens(item.bins)


def test_a_label_may_hold_what_stands_between_objects_elsewhere() -> None:
    objects = [box("man, standing, old", 1, 2, 3, 4), box("dog", 5, 6, 7, 8), box("dog", 5, 6, 9, 9)]
    read = parse_answer(answer_text(objects, form=TAGS), TAGS)
    assert ([item.desc for item in read.objects], read.unread) == (["man, standing, old", "dog", "dog"], ())
    assert [item.at for item in read.objects] == ["objects[0]", "objects[1]", "objects[2]"]


@pytest.mark.parametrize("text", ["", "none", " none\n", "<think>none of them?</think>\n\nnone"])
def test_no_object(text: str) -> None:
    read = parse_answer(text, GROUPED)
    assert (read.objects, [item.reason for item in read.unread]) == ((), [] if text else ["empty answer"])


def test_a_draft_in_a_thought_is_not_the_answer() -> None:
    draft, answer = (answer_text([box(desc, 1, 2, 3, 4)], form=GROUPED) for desc in ("draft", "ring"))
    read = parse_answer(f"<think>{draft}</think>\n\n{answer}", GROUPED)
    assert ([item.desc for item in read.objects], read.unread) == (["ring"], ())
    assert parse_answer(f"<think>{draft}", GROUPED).unread[0].reason == "thoughts, and no answer behind them"


def test_a_wrong_place_leaves_the_other_labels() -> None:
    ring = "".join(ints_to_tokens([1, 2, 3, 4]))
    wrong, far = "".join(ints_to_tokens([5, 0, 1, 9])), ring.replace("<|coord_2|>", "<|coord_1000|>")
    read = parse_answer(f"ring{ring}{wrong}{far}{ring}{ring[:-5]}\ncross{ring}", GROUPED)
    assert [(item.desc, item.at) for item in read.objects] == [
        ("ring", "objects[0]"), ("ring", "objects[3]"), ("cross", "objects[5]"),
    ]  # fmt: skip
    assert [(item.at, item.reason[:24]) for item in read.unread] == [
        ("objects[1].bbox_2d", "x2 = 1 < x1 = 5"),
        ("objects[2].bbox_2d", '"<|coord_1000|>" is no c'),
        ("objects[4].bbox_2d", 'not a bbox_2d: "<|coord_'),
    ]


ALL_IN_TAGS = attrs.evolve(
    TAGS,
    places={
        "bbox_2d": (Coords("bbox_2d", between=""),),
        "poly": ("|", Coords("poly", between="")),
        "point": (Coords("point", between=""),),
    },
)


def in_tags(*places: tuple[int, ...], mark: str = "") -> str:
    return TAGS.before + f"ring{TAGS.amid}" + ",".join(mark + "".join(ints_to_tokens(place)) for place in places)


@pytest.mark.parametrize("damaged", [(1, 2), (1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 6)])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_wrong_place_between_separators_is_none_of_another_kind_and_leaves_the_others(
    damaged: tuple[int, ...], at: int
) -> None:
    places = [(0, 0, 9, 9), (5, 6, 7, 8)]
    read = parse_answer(in_tags(*places[:at], damaged, *places[at:]) + TAGS.after, ALL_IN_TAGS)
    assert [(item.kind, item.bins) for item in read.objects] == [("bbox_2d", place) for place in places]
    assert [item.at for item in read.objects] == [f"objects[{k}]" for k in range(3) if k != at]
    assert [(item.at, item.reason[:13]) for item in read.unread] == [(f"objects[{at}].bbox_2d", "not a bbox_2d")]


@pytest.mark.parametrize("place", [(1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 6)])
def test_what_is_left_of_a_box_is_no_point_and_no_box(place: tuple[int, ...]) -> None:
    read = parse_answer(in_tags(place) + TAGS.after, ALL_IN_TAGS)
    assert (read.objects, read.unread[0].reason[:22]) == ((), "not of the format tags")


def test_of_a_group_that_is_cut_off_all_is_read_but_its_last_place() -> None:
    read = parse_answer(in_tags((0, 0, 9, 9), (5, 6, 7, 8), (1, 2)), ALL_IN_TAGS)
    assert [(item.kind, item.bins) for item in read.objects] == [("bbox_2d", (0, 0, 9, 9)), ("bbox_2d", (5, 6, 7, 8))]
    assert [item.at for item in read.unread] == ["objects[2].bbox_2d"]
    assert parse_answer(in_tags((5, 6), (1, 2)), ALL_IN_TAGS).objects[0].bins == (5, 6)


def test_a_polygon_or_a_label_that_a_limit_cut_is_unread() -> None:
    """Half of a polygon looks like one of fewer points, and half of a label like another."""
    corners = "".join(ints_to_tokens((1, 2, 3, 4)))
    polygon = corners + "".join(ints_to_tokens((5, 6)))
    written = f"ring{corners}\nring|{polygon}"
    label_last = attrs.evolve(LINES, geometry_first=True)

    def read(text: str, form: Format = GROUPED) -> list[tuple[int, ...]]:
        return [item.bins for item in parse_answer(text, form, cut=True).objects]

    assert read(written) == read(f"ring{corners}") == [(1, 2, 3, 4)]
    assert read(f"{written}\n") == [(1, 2, 3, 4), (1, 2, 3, 4, 5, 6)]
    assert parse_answer(written, GROUPED, cut=True).unread[-1].at == "objects[1]"
    assert len(parse_answer(written, GROUPED).objects) == 2
    assert read(f"{corners}ring\n{corners}ri", label_last) == [(1, 2, 3, 4)]


@pytest.mark.parametrize("form", [GROUPED, ALL_IN_TAGS], ids=lambda form: form.name)
def test_a_polygon_of_an_odd_number_is_none(form: Format) -> None:
    wrong, right = (1, 2, 3, 4, 5, 6, 7), (1, 2, 3, 4, 5, 9)
    if form is GROUPED:
        text = "ring" + "".join("|" + "".join(ints_to_tokens(place)) for place in (right, wrong))
    else:
        text = in_tags(right, wrong, mark="|") + TAGS.after
    read = parse_answer(text, form)
    assert [(item.kind, item.bins) for item in read.objects] == [("poly", right)]
    assert [item.at for item in read.unread] == ["objects[1].poly"]


def test_a_separator_that_stands_in_places_too_tells_not_where_the_next_begins() -> None:
    form = attrs.evolve(TAGS, places={"bbox_2d": (Coords("bbox_2d", between=","),)})
    text = in_tags(*((k,) for k in (0, 0, 9, 9, 500, 1, 2, 3, 4))).replace("<|coord_500|>", "x") + TAGS.after
    read = parse_answer(text, form)
    assert [item.bins for item in read.objects] == [(0, 0, 9, 9)]


@pytest.mark.parametrize("around", ["\n", "\r\n", " \n"])
def test_white_space_around_an_answer_is_no_part_of_it(around: str) -> None:
    objects = [box("ring", 1, 2, 3, 4), box("cross", 5, 6, 7, 8)]
    for form in (TAGS, GROUPED) if " " not in around else (TAGS,):
        read = parse_answer(f"{around}{answer_text(objects, form=form)}{around}", form)
        assert ([item.desc for item in read.objects], read.unread) == (["ring", "cross"], ())
    read = parse_answer(answer_text(objects, form=GROUPED).replace("\n", "\r\n"), GROUPED)
    assert ([item.desc for item in read.objects], read.unread) == (["ring", "cross"], ())


def test_an_object_without_a_description_is_refused() -> None:
    for form in (COORDJSON, GROUPED):
        with pytest.raises(InputError, match="a description must not be empty"):
            answer_text([box("", 1, 2, 3, 4)], form=form)


@pytest.mark.parametrize("thought", ["</think>", "<think>", "◁/think▷", "<channel|>", "</Reasoning >"])
@pytest.mark.parametrize("form", [COORDJSON, LINES, KINDS, GROUPED, TAGS], ids=lambda form: form.name)
def test_a_description_is_read_as_it_was_written_or_refused(form: Format, thought: str) -> None:
    with pytest.raises(InputError, match="would be read as a thought; reword it"):
        answer_text([box(f"a {thought} b", 1, 2, 3, 4)], form=form)
    label = thought.strip("<>◁▷|") + " in words"
    answer = answer_text([box(label, 1, 2, 3, 4)], form=form)
    assert [item.desc for item in parse_answer(answer, form).objects] == [label]


def test_numbers_that_would_run_together_are_refused() -> None:
    with pytest.raises(InputError, match="the format grouped has nothing between two coordinates, which plain numbers"):
        answer_text([box("ring", 1, 2, 3, 4)], form=GROUPED, coord_tokens=False)
    assert answer_text([], form=GROUPED, coord_tokens=False) == "none"


def test_a_kind_that_it_cannot_say_is_refused() -> None:
    poly = Located(desc="roof", kind="poly", bins=(1, 2, 3, 4, 5, 6))
    with pytest.raises(InputError, match="the format tags cannot say a poly; it can say bbox_2d"):
        answer_text([poly], form=TAGS)


# --- in a checkpoint --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [COORDJSON, LINES, KINDS, GROUPED, TAGS], ids=lambda form: form.name)
def test_a_description_survives_json(form: Format) -> None:
    data = json.loads(json.dumps(form.as_dict()))
    assert Format.from_dict(data, source="x").as_dict() == form.as_dict()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"between": ""}, "between must not be empty"),
        ({"label": ["x"]}, "label must hold one Label"),
        ({"label": None}, ""),
        ({"places": {}}, "places must be of the kinds"),
        ({"places": {"cube": ["x"]}}, "places must be of the kinds bbox_2d, poly, point, quad, got cube"),
        (
            {"places": {"poly": [{"kind": "bbox_2d", "between": ""}]}},
            "places.poly must hold the Coords of a poly",
        ),
        ({"places": {"poly": ["x"]}}, "places.poly must hold the Coords of a poly"),
        ({"places": {"poly": [{"cube": 1}]}}, ""),
        ({"colour": "red"}, "unexpected keyword argument 'colour'"),
        ({"between": 7}, "between must be text of at most 200 characters, got '7'"),
        ({"json": "yes"}, "json must be true or false, got 'yes'"),
        ({"geometry_first": "yes"}, "geometry_first must be true or false, got 'yes'"),
        ({"json": True}, "a label in quotes, Label(), belongs to a format with json = true"),
        ({"label": [{"without": None}]}, "a label in quotes, Label(), belongs to a format with json = true"),
        ({"label": [{"without": 5}]}, "label.without must be text"),
        ({"label": [{"kind": "bbox_2d", "between": ""}]}, "label must hold one Label"),
        ({"places": {"bbox_2d": [{"kind": "bbox_2d", "between": 5}]}}, "places.bbox_2d.between must be text"),
        ({"places": {"bbox_2d": [{"without": "<"}]}}, "places.bbox_2d must hold the Coords of a bbox_2d"),
        ({"again": 5}, "again must be text"),
        ({"again": "\n", "between": "\n"}, "again must not hold between"),
        ({"opening": "x" * 201}, "opening must be text of at most 200 characters"),
        ({"name": "a\x1b[2J"}, "name must be lower-case letters, digits and underscores"),
        ({"nothing": ""}, "nothing must not be empty"),
        ({"between": ", "}, "a label could hold ', ', which stands behind it"),
        ({"amid": " - "}, "a label could hold ' - ', which stands behind it"),
    ],
)
def test_what_describes_no_format_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=r"coordcore.json: answers: is no answer format: ") as caught:
        Format.from_dict({**LINES.as_dict(), **change}, source="coordcore.json: answers")
    assert reason in str(caught.value)
    assert str(caught.value).endswith("; write the checkpoint anew")
