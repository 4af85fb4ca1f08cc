"""Ground truth and predictions drawn on the best, the worst and some random images. Torch-free."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from coordcore import InputError
from coordcore_detection.evaluate.evaluation import Evaluated
from coordcore_detection.evaluate.matching import Floats, Ints
from coordcore_detection.evaluate.polygons import holds
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.predictions import Box
from coordcore_detection.report.charts import ORANGE, SKY
from coordcore_detection.report.page import Group, Picture, short

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

EACH = 4
"""Images of each kind."""

_SIDE = 480
_LINES = 8  # objects told of below a picture
_MARKED = 30  # objects of one picture with a number; more would cover it
_DARK = "#202020"

Shape = Floats
"""[k, 2] corners of a box or an outline, in pixels; of a point itself."""


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
    """[I]: sum of the IoUs of an image's pairs of equal label, over its true or predicted objects, whichever are more.

    Outlines overlap where the truth has any, boxes elsewhere. A point counts as 1 where it finds a true one or, in an
    image without, lies in a true region. NaN for an image without objects. Boxes in crowd regions, and these, do not
    count.
    """
    detail = evaluated.result.detail
    count = len(detail.images)
    matches = evaluated.by_shape[0]
    judged = (matches.iou > 0) | (matches.in_crowd < 0.5)
    true = np.bincount(evaluated.truth.image[~evaluated.crowd], minlength=count)
    predicted = np.bincount(evaluated.predicted.image[judged], minlength=count)
    shared = np.bincount(evaluated.predicted.image, weights=matches.iou, minlength=count)
    if detail.points:
        points = {name: np.array(values) for name, values in detail.points.items()}
        shared = shared + np.where(points["true"] > 0, points["right"], points["inside"])
        true, predicted = true + points["true"], predicted + points["predicted"]
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
    row = evaluated.answers[image]
    points = [box for box in row.boxes if box.kind == "point"] if row is not None else []
    true = [truth.outlines.get(index, _corners(box)) for index, box in enumerate(truth.boxes)]
    true += [np.array([[x, y]]) for _, x, y in truth.points]
    true += [_corners(box) for _, box in truth.targets]
    predicted = [
        _outline(box, evaluated.predicted.boxes[index])
        for index, box in zip(boxes, row.regions if row else (), strict=True)
    ]
    predicted += [np.array([box.box[:2]]) for box in points]
    lines, told = _told(evaluated, boxes, image), ""
    lines += [f"{number}: {_told_point(box, truth)}" for number, box in enumerate(points, start=len(boxes) + 1)]
    try:
        canvas = _sized(truth.open())
    except InputError as error:
        canvas = _sized(_blank(truth))
        told = f" ({error})"
    scale = np.array(canvas.size) / (truth.width, truth.height)
    _draw(canvas, [shape * scale for shape in true], [shape * scale for shape in predicted])
    png, jpeg = io.BytesIO(), io.BytesIO()
    canvas.save(png, format="PNG")
    canvas.save(jpeg, format="JPEG", quality=82)
    noun = "objects" if points or truth.points or truth.outlines else "boxes"
    return Picture(
        name=name,
        alt=f"{truth.key} with {len(true)} true and {len(predicted)} predicted {noun}",
        caption=f"{truth.key}, {truth.width} x {truth.height} px{told}",
        lines=[*lines[:_LINES], *([f"and {len(lines) - _LINES} more"] if len(lines) > _LINES else [])],
        png=png.getvalue(),
        jpeg=jpeg.getvalue(),
    )


def _corners(box: Floats) -> Shape:
    return box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2)


def _outline(box: Box, around: Floats) -> Shape:
    """What was predicted, where it can be drawn; what was counted of it elsewhere."""
    outline = np.array(box.outline or [])
    return outline.reshape(-1, 2) if len(outline) and np.isfinite(outline).all() else _corners(around)


def _told(evaluated: Evaluated, boxes: Ints, image: int) -> list[str]:
    """Each predicted box or outline in words, by falling score, and the true ones that none of them found."""
    told = []
    by_score = boxes[np.argsort(-evaluated.scores[boxes], kind="stable")]
    number = {int(box): place for place, box in enumerate(boxes, start=1)}
    for box in by_score.tolist():
        name = short(evaluated.labels[evaluated.predicted.label[box]])
        told.append(f"{number[box]}: {name}, {_rated(evaluated.result.detail.score[box])}, {_fate(evaluated, box)}")
    free = np.flatnonzero((evaluated.truth.image == image) & ~evaluated.crowd)
    missed = np.setdiff1d(free, evaluated.by_shape[0].pair[boxes])
    return told + [f"missed: {short(evaluated.labels[evaluated.truth.label[item]])}" for item in missed]


def _rated(score: float | None) -> str:
    return "no score" if score is None or np.isnan(score) else f"score {score:.2f}"


def _told_point(point: Box, truth: TruthImage) -> str:
    """A predicted point in words: how far the nearest true one is or, where there is none, in what it lies."""
    x, y = point.box[:2]
    said = f"{short(point.label)}, {_rated(point.score)}"
    if truth.points:
        distance, label = min((float(np.hypot(px - x, py - y)), label) for label, px, py in truth.points)
        return f"{said}, {distance:.1f} px from {short(label)}"
    within = [label for label, box in truth.targets if holds(_corners(box), x, y)] + [
        label
        for index, label in enumerate(truth.labels)
        if holds(truth.outlines.get(index, _corners(truth.boxes[index])), x, y)
    ]
    return f"{said}, in {short(within[0])}" if within else f"{said}, in nothing true"


def _fate(evaluated: Evaluated, box: int) -> str:
    by_label, agnostic = evaluated.by_shape
    if by_label.iou[box] > 0:
        return f"IoU {by_label.iou[box]:.2f}"
    if by_label.in_crowd[box] >= 0.5:
        return "in a crowd region, or of a label that nobody looked for here"
    other = int(agnostic.pair[box])
    if other >= 0:
        truth = short(evaluated.labels[evaluated.truth.label[other]])
        return f"IoU {agnostic.iou[box]:.2f} with {truth}"
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


def _draw(canvas: Image.Image, truth: Sequence[Shape], predicted: Sequence[Shape]) -> None:
    """True shapes dashed, predicted ones solid and with their numbers; dark beside bright, to be seen on any picture.

    Of points, true ones are rings and predicted ones dots, which fit into these.
    """
    from PIL import ImageDraw

    pen = ImageDraw.Draw(canvas)
    truth, predicted = ([_drawable(shape) for shape in shapes] for shapes in (truth, predicted))
    for shape in predicted:
        if len(shape) > 1:
            _lines(pen, [*shape, shape[0]], ORANGE)
        else:
            _circle(pen, shape[0], 4, fill=ORANGE, outline=_DARK)
    for shape in truth:
        if len(shape) > 1:
            _dashed(pen, shape, SKY)
        else:
            _circle(pen, shape[0], 9, outline=_DARK, width=4)
            _circle(pen, shape[0], 8, outline=SKY, width=2)
    for number, shape in enumerate(predicted[:_MARKED], start=1):
        _mark(pen, shape, str(number))


def _drawable(shape: Shape) -> Shape:
    """Whole pixels, not far outside; what has corners and hardly any extent is drawn two pixels wide."""
    shape = np.clip(shape, -_SIDE, 2 * _SIDE).round()
    least, most = shape.min(0), shape.max(0)
    flat = len(shape) > 1 and (most < least + 2).any()
    return _corners(np.concatenate([least, np.maximum(most, least + 2)])) if flat else shape


def _lines(pen: ImageDraw.ImageDraw, places: Sequence[Floats], colour: str) -> None:
    ends = [(float(x), float(y)) for x, y in places]
    pen.line(ends, fill=_DARK, width=4)
    pen.line(ends, fill=colour, width=2)


def _circle(pen: ImageDraw.ImageDraw, centre: Floats, radius: int, **how: Any) -> None:
    x, y = centre.tolist()
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), **how)


def _dashed(pen: ImageDraw.ImageDraw, shape: Shape, colour: str, dash: int = 8) -> None:
    for start, stop in zip(shape, np.roll(shape, -1, axis=0), strict=True):
        length = float(np.hypot(*(stop - start)))
        direction = (stop - start) / max(length, 1.0)
        for at in np.arange(0, length, 2 * dash):  # a predicted shape below shows in the gaps
            _lines(pen, [start + at * direction, start + min(at + dash, length) * direction], colour)


def _mark(pen: ImageDraw.ImageDraw, shape: Shape, text: str) -> None:
    """The number, in the upper left corner or beside the point."""
    from PIL import ImageFont

    font = ImageFont.load_default(12)
    x, y = shape[shape.sum(1).argmin()] + (0 if len(shape) > 1 else 7)
    width = pen.textlength(text, font=font) + 6
    pen.rectangle((x, y, x + width, y + 15), fill=ORANGE)
    pen.text((x + 3, y + 1), text, fill=_DARK, font=font)
