"""A server that serves a model of another answer format than the local folder's: every pair of the shipped ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from coordcore.coords import DEFAULT_COORDS
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.records.answers import COORDJSON, Format, Located, answer_text, parse_answer
from coordcore_coord_tokens.formats import COMPACT, GROUPED, QWEN, QWEN_NUMBERS, TAGGED
from coordcore_detection.predict.other_formats import other_format
from coordcore_detection.predict.predictions import Box, Row

FORMATS = (COORDJSON, QWEN, COMPACT, GROUPED, TAGGED, QWEN_NUMBERS)
READABLE = {
    ("coordjson", "qwen"), ("coordjson", "grouped_tags"), ("qwen", "coordjson"), ("qwen", "grouped_tags"),
    ("compact", "grouped"), ("grouped", "compact"),
}  # fmt: skip
"""Own and served format where the first reads boxes of the second."""

OBJECTS = [
    Located(desc="red ring", kind="bbox_2d", bins=(1, 2, 30, 40)),
    Located(desc="red ring", kind="bbox_2d", bins=(5, 6, 70, 80)),
    Located(desc="cat", kind="bbox_2d", bins=(5, 6, 70, 80)),
]


@pytest.mark.parametrize("served", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize("own", FORMATS, ids=lambda form: form.name)
def test_the_format_of_the_answers_is_named(own: Format, served: Format) -> None:
    checkpoint: Any = SimpleNamespace(format=own, coords=DEFAULT_COORDS, quantisation=DEFAULT_QUANTISATION)
    rows = []
    for objects in (OBJECTS, OBJECTS[2:], [], OBJECTS[:1], OBJECTS[1:]):
        text = answer_text(objects, form=served)
        answer = parse_answer(text, own)
        read = [Box(label=item.desc, box=(0, 0, 1, 1), bins=(0, 0, 1, 1), score=1.0) for item in answer.objects]
        rows.append(Row(image="a.png", width=9, height=9, text=text, boxes=read, unread=list(answer.unread)))
    found = other_format(rows, checkpoint)
    is_read = own is served or (own.name, served.name) in READABLE
    assert (found and found[0].name) == (None if is_read else served.name)
