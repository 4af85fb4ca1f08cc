"""Answers read from their text alone: in plain numbers, whose boxes have no scores, or without boxes. Torch-free."""

from __future__ import annotations

import numpy as np

from coordcore.quantisation import Quantisation
from coordcore.records.answers import Answer, Format, Unread, parse_answer
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.boxes import mark_duplicates
from coordcore_detection.predict.foreign import box_at, pixels_of
from coordcore_detection.predict.predictions import Row


def row_of_text(truth: TruthImage, text: str, stopped: str, *, form: Format | None, quantisation: Quantisation) -> Row:
    """The row of an answer whose numbers are the bins of `quantisation`, or its last edge.

    stopped: as `Row.stopped`. form: None for an answer in words, which says no boxes. Numbers beyond the edge are
    unread: pixels, most likely.
    """
    answer = Answer(objects=(), unread=()) if form is None else parse_answer(text, form)
    unread, boxes = list(answer.unread), []
    size = np.array([truth.width, truth.height], dtype=np.float64)
    limit = quantisation.decode_scale
    for item in answer.objects:
        values = item.numbers or item.bins
        if wrong := [value for value in values if not 0 <= value <= limit]:
            reason = f"{wrong[0]:g} lies outside 0..{limit:g} of {quantisation.name}; does the model write pixels?"
            unread.append(Unread(at=f"{item.at}.{item.kind}", reason=reason))
            continue
        points = pixels_of(np.array(values, dtype=np.float64).reshape(-1, 2), quantisation, size)
        boxes.append(box_at(item, values, points))
    mark_duplicates(boxes)
    return Row(
        image=truth.key,
        width=truth.width,
        height=truth.height,
        text=text,
        boxes=boxes,
        unread=unread,
        stopped=stopped,
    )
