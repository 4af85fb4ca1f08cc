"""From the recorded generation of one answer to its row: boxes in pixels, scores, duplicates. Torch-free."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.errors import RunError
from coordcore.quantisation import Quantisation
from coordcore.records.answers import COORDJSON, AnswerObject, Format, Unread, parse_answer
from coordcore.records.geometry import bounds, overlaps
from coordcore_detection.decode.decoding import Coords
from coordcore_detection.decode.tokens import TokenBytes
from coordcore_detection.evaluate.polygons import areas
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.prediction_files import NO_IMAGE
from coordcore_detection.predict.predictions import Box, Row
from coordcore_detection.predict.scores import Evidence, scores_of
from coordcore_detection.predict.settings import PredictSettings

if TYPE_CHECKING:
    from coordcore_detection.predict.recording import Recording

Array = np.ndarray[Any, np.dtype[Any]]

DUPLICATE_IOU = 0.9

_LATER = 64
"""Boxes that are compared with all earlier ones at a time."""


def not_shown(truth: TruthImage, reason: str) -> Row:
    """The row of an image that the model was not shown."""
    unread = [Unread(at=NO_IMAGE, reason=reason)]
    return Row(image=truth.key, width=truth.width, height=truth.height, text="", boxes=[], unread=unread)


def read_row(
    truth: TruthImage,
    recording: Recording,
    index: int,
    coords: Coords,
    *,
    tokens: TokenBytes,
    end_tokens: Sequence[int],
    settings: PredictSettings,
    quantisation: Quantisation,
    coord_format: CoordFormat = DEFAULT_COORDS,
    form: Format = COORDJSON,
) -> Row:
    """The row of answer `index` of a batch. Raises RunError when the model's logits are NaN."""
    ends = np.flatnonzero(np.isin(recording.tokens[index], end_tokens))
    length = int(ends[0]) if len(ends) else recording.tokens.shape[1]
    log_probability = recording.log_probability[index, :length].astype(np.float64)
    coordinate = recording.coordinate[index, :length]
    if np.isnan(log_probability).any() or np.isnan(coords.value[coordinate[coordinate >= 0]]).any():
        raise RunError(f"{truth.key}: the model's logits are NaN or infinite; its weights are broken")
    text, complete = tokens.read(recording.tokens[index, :length].tolist())
    answer = parse_answer(text, form, coords=coord_format, cut=not len(ends))
    reader = _Reader(truth, log_probability, coordinate, coords, complete)
    found = answer.objects[: settings.max_objects]  # a free answer ends a token late
    at = [reader.coordinates(item) for item in found]
    unread = list(answer.unread)
    for item in (item for item, places in zip(found, at, strict=True) if places is None):
        unread.append(Unread(at=f"{item.at}.{item.kind}", reason="coord tokens spelled out in other tokens"))
    whole = [(item, places) for item, places in zip(found, at, strict=True) if places is not None]
    boxes = reader.boxes(whole, settings, quantisation)
    mark_duplicates(boxes)
    stopped = "end" if len(ends) and not recording.cut[index] else "length"
    return Row(
        image=truth.key,
        width=truth.width,
        height=truth.height,
        text=text,
        boxes=boxes,
        unread=unread,
        stopped="repetition" if recording.looped[index] else stopped,
    )


