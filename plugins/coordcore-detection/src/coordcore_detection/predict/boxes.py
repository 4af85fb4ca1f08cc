"""From the recorded generation of one answer to its row: boxes in pixels, scores, duplicates. Torch-free."""

from __future__ import annotations

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
    answer = parse_answer(text, form, coords=coord_format)
    reader = _Reader(truth, log_probability, coordinate, coords, np.array(complete, dtype=np.int64))
    boxes: list[Box] = []
    unread = list(answer.unread)
    for found in answer.objects[: settings.max_objects]:  # a free answer ends a token late
        box = reader.box(found, settings, quantisation)
        if box is None:
            unread.append(Unread(at=f"{found.at}.{found.kind}", reason="coord tokens spelled out in other tokens"))
        else:
            boxes.append(box)
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
    """Boxes of one answer, with what was recorded at the tokens that wrote them."""

    def __init__(
        self, truth: TruthImage, log_probability: Array, coordinate: Array, coords: Coords, complete: Array
    ) -> None:
        self.size = np.array([truth.width, truth.height], dtype=np.float64)
        self.log_probability = log_probability
        self.coordinate = coordinate
        self.coords = coords
        # Each token's characters; a piece of one belongs to the character it is a piece of.
        self.start = np.concatenate([[0], complete[:-1]]) if len(complete) else complete
        self.stop = np.maximum(complete, self.start + 1)

    def box(self, found: AnswerObject, settings: PredictSettings, quantisation: Quantisation) -> Box | None:
        written = [self._tokens(span) for span in found.coord_spans]
        at = np.array([place for places in written for place in places if self.coordinate[place] >= 0], dtype=np.int64)
        if len(at) != len(found.bins):
            return None
        rows = self.coordinate[at]
        scores = scores_of(
            Evidence(
                description=self.log_probability[self._tokens(found.desc_span)].tolist(),
                coordinates=self.log_probability[at].tolist(),
                entropy=self.coords.entropy[rows].tolist(),
                log_mass=self.coords.log_mass[rows].tolist(),
                log_near=self.coords.log_near[rows].tolist(),
                bins=quantisation.bins,
            )
        )
        score = scores[settings.score]
        pick, values = corners(self.coords.value[rows], found.kind)
        pixels = quantisation.decode(values.reshape(2, 2), self.size).ravel()
        points = pixels
        if found.kind != "bbox_2d":
            points = quantisation.decode(self.coords.value[rows].reshape(-1, 2), self.size)
        return Box(
            label=found.desc,
            box=four(pixels, 6),
            bins=bounds(found.bins),
            score=short(settings.calibration.apply(score) if settings.calibration else score),
            scores={name: short(value) for name, value in scores.items()},
            spread=four(self.coords.spread[rows][pick], 3),
            **shaped(found.kind, points),
        )

    def _tokens(self, span: tuple[int, int]) -> Array:
        return np.flatnonzero((self.start < span[1]) & (self.stop > span[0]))


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
        no_crowd = np.zeros(len(group), dtype=bool)
        for index, box in enumerate(group[1:], start=1):
            earlier = corners[:index]
            near = overlaps(earlier, no_crowd[:index], np.broadcast_to(corners[index], earlier.shape))
            same = (earlier == corners[index]).all(1)  # also of boxes without area
            alike_at = np.flatnonzero((near >= DUPLICATE_IOU) | same)
            box.duplicate = any(_are_alike(group[other], box) for other in alike_at)


def _are_alike(a: Box, b: Box) -> bool:
    """Whether two whose boxes are alike are so themselves: the bars of an X have one box."""
    if a.outline is None or b.outline is None:
        return (a.kind == "point") is (b.kind == "point")
    own, other, both = areas(*(np.array(item.outline).reshape(-1, 2) for item in (a, b)))
    return both >= DUPLICATE_IOU * (own + other - both)
