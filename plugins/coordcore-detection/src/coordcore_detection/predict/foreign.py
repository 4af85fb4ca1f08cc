"""Answers of other tools as predictions: joined to their images, their numbers read as declared. Torch-free."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from sys import float_info
from typing import Any

import attrs
import numpy as np

from coordcore.coords import DEFAULT_COORDS, PRESETS, CoordFormat
from coordcore.errors import InputError
from coordcore.quantisation import DEFAULT_QUANTISATION, QUANTISATIONS, Quantisation, quantisation
from coordcore.records.answers import COORDJSON, AnswerObject, Format, Unread, parse_answer
from coordcore.records.geometry import bounds
from coordcore_detection.evaluate.joining import Join
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.answer_files import Given
from coordcore_detection.predict.boxes import mark_duplicates, shaped
from coordcore_detection.predict.predictions import VERSION, Box, Header, Row

Array = np.ndarray[Any, np.dtype[np.float64]]

SPACES = ("pixel", "norm1")
"""What numbers in answers can be beside those of a quantisation: pixels of the upright image, fractions of it."""


_TOKEN = "|".join(coords.pattern() for coords in (DEFAULT_COORDS, *(coords for coords, _ in PRESETS.values())))
_LABELLED = re.compile(rf"(?:^|[^<>\[\],\s])\s*(?:{_TOKEN})\s*(?:{_TOKEN})")
"""Coord tokens behind a label, or in front of one, as formats have them that are no lists."""

_UNLISTED = "labels and coord tokens in no list of objects: --checkpoint says their format"


def require_numbers(numbers: str) -> None:
    """Raise InputError unless it is one of SPACES, or names a quantisation."""
    try:
        _convention(numbers)
    except InputError as error:
        known = ", ".join((*SPACES, *QUANTISATIONS))
        raise InputError(
            f"--numbers: {numbers!r} is none of {known}, nor nearest_N or floor_N, N being the last bin"
        ) from error


@attrs.frozen(kw_only=True)
class Written:
    """How answers are written.

    convention: what coord tokens are bins of, and plain numbers where `numbers` is not of SPACES. coords: the tokens.
    numbers: what plain numbers were said to be. checkpoint, form: the folder that says all this, and its format; None
    where none does: then lists in JSON are read, and boxes in tags.
    """

    convention: Quantisation
    coords: CoordFormat
    numbers: str | None = None
    checkpoint: Path | None = None
    form: Format | None = None

    @classmethod
    def said(cls, numbers: str | None) -> Written:
        """numbers: one of SPACES, or the name of a quantisation; None where answers hold coord tokens only.

        Raises InputError as `require_numbers`.
        """
        if numbers is not None:
            require_numbers(numbers)
        convention = _convention(numbers)
        return cls(convention=convention, coords=_coords(convention.bins), numbers=numbers)


def header(path: Path, written: Written) -> Header:
    """The contract of the answers in `path`."""
    form, coords = written.form, None if written.form is None else written.coords
    return Header(
        predictions=VERSION,
        checkpoint=str(written.checkpoint or path),
        quantisation=written.convention.as_dict(),
        coords=None if coords in (None, DEFAULT_COORDS) else attrs.asdict(coords),
        answers=None if form in (None, COORDJSON) else form.as_dict(),
        decoding={"answers": "text of another tool", "numbers": written.numbers},
        score="none",
    )


def _convention(numbers: str | None) -> Quantisation:
    """That of bins, and so of coord tokens, also where plain numbers are none."""
    return DEFAULT_QUANTISATION if numbers in (None, *SPACES) else quantisation(numbers)


@lru_cache(maxsize=8)
def _coords(bins: int) -> CoordFormat:
    """Coord tokens of so many bins; the usual ones where there cannot be as many tokens."""
    try:
        return CoordFormat(bins=bins)
    except ValueError:
        return DEFAULT_COORDS


def rows(answers: Iterable[Given], truth: Sequence[TruthImage], written: Written) -> list[Row]:
    """One row for each answer; boxes have no score. An image that the truth does not have keeps the answer's name.

    Raises InputError for plain numbers that `written` does not explain, for a name that several images have, and for
    numbers of answers that are no ids of images.
    """
    join = Join([(image.key, image.id) for image in truth])
    placed = [(given, join.place(given)) for given in answers]
    _require_ids(placed)
    found: list[Row] = []
    plain: list[float] = []
    for given, index in placed:
        image = truth[index] if index is not None else None
        name = image.key if image is not None else (given.names or given.ids)[0]
        width, height = (image.width, image.height) if image is not None else (1, 1)
        in_text = image is not None and image.is_text
        boxes, unread = ([], []) if in_text else _boxes(given, width, height, written, plain)
        stopped = "length" if given.is_cut else "end"
        found.append(
            Row(
                image=name,
                width=width,
                height=height,
                text=given.text or "",
                boxes=boxes,
                unread=unread,
                stopped=stopped,
            )
        )
    if written.numbers not in (None, "norm1"):
        _require_no_fractions(str(written.numbers), plain)
    return found


def _require_no_fractions(numbers: str, values: Sequence[float]) -> None:
    if any(value % 1 for value in values) and all(0 <= value <= 1 for value in values):
        raise InputError(
            f"--numbers: {numbers}, but all numbers of the answers lie in 0..1, up to {max(values):g}; "
            "say --numbers norm1 if they are fractions of the image"
        )


def _require_ids(placed: Sequence[tuple[Given, int | None]]) -> None:
    """Raise InputError where ids only count the answers, from 0 or 1, and some find no image: all may be of others."""
    if any(given.names for given, _ in placed) or all(index is not None for _, index in placed):
        return
    counted = [str(number) for number in range(len(placed) + 1)]
    ids = [given.ids[0] for given, _ in placed]
    if len(ids) > 1 and ids in (counted[:-1], counted[1:]):
        raise InputError(
            f"{placed[0][0].at}: the ids {ids[0]} to {ids[-1]} count the answers, and not all are ids of images "
            "(metadata.image_id of the records); write the image's path, as the records have it, beside each answer"
        )


def _boxes(
    given: Given, width: int, height: int, written: Written, plain: list[float]
) -> tuple[list[Box], list[Unread]]:
    """The boxes of an answer, and what cannot be read of it; its plain numbers are added to `plain`."""
    if given.text is None:
        return [], [Unread(at="", reason=given.missing)]
    form = written.form
    answer = parse_answer(given.text, form or COORDJSON, numbers=form is None, coords=written.coords, cut=given.is_cut)
    unread = list(answer.unread)
    if form is None and not answer.objects and any(not item.at for item in unread) and _LABELLED.search(given.text):
        unread = [Unread(at="", reason=_UNLISTED)]
    boxes: list[Box] = []
    for item in answer.objects:
        if item.numbers and form is None and written.numbers is None:
            raise InputError(
                f"{given.at}: holds plain numbers ({', '.join(f'{value:g}' for value in item.numbers)}), and nothing "
                "says what they are; say it with --numbers: qwen_1000 (0..1000, as Qwen3-VL writes), pixel, norm1 "
                f"(0..1), {', '.join(name for name in QUANTISATIONS if name != 'qwen_1000')}, nearest_255 ..."
            )
        plain += item.numbers or ()
        values = item.numbers or item.bins
        space = written.numbers if item.numbers and written.numbers in SPACES else None
        reason = _beyond(values, space, written.convention)
        if reason:
            hint = "does the model write pixels?" if form else "are these pixels (--numbers pixel)?"
            reason += f"; {hint}" if item.numbers else ""
            unread.append(Unread(at=f"{item.at}.{item.kind}", reason=reason))
        else:
            boxes.append(_box(item, values, width, height, space, written.convention))
    mark_duplicates(boxes)
    return boxes, unread


def _beyond(values: Sequence[float], space: str | None, convention: Quantisation) -> str:
    """Why numbers cannot be what they are said to be, of a space or else a convention; "" where they can."""
    limit = {"pixel": float_info.max, "norm1": 1.0}.get(space or "", convention.decode_scale)
    wrong = [value for value in values if not (-limit if space == "pixel" else 0) <= value <= limit]
    return f"{wrong[0]:g} lies outside 0..{limit:g} of {space or convention.name}" if wrong else ""


def pixels_of(values: Array, convention: Quantisation, size: Array) -> Array:
    """The pixels of numbers in the thousandths, or whatever they are, of a convention. size: that of each one's axis.

    Unlike bins, numbers may say the image's last edge: 1000 in qwen_1000.
    """
    spans = np.maximum(size - convention.inset, 1.0)
    return np.minimum((values + convention.decode_shift) * spans / convention.decode_scale, size)


def _box(
    item: AnswerObject, values: Sequence[float], width: int, height: int, space: str | None, convention: Quantisation
) -> Box:
    points = np.array(values, dtype=np.float64).reshape(-1, 2)
    size = np.array([width, height], dtype=np.float64)
    if space == "norm1":
        points = points * size
    elif space != "pixel":
        points = pixels_of(points, convention, size)
    return box_at(item, values, points)


def box_at(item: AnswerObject, values: Sequence[float], points: Array) -> Box:
    """The box of an object, without a score. values: as its answer has them. points: [k, 2], the same in pixels."""
    found = np.round(points, 6).ravel().tolist()
    x1, y1, x2, y2 = bounds(values)
    bins = (math.floor(x1), math.floor(y1), math.floor(x2), math.floor(y2))
    return Box(label=item.desc, box=bounds(found), bins=bins, score=math.nan, **shaped(item.kind, points))
