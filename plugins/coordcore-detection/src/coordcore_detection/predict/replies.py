"""The rows of a server's answers: boxes, their scores, and coordinates between the bins. Torch-free."""

from __future__ import annotations

import codecs
import math

import numpy as np

from coordcore.coords import CoordFormat
from coordcore.records.answers import AnswerObject, parse_answer
from coordcore.records.geometry import bounds
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.boxes import corners, four, mark_duplicates, shaped, short
from coordcore_detection.predict.numbers import row_of_text
from coordcore_detection.predict.predictions import Box, Row
from coordcore_detection.predict.served_checkpoint import Checkpoint
from coordcore_detection.predict.server import Reply
from coordcore_detection.predict.settings import PredictSettings


def read_reply(truth: TruthImage, reply: Reply, checkpoint: Checkpoint, settings: PredictSettings) -> Row:
    """The row of an answer. Boxes have no score where the server does not say the probabilities of its tokens."""
    stopped = "length" if reply.is_cut else "end"
    if checkpoint.format.numbers or truth.is_text:
        form = None if truth.is_text else checkpoint.format
        return row_of_text(truth, reply.text, stopped, form=form, quantisation=checkpoint.quantisation)
    answer = parse_answer(reply.text, checkpoint.format, coords=checkpoint.coords, cut=reply.is_cut)
    places = _Places(reply, checkpoint.coords)
    boxes = [_box(found, truth, places, checkpoint, settings) for found in answer.objects]
    mark_duplicates(boxes)
    return Row(
        image=truth.key,
        width=truth.width,
        height=truth.height,
        text=reply.text,
        boxes=boxes,
        unread=list(answer.unread),
        stopped=stopped,
    )


class _Places:
    """The tokens of an answer, and which characters of its text each wrote."""

    def __init__(self, reply: Reply, coords: CoordFormat) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces = [decoder.decode(token.text) for token in reply.tokens]
        lengths = np.cumsum([0, *map(len, pieces)])
        begin = "".join(pieces).find(reply.text)  # the end token may be among them, and a thought
        self.tokens = reply.tokens if begin >= 0 else ()
        self.start, self.stop = lengths[:-1] - begin, np.maximum(lengths[1:], lengths[:-1] + 1) - begin
        self.coords = coords

    def within(self, span: tuple[int, int]) -> list[int]:
        """The tokens that wrote a part of the text."""
        if not self.tokens:
            return []
        return [int(place) for place in np.flatnonzero((self.start < span[1]) & (self.stop > span[0]))]

    def expected(self, place: int, written: int, window: int | None) -> float:
        """The expectation of a coordinate over those bins that are among the likely tokens in its place."""
        bin_of = self.coords.bin_of
        known = [(bin_of[text], math.exp(log)) for text, log in self.tokens[place].top.items() if text in bin_of]
        near = [(k, p) for k, p in known if window is None or abs(k - written) <= window]
        total = sum(p for _, p in near)
        return sum(k * p for k, p in near) / total if total > 0 else float(written)


def _box(
    found: AnswerObject, truth: TruthImage, places: _Places, checkpoint: Checkpoint, settings: PredictSettings
) -> Box:
    values, scores = [float(k) for k in found.bins], {}
    at = [place for span in found.coord_spans for place in places.within(span)]
    if len(at) == len(found.bins):  # each is a token of its own
        logs = [places.tokens[place].log_probability for place in (*places.within(found.desc_span), *at)]
        scores = {"geometric_mean": math.exp(sum(logs) / len(logs)), "min": math.exp(min(logs))}
        if settings.coordinates == "expectation":
            values = [places.expected(item, k, settings.window) for item, k in zip(at, found.bins, strict=True)]
    size = np.array([truth.width, truth.height])
    _, pixels = corners(np.array(values), found.kind)
    box = checkpoint.quantisation.decode(pixels.reshape(2, 2), size).ravel()
    score = scores.get(settings.score, math.nan)
    return Box(
        label=found.desc,
        box=four(box, 6),
        bins=bounds(found.bins),
        score=short(settings.calibration.apply(score) if settings.calibration and scores else score),
        scores={name: short(value) for name, value in scores.items()},
        **shaped(found.kind, checkpoint.quantisation.decode(np.array(values).reshape(-1, 2), size)),
    )
