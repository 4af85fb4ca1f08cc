"""Answers: the text in which a model says what is in an image. Torch-free.

`format` describes how an answer is written, piece by piece; writer (`write`), parser (`parse` and `pieces`) and the
grammar of constrained decoding follow from that description, so a second format is one more of them.
"""

from __future__ import annotations

from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.records.answers.format import COORDJSON, Format
from coordcore.records.answers.parse import Answer, AnswerObject, Unread, answered, parse_json
from coordcore.records.answers.pieces import parse_pieces
from coordcore.records.answers.write import Located, answer_text, geometry_text, reserved

__all__ = [
    "COORDJSON",
    "Answer",
    "AnswerObject",
    "Format",
    "Located",
    "Unread",
    "answer_text",
    "answered",
    "geometry_text",
    "parse_answer",
    "reserved",
]


def parse_answer(
    text: str,
    form: Format = COORDJSON,
    *,
    numbers: bool = False,
    coords: CoordFormat = DEFAULT_COORDS,
    cut: bool = False,
) -> Answer:
    """Read an answer, whatever it is. The time it takes is linear in its length.

    numbers: read the plain numbers of lists in JSON and of tags as well, as `AnswerObject.numbers`; a format of plain
    numbers asks for it by itself. What they mean (pixels, thousandths, bins of a convention) is for the caller to have
    been told. coords: whose tokens are read, and in which order; what is read has x first. cut: a limit of tokens ended
    the text, so that a polygon or a label which it ends with may not be whole, and is unread.
    """
    return parse_json(text, numbers or form.numbers, coords) if form.json else parse_pieces(text, form, coords, cut)
