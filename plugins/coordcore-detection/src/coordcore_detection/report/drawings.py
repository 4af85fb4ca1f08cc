"""Ground truth and predictions drawn on the best, the worst and some random images. Torch-free."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from coordcore import InputError
from coordcore_detection.evaluate.evaluation import Evaluated
from coordcore_detection.evaluate.matching import Floats, Ints
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.report.charts import ORANGE, SKY
from coordcore_detection.report.page import Group, Picture, short

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

EACH = 4
"""Images of each kind."""

_SIDE = 480
_LINES = 8  # boxes told of below a picture
_MARKED = 30  # boxes of one picture with a number; more would cover it
_DARK = "#202020"


def drawings(evaluated: Evaluated, truth: Sequence[TruthImage]) -> list[Group]:
    """Pictures of chosen images. truth: as it was given to the evaluation; only chosen images are opened."""
    groups = []
    for title, images in chosen(qualities(evaluated)).items():
        name = title.split()[0].lower()
        pictures = [
            _picture(f"{name}-{number}", evaluated, int(image), truth[evaluated.place[image]])
            for number, image in enumerate(images, start=1)
        ]
        groups.append(Group(title=title, pictures=pictures))
    return groups


def qualities(evaluated: Evaluated) -> Floats:
    """[I]: sum of the IoUs of an image's pairs of equal label, over its true or predicted boxes, whichever are more.

    NaN for an image with neither. Boxes in crowd regions, and these, do not count.
    """
    count = len(evaluated.result.detail.images)
    matches = evaluated.by_label
    judged = (matches.iou > 0) | (matches.in_crowd < 0.5)
    true = np.bincount(evaluated.truth.image[~evaluated.crowd], minlength=count)
    predicted = np.bincount(evaluated.predicted.image[judged], minlength=count)
    shared = np.bincount(evaluated.predicted.image, weights=matches.iou, minlength=count)
    most = np.maximum(true, predicted)
    result: Floats = np.divide(shared, most, out=np.full(count, np.nan), where=most > 0)
    return result


def chosen(quality: Floats, *, seed: int = 0) -> dict[str, Ints]:
    """Title -> indices of images: best first, worst first, and random ones of the others. None is there twice."""
    order = np.argsort(-quality, kind="stable")
    order = order[~np.isnan(quality[order])]
    each = min(EACH, -(-len(order) // 3))
    best, rest = order[:each], order[each:]
    worst, others = rest[::-1][:each], rest[: max(0, len(rest) - each)]
    picked = np.random.default_rng(seed).permutation(others)[:each]
    return {"Best images": best, "Worst images": worst, "Random images": picked}


def _picture(name: str, evaluated: Evaluated, image: int, truth: TruthImage) -> Picture:
    boxes = np.flatnonzero(evaluated.predicted.image == image)
    lines, told = _told(evaluated, boxes, image), ""
    try:
        canvas = _sized(truth.open())
    except InputError as error:
        canvas = _sized(_blank(truth))
        told = f" ({error})"
    scale = np.array(canvas.size * 2) / (truth.width, truth.height, truth.width, truth.height)
    _draw(canvas, truth.boxes * scale, evaluated.predicted.boxes[boxes] * scale)
    png, jpeg = io.BytesIO(), io.BytesIO()
    canvas.save(png, format="PNG")
    canvas.save(jpeg, format="JPEG", quality=82)
    return Picture(
        name=name,
        alt=f"{truth.key} with {len(truth.boxes)} true and {len(boxes)} predicted boxes",
        caption=f"{truth.key}, {truth.width} x {truth.height} px{told}",
        lines=[*lines[:_LINES], *([f"and {len(lines) - _LINES} more"] if len(lines) > _LINES else [])],
        png=png.getvalue(),
        jpeg=jpeg.getvalue(),
    )


def _told(evaluated: Evaluated, boxes: Ints, image: int) -> list[str]:
    """Each predicted box in words, by falling score, and the true boxes that none of them found."""
    told = []
    by_score = boxes[np.argsort(-evaluated.scores[boxes], kind="stable")]
    number = {int(box): place for place, box in enumerate(boxes, start=1)}
    for box in by_score.tolist():
        name = short(evaluated.labels[evaluated.predicted.label[box]])
        score, iou = evaluated.result.detail.score[box], evaluated.by_label.iou[box]
        rated = "no score" if score is None else f"score {score:.2f}"
        told.append(f"{number[box]}: {name}, {rated}, {_fate(evaluated, box, float(iou))}")
    free = np.flatnonzero((evaluated.truth.image == image) & ~evaluated.crowd)
    missed = np.setdiff1d(free, evaluated.by_label.pair[boxes])
    return told + [f"missed: {short(evaluated.labels[evaluated.truth.label[item]])}" for item in missed]


def _fate(evaluated: Evaluated, box: int, iou: float) -> str:
    if iou > 0:
        return f"IoU {iou:.2f}"
    if evaluated.by_label.in_crowd[box] >= 0.5:
        return "in a crowd region, or of a label that nobody looked for here"
    other = int(evaluated.agnostic.pair[box])
    if other >= 0:
        truth = short(evaluated.labels[evaluated.truth.label[other]])
        return f"IoU {evaluated.agnostic.iou[box]:.2f} with {truth}"
    return "on no true box"


def _blank(truth: TruthImage) -> Image.Image:
    from PIL import Image

    scale = min(1.0, _SIDE / max(truth.width, truth.height))
    return Image.new("RGB", (max(1, round(truth.width * scale)), max(1, round(truth.height * scale))), "#c8c8c8")


def _sized(image: Image.Image) -> Image.Image:
    """The image at a size to look at. Small ones are magnified by a whole number, so that their pixels stay sharp."""
    from PIL import Image

    largest = max(image.size)
    small = largest * 2 <= _SIDE
    scale = _SIDE // largest if small else min(1.0, _SIDE / largest)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)


def _draw(canvas: Image.Image, truth: Floats, predicted: Floats) -> None:
    """True boxes dashed, predicted ones solid and with their numbers; dark beside bright, to be seen on any picture."""
    from PIL import ImageDraw

    pen = ImageDraw.Draw(canvas)
    for box in predicted:
        _rectangle(pen, box, ORANGE)
    for box in truth:
        _dashed(pen, box, SKY)
    for number, box in enumerate(predicted[:_MARKED], start=1):
        _mark(pen, box, str(number))


def _rectangle(pen: ImageDraw.ImageDraw, box: Any, colour: str) -> None:
    x1, y1, x2, y2 = _within(box)
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_DARK)
    pen.rectangle((x1, y1, x2, y2), outline=colour, width=2)


def _dashed(pen: ImageDraw.ImageDraw, box: Any, colour: str, dash: int = 8) -> None:
    x1, y1, x2, y2 = _within(box)
    for ends in ((x1, y1, x2, y1), (x2, y1, x2, y2), (x1, y2, x2, y2), (x1, y1, x1, y2)):
        start, stop = np.array(ends[:2]), np.array(ends[2:])
        length = float(np.abs(stop - start).max())
        direction = np.sign(stop - start)
        for at in np.arange(0, length, 2 * dash):  # a predicted box below shows in the gaps
            line = (*(start + at * direction), *(start + min(at + dash, length) * direction))
            pen.line(line, fill=_DARK, width=4)
            pen.line(line, fill=colour, width=2)


def _within(box: Any) -> tuple[int, int, int, int]:
    """Whole pixels, not far outside; a box without area is drawn two pixels wide."""
    x1, y1, x2, y2 = np.clip(box, -_SIDE, 2 * _SIDE).round().astype(int).tolist()
    return x1, y1, max(x2, x1 + 2), max(y2, y1 + 2)


def _mark(pen: ImageDraw.ImageDraw, box: Any, text: str) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(12)
    x1, y1, _, _ = _within(box)
    width = pen.textlength(text, font=font) + 6
    pen.rectangle((x1, y1, x1 + width, y1 + 15), fill=ORANGE)
    pen.text((x1 + 3, y1 + 1), text, fill=_DARK, font=font)