class _Reader:
    """Boxes of one answer, with what was recorded at the tokens that wrote them.

    Of each coordinate of the answer, in its order: value, spread, and what scores are made of. Looked up for a whole
    answer at a time: arrays of four numbers take longer to make than to compute with.
    """

    def __init__(
        self, truth: TruthImage, log_probability: Array, coordinate: Array, coords: Coords, complete: Sequence[int]
    ) -> None:
        self.size = np.array([truth.width, truth.height], dtype=np.float64)
        self.log_probability = log_probability.tolist()
        is_coordinate = coordinate >= 0
        rows = coordinate[is_coordinate]
        self.number = np.where(is_coordinate, np.cumsum(is_coordinate) - 1, -1).tolist()
        self.value, self.spread = coords.value[rows], coords.spread[rows]
        self.entropy, self.log_mass, self.log_near = (
            each[rows].tolist() for each in (coords.entropy, coords.log_mass, coords.log_near)
        )
        # Each token's characters; a piece of one belongs to the character it is a piece of.
        self.start = [0, *complete][: len(complete)]
        self.stop = [max(stop, start + 1) for start, stop in zip(self.start, complete, strict=True)]

    def coordinates(self, found: AnswerObject) -> list[int] | None:
        """The tokens that wrote the coordinates of an object, None where others spell some of them out."""
        at = [place for span in found.coord_spans for place in self._tokens(span) if self.number[place] >= 0]
        return at if len(at) == len(found.bins) else None

    def boxes(
        self, found: Sequence[tuple[AnswerObject, list[int]]], settings: PredictSettings, quantisation: Quantisation
    ) -> list[Box]:
        """The objects, each with the tokens of its coordinates, as boxes."""
        if not found:
            return []
        numbers = [[self.number[place] for place in at] for _, at in found]
        bounding = [corners(self.value[own], item.kind) for own, (item, _) in zip(numbers, found, strict=True)]
        values = np.stack([values for _, values in bounding]).reshape(-1, 2, 2)
        pixels = np.round(quantisation.decode(values, self.size).reshape(-1, 4), 6).tolist()
        spreads = np.stack([self.spread[own][pick] for own, (pick, _) in zip(numbers, bounding, strict=True)])
        boxes = []
        for (item, at), own, box, spread in zip(found, numbers, pixels, np.round(spreads, 3).tolist(), strict=True):
            scores = self._scores(item, at, own, quantisation.bins)
            score = scores[settings.score]
            points = None
            if item.kind != "bbox_2d":
                points = quantisation.decode(self.value[own].reshape(-1, 2), self.size)
            boxes.append(
                Box(
                    label=item.desc,
                    box=tuple(box),
                    bins=bounds(item.bins),
                    score=short(settings.calibration.apply(score) if settings.calibration else score),
                    scores={name: short(value) for name, value in scores.items()},
                    spread=tuple(spread),
                    **({} if points is None else shaped(item.kind, points)),
                )
            )
        return boxes

    def _scores(self, found: AnswerObject, at: Sequence[int], numbers: Sequence[int], bins: int) -> dict[str, float]:
        log_probability = self.log_probability
        return scores_of(
            Evidence(
                description=[log_probability[place] for place in self._tokens(found.desc_span)],
                coordinates=[log_probability[place] for place in at],
                entropy=[self.entropy[number] for number in numbers],
                log_mass=[self.log_mass[number] for number in numbers],
                log_near=[self.log_near[number] for number in numbers],
                bins=bins,
            )
        )

    def _tokens(self, span: tuple[int, int]) -> range:
        """The tokens that have a part in some characters: neither start nor stop falls from one token to the next."""
        return range(bisect_right(self.stop, span[0]), bisect_left(self.start, span[1]))


def shaped(kind: str, pixels: Array) -> dict[str, Any]:
    """What a `Box` says of a geometry beside the box around it, which of a box is nothing. pixels: x, y, x, y ..."""
    return {} if kind == "bbox_2d" else {"kind": kind, "points": np.round(pixels, 6).ravel().tolist()}


def corners(values: Array, kind: str) -> tuple[Array, Array]:
    """Which of the coordinates x, y, x, y ... bound the geometry, and x1, y1, x2, y2 with x1 <= x2, y1 <= y2.

    The written corners are in order; their expectations need not be, and are then both put at the first corner's.
    """
    if kind == "bbox_2d":
        low = values[:2]
        return np.arange(4), np.concatenate([low, np.maximum(low, values[2:])])
    x, y = values[::2], values[1::2]
    pick = np.array([2 * x.argmin(), 2 * y.argmin() + 1, 2 * x.argmax(), 2 * y.argmax() + 1])
    return pick, values[pick]


def four(values: Array, digits: int) -> tuple[float, float, float, float]:
    a, b, c, d = np.round(values, digits).tolist()
    return a, b, c, d


def short(value: float) -> float:
    return float(f"{value:.6g}")


def with_question(row: Row, truth: TruthImage) -> Row:
    """The row with what was asked, where the record asks a question of its own."""
    own = truth.task != "detect" or truth.question is not None
    return msgspec.structs.replace(row, question=truth.asked) if own else row


def mark_duplicates(boxes: Sequence[Box]) -> None:
    """Mark each box that an earlier one of its label equals or overlaps by DUPLICATE_IOU, or point that it equals."""
    alike: dict[str, list[Box]] = {}
    for box in boxes:
        alike.setdefault(box.label, []).append(box)
    for group in alike.values():
        corners = np.array([box.box for box in group])
        for first in range(1, len(group), _LATER):
            later, earlier = (part.ravel() for part in np.indices((min(_LATER, len(group) - first), len(group))))
            later += first
            keep = earlier < later
            later, earlier = later[keep], earlier[keep]
            near = overlaps(corners[earlier], np.zeros(len(later), dtype=bool), corners[later])
            same = (corners[earlier] == corners[later]).all(1)  # also of boxes without area
            alike_at = np.flatnonzero((near >= DUPLICATE_IOU) | same)
            for own, other in zip(later[alike_at].tolist(), earlier[alike_at].tolist(), strict=True):
                group[own].duplicate = group[own].duplicate or _are_alike(group[other], group[own])


def _are_alike(a: Box, b: Box) -> bool:
    """Whether two whose boxes are alike are so themselves: the bars of an X have one box."""
    if a.outline is None or b.outline is None:
        return (a.kind == "point") is (b.kind == "point")
    own, other, both = areas(*(np.array(item.outline).reshape(-1, 2) for item in (a, b)))
    return both >= DUPLICATE_IOU * (own + other - both)
