"""Answers of all sorts: read without an exception, in time, and never as a box that does not stand there."""

from __future__ import annotations

import re
import time

from hypothesis import example, given
from hypothesis import strategies as st
from mutate import BYTES, STRINGS, Raw

from coordcore.coords import ints_to_tokens
from coordcore.records.answers import Answer, parse_answer

FRAGMENTS = [
    '{"objects": [', "]}", "{", "}", "[", "]", ",", ", ", ":", '"', '"desc": "cat"', '"desc": ', '"label": "é \\" x"',
    '"bbox_2d": [', '"poly": [', "<|coord_0|>, <|coord_1|>, <|coord_20|>, <|coord_999|>",
    "<|coord_5|>", "<|coord_1000|>",
    "<|coord_-1|>", "<|coord_007|>", "<|coord_", "|>", "12, 40, 300, 412", "0.5", "-1", "1e9", "```json\n",
    "```", "<think>",
    "</think>", "Here: ", "null", "true", "\\u00e9", "\\ud800", "\\", "'", "\n", "\t", "\x1b[2J", "\x00", "\u2028",
    '"point_2d": [', "<|box_start|>(1,2),(3,4)<|box_end|>", "<|object_ref_start|>cat<|object_ref_end|>", "(", ")", " ",
]  # fmt: skip
FRAGMENTS += [string.text if isinstance(string, Raw) else string for string in STRINGS]
FRAGMENTS += [byte.decode("utf-8", "replace") for byte in BYTES if len(byte) < 3000]

texts = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=30).map("".join)

boxes = st.tuples(*[st.integers(0, 999)] * 4).map(
    lambda four: (*map(min, four[:2], four[2:]), *map(max, four[:2], four[2:]))
)


@st.composite
def written(draw: st.DrawFn) -> str:
    """An answer as it is written, with a piece of it replaced."""
    count = draw(st.integers(0, 4))
    objects = [
        f'{{"desc": "thing {index}", "bbox_2d": [{", ".join(ints_to_tokens(draw(boxes)))}]}}' for index in range(count)
    ]
    text = f'{{"objects": [{", ".join(objects)}]}}'
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 30)))
    return text[:start] + draw(texts) + text[end:]


def require_honest(text: str, answer: Answer) -> None:
    """Every box is one that stands in the text, and what is left out is said."""
    last = 0
    for item in answer.objects:
        assert item.kind in ("bbox_2d", "poly")
        assert len(item.bins) == len(item.coord_spans)
        for value, (start, end) in zip(item.bins, item.coord_spans, strict=True):
            assert 0 <= value <= 999
            assert last <= start < end <= len(text)
            assert re.findall(r"\d+", text[start:end]) == [str(value)]
            last = start
        start, end = item.desc_span
        assert 0 <= start <= end <= len(text)
        if item.kind == "bbox_2d":
            x1, y1, x2, y2 = item.bins
            assert x1 <= x2
            assert y1 <= y2
        item.desc.encode()  # text that a file can hold
    for part in answer.unread:
        assert part.reason
        assert len(part.reason) < 300
        part.reason.encode()


@given(texts | written())
@example("")
@example('{"objects": []}')
def test_no_answer_is_read_wrong(text: str) -> None:
    answer = parse_answer(text)
    require_honest(text, answer)
    if not answer.objects and not answer.unread:
        assert re.search(r"\[[\s,]*\]", text), f"nothing was read, and nothing is said of {text!r}"


def test_the_time_to_read_is_linear() -> None:
    slow = {}
    for piece in (fragment for fragment in FRAGMENTS if fragment):
        for head in ("", '{"objects": [', '{"objects": [{"desc": "a", "bbox_2d": [', '[{"desc": "'):
            short, long = (head + piece * (size // len(piece)) for size in (10_000, 80_000))
            if _ratio(long, short, 1) > 30 and (ratio := _ratio(long, short, 3)) > 40:  # 8 is linear, 64 quadratic
                slow[head + piece[:40]] = round(ratio)
    assert slow == {}


def _ratio(long: str, short: str, tries: int) -> float:
    return _seconds(long, tries) / max(_seconds(short, tries), 1e-3)


def _seconds(text: str, tries: int) -> float:
    """The work that reading a text takes, the least of some tries."""
    found = []
    for _ in range(tries):
        started = time.process_time()
        parse_answer(text)
        found.append(time.process_time() - started)
    return min(found)
