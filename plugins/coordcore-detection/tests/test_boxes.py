"""From recorded tokens to boxes: which tokens wrote what, corners, duplicates, how an answer ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from prediction_support import END, FIRST_COORD, TOKENS, WORDS, coords, image

from coordcore.coords import ints_to_tokens
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.records.answers import COORDJSON, Format
from coordcore.records.answers.format import Coords as Coordinates
from coordcore.records.answers.format import Label
from coordcore_detection.decode.decoding import Coords
from coordcore_detection.predict.boxes import mark_duplicates, read_row
from coordcore_detection.predict.predictions import Row
from coordcore_detection.predict.recording import Recording
from coordcore_detection.predict.settings import PredictSettings

SIZE = (999, 999)  # a bin is a pixel


def tokenised(text: str) -> list[int]:
    """The longest tokens first, as BPE would have it; a coord token is one token."""
    added = [(token.encode(), FIRST_COORD + k) for k, token in enumerate(TOKENS.added.values())]
    words = sorted([*((word, index) for index, word in enumerate(WORDS)), *added], key=lambda item: -len(item[0]))
    data, tokens = text.encode(), []
    while data:
        word, token = next(item for item in words if data.startswith(item[0]))
        tokens.append(token)
        data = data[len(word) :]
    return tokens


def answer(item: str, *bins: int) -> str:
    return f'{{"desc": "{item}", "bbox_2d": {coords(*bins)}}}'


def row(
    tokens: Sequence[int],
    *,
    probabilities: dict[int, float] | None = None,
    values: Sequence[float] | None = None,
    form: Format = COORDJSON,
    **ended: bool,
) -> Row:
    """The row of an answer. probabilities: place -> probability, of each other token 1. values: the coordinates."""
    log_p = np.zeros((1, len(tokens)), dtype=np.float32)
    for place, probability in (probabilities or {}).items():
        log_p[0, place] = math.log(probability)
    bins = np.array(tokens) - FIRST_COORD
    is_coord = (bins >= 0) & (bins < 1000)
    coordinate = np.full((1, len(tokens)), -1)
    coordinate[0, is_coord] = np.arange(is_coord.sum())
    empty = torch.empty(0)
    recording = Recording(
        tokens=np.array([tokens]),
        log_probability=log_p,
        coordinate=coordinate,
        bins=empty,
        logits=empty,
        log_sum=empty,
        looped=np.array([ended.get("looped", False)]),
        cut=np.array([ended.get("cut", False)]),
    )
    found = np.asarray(bins[is_coord] if values is None else values, dtype=np.float64)
    zeros = np.zeros(len(found))
    return read_row(
        image("a.png", size=SIZE),
        recording,
        0,
        Coords(value=found, spread=found / 1000, entropy=zeros, log_mass=zeros, log_near=zeros),
        tokens=TOKENS,
        end_tokens=[END],
        settings=PredictSettings(score="geometric_mean"),
        quantisation=DEFAULT_QUANTISATION,
        form=form,
    )


def several(*objects: str, **more: Any) -> Row:
    return row([*tokenised(f'{{"objects": [{", ".join(objects)}]}}'), END], **more)


def test_a_box() -> None:
    found = several(answer("red", 10, 20, 30, 40), values=[10.25, 20, 30, 40.5])
    (box,) = found.boxes
    assert (box.label, box.bins, box.box) == ("red", (10, 20, 30, 40), (10.25, 20.0, 30.0, 40.5))
    assert (box.spread, found.stopped, found.unread) == ((0.01, 0.02, 0.03, 0.04), "end", [])


@pytest.mark.parametrize("text", ["red", '": ', "é", "a é"])
def test_the_tokens_of_a_description_are_those_that_hold_a_part_of_it(text: str) -> None:
    """Tokens may reach over the quotes, and a character over several tokens."""
    whole = f'{{"objects": [{answer(text.replace(chr(34), chr(92) + chr(34)), 1, 2, 3, 4)}]}}'
    tokens = tokenised(whole)
    written = json_span(whole)
    ends = np.cumsum([len(TOKENS.of(token)) for token in tokens])
    holding = [
        place for place, end in enumerate(ends) if end > written[0] and end - len(TOKENS.of(tokens[place])) < written[1]
    ]
    for place in range(len(tokens)):
        (box,) = row([*tokens, END], probabilities={place: 0.5}).boxes
        is_coord = FIRST_COORD <= tokens[place] < END
        assert (box.scores["min"] == 0.5) == (place in holding or is_coord)


def json_span(text: str) -> tuple[int, int]:
    """Where the description stands, in bytes."""
    data = text.encode()
    start = data.index(b'"desc": "') + len(b'"desc": "')
    return start, data.index(b'", "bbox_2d"')


def test_expected_corners_the_wrong_way_round_are_put_at_the_first() -> None:
    (box,) = several(answer("red", 10, 20, 10, 20), values=[10.5, 20.5, 9.5, 21.5]).boxes
    assert box.box == (10.5, 20.5, 10.5, 21.5)


def test_a_poly_is_bounded_by_its_expected_points() -> None:
    text = f'{{"desc": "roof", "poly": {coords(10, 50, 90, 50, 40, 20)}}}'
    (box,) = several(text, values=[10.5, 50, 90.5, 51, 40, 20.5]).boxes
    assert (box.bins, box.box) == ((10, 20, 90, 50), (10.5, 20.5, 90.5, 51.0))
    assert box.spread == pytest.approx((0.01, 0.02, 0.09, 0.051), abs=1e-3)


def test_duplicates() -> None:
    objects = [
        answer("a", 0, 0, 100, 100),
        answer("a", 0, 0, 100, 95),
        answer("b", 0, 0, 100, 100),
        answer("a", 0, 0, 100, 80),
        answer("c", 5, 5, 5, 5),
        answer("c", 5, 5, 5, 5),
    ]
    assert [box.duplicate for box in several(*objects).boxes] == [False, True, False, False, False, True]


def test_duplicates_among_more_boxes_than_are_compared_at_a_time() -> None:
    """A box is one where any earlier one is alike, itself a duplicate or not; across the stretches too."""
    random = np.random.default_rng(3)
    sides = [[0, 0, 100, 100 - int(3 * k)] for k in random.permutation(30)]
    corners = (sides * 7)[: 3 * 64 + 5]
    [first] = several(answer("a", *corners[0])).boxes
    found = [msgspec.structs.replace(first, box=tuple(map(float, box)), duplicate=False) for box in corners]
    mark_duplicates(found)
    expected = [
        any(min(own[3], other[3]) >= 0.9 * max(own[3], other[3]) for other in corners[:index])
        for index, own in enumerate(corners)
    ]
    assert [box.duplicate for box in found] == expected
    assert not all(expected[1:30])


@pytest.mark.parametrize(
    ("end", "ended", "stopped"),
    [
        ([END], {}, "end"),
        ([], {}, "length"),
        ([END], {"cut": True}, "length"),
        ([END], {"cut": True, "looped": True}, "repetition"),
        ([END, END, 65], {}, "end"),
    ],
)
def test_how_an_answer_ended(end: list[int], ended: dict[str, bool], stopped: str) -> None:
    found = row([*tokenised('{"objects": []}'), *end], **ended)
    assert (found.stopped, found.text) == (stopped, '{"objects": []}')


def test_a_coord_token_that_is_spelled_out_is_no_box() -> None:
    spelled = b"<|coord_3|>"
    tokens = []
    for token in tokenised(f'{{"objects": [{answer("red", 1, 2, 3, 4)}]}}'):
        tokens += list(spelled) if token == FIRST_COORD + 3 else [token]
    found = row([*tokens, END])
    (part,) = found.unread
    assert (found.boxes, part.at, part.reason) == ([], "objects[0].bbox_2d", "coord tokens spelled out in other tokens")


def test_a_polygon_that_ran_out_of_tokens_is_unread() -> None:
    place = (Coordinates("poly", between=""),)
    lines = Format(name="lines", label=(Label(without="<"),), places={"poly": place}, between="\n", nothing="none")
    tokens = tokenised("red" + "".join(ints_to_tokens((1, 2, 30, 4, 30, 40))))
    assert len(row([*tokens, END], form=lines).boxes) == 1
    cut = row(tokens, form=lines)
    assert (cut.boxes, cut.stopped, cut.unread[0].at) == ([], "length", "objects[0]")


def test_an_answer_that_ends_at_once() -> None:
    found = row([END])
    assert (found.text, found.boxes, [item.reason for item in found.unread]) == ("", [], ["empty answer"])
