"""The figures of each task by its own measure: phrases, named categories, texts. Torch-free."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from coordcore.records.answers import answered
from coordcore.records.geometry import overlaps
from coordcore.tasks import TASKS
from coordcore_detection.evaluate.matching import Bools, Floats
from coordcore_detection.evaluate.radius import Radius
from coordcore_detection.evaluate.synonyms import Synonyms, names
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.predictions import Row

if TYPE_CHECKING:
    from coordcore_detection.evaluate.evaluation import Evaluated

Figures = dict[str, float | None]

AT = (0.5, 0.7, 0.9)
"""The IoU from which the box of a phrase is right: RefCOCO's, and two stricter ones."""

MEASURES = {
    "detect": "as the whole",
    "named": "as the whole, on the categories asked for; absent_found: absent categories of which a box was found, but "
    "for answers of which nothing could be read",
    "point": "the point of highest score, right within the radius of a true one or inside a true box, edges included, "
    "whatever the labels; a phrase of which nothing is there is right when the answer could be read and says nothing",
    "refer": "the box of highest score against the true box that it overlaps most, boxes around polygons and quads, "
    "whatever the labels; a phrase of which nothing is there is right when the answer could be read and says nothing, "
    "and has no IoU",
    "region": "text equal but for blanks and case; word_EM and word_F1: SQuAD's exact match and F1, without case, "
    "ASCII punctuation, a, an and the",
    "caption": "as region",
    "chat": "as region",
}
"""What a contract says of the figures of a task."""

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_OF_POINTS = ("agnostic_point_F1", "agnostic_point_distance")
_AS_THE_WHOLE = ("AP", "AP50", "F1", "F1_50", "precision_50", "recall_50", "mean_iou")


def figures(
    task: str,
    evaluated: Evaluated,
    images: Sequence[TruthImage],
    rows: Mapping[str, Row],
    synonyms: Synonyms,
    radius: Radius,
) -> Figures:
    """The figures of one task. images: of this task alone, in any order; `evaluated`: what was measured on them.

    rows: the answers by key. radius: of points. None where the truth gives no value.
    """
    whole: Figures = {"records": float(len(images))}
    whole |= {name: evaluated.result.metrics[name] for name in _AS_THE_WHOLE}
    if TASKS[task].is_text:
        return _texts([(image.answer, rows[image.key].text if image.key in rows else "") for image in images])
    if task == "refer":
        return _phrases(evaluated, images, rows)
    if task == "point":
        found = {name: evaluated.result.metrics.get(name) for name in _OF_POINTS}
        return _pointed(images, rows, radius) | found
    if task == "named":
        return whole | _absent(images, rows, names(synonyms))
    return whole


def _phrases(evaluated: Evaluated, images: Sequence[TruthImage], rows: Mapping[str, Row]) -> Figures:
    count = len(evaluated.place)
    real = np.flatnonzero(~evaluated.crowd)
    there: Bools = np.bincount(evaluated.truth.image[real], minlength=count) > 0
    keys = [images[place].key for place in evaluated.place]
    nothing: Bools = np.array([_says_nothing(rows.get(key)) for key in keys])
    iou: Floats = np.zeros(count)
    order = np.lexsort((-evaluated.scores, evaluated.predicted.image))  # stable: of equal scores, the first said
    asked, first = np.unique(evaluated.predicted.image[order], return_index=True)
    for image, best in zip(asked.tolist(), order[first].tolist(), strict=True):
        mine = real[evaluated.truth.image[real] == image]
        box = np.broadcast_to(evaluated.predicted.boxes[best], (len(mine), 4))
        iou[image] = overlaps(evaluated.truth.boxes[mine], np.zeros(len(mine), dtype=bool), box).max(initial=0.0)
    right = {f"accuracy_{round(100 * at)}": np.where(there, iou >= at, nothing) for at in AT}
    return {
        "records": float(count),
        **{name: float(values.mean()) for name, values in right.items()},
        "found_50": _mean(iou[there] >= AT[0]),
        "mean_iou": _mean(iou[there]),
        "absent": float((~there).sum()),
        "absent_right": _mean(nothing[~there]),
    }


def _says_nothing(row: Row | None) -> bool:
    """Whether an answer was read, to its end, and names nothing.

    What a model says before or after its list, such as a thought, is passed over and changes nothing.
    """
    if row is None or row.boxes or row.stopped != "end":
        return False
    return all(part.at in ("before", "after") for part in row.unread)


def _pointed(images: Sequence[TruthImage], rows: Mapping[str, Row], radius: Radius) -> Figures:
    right: list[bool] = []
    for image in images:
        row = rows.get(image.key)
        said = [box for box in row.boxes if box.kind == "point"] if row is not None else []
        best = max(said, key=lambda box: -math.inf if math.isnan(box.score) else box.score, default=None)
        there = bool(image.points or image.targets)
        if best is None or not there:
            right.append(_says_nothing(row) and not there)
            continue
        x, y = best.box[:2]
        nearest = min((math.dist(point[1:], (x, y)) for point in image.points), default=math.inf)
        inside = any(x1 <= x <= x2 and y1 <= y <= y2 for _, (x1, y1, x2, y2) in image.targets)
        right.append(inside or nearest <= radius.of((image.width, image.height)))
    absent = [item for item, image in zip(right, images, strict=True) if not image.points and not image.targets]
    return {
        "records": float(len(images)),
        "hit_rate": sum(right) / len(right),
        "absent": float(len(absent)),
        "absent_right": sum(absent) / len(absent) if absent else None,
    }


def _absent(images: Sequence[TruthImage], rows: Mapping[str, Row], meant: Mapping[str, str]) -> Figures:
    """How often a category that was asked for, and is not there, was found; in answers of which anything was read."""
    asked = found = 0
    for image in images:
        row = rows.get(image.key)
        if row is None or not (row.boxes or _says_nothing(row)):
            continue
        shown = [*image.labels, *(label for label, _, _ in image.points)]
        there, absent = ({meant.get(label, label) for label in labels} for labels in (shown, image.categories))
        said = {meant.get(box.label, box.label) for box in row.boxes}
        asked += len(absent - there)
        found += len((absent - there) & said)
    return {"absent": float(asked), "absent_found": found / asked if asked else None}


def _texts(pairs: Sequence[tuple[str, str]]) -> Figures:
    """pairs: the text that was to be said, and the one that was."""
    texts = [(_answer(true), _answer(said)) for true, said in pairs]
    equal = [true.casefold().split() == said.casefold().split() for true, said in texts]
    words = [(_words(true), _words(said)) for true, said in texts]
    return {
        "records": float(len(pairs)),
        "equal": sum(equal) / len(pairs),
        "word_EM": sum(true == said for true, said in words) / len(pairs),
        "word_F1": sum(_f1(true, said) for true, said in words) / len(pairs),
    }


def _answer(text: str) -> str:
    """A text without the thought before it."""
    begin, end = answered(text)
    return text[begin:end]


def _words(text: str) -> list[str]:
    """Those of a text as SQuAD's evaluation (v2.0) has them: lower case, without ASCII's punctuation and a, an, the.

    As there, punctuation goes without a blank in its place (`T-shirt` is `tshirt`), other scripts' stays, and a text
    without blanks, as of Chinese, is one word.
    """
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _f1(true: Sequence[str], said: Sequence[str]) -> float:
    """Of words, each as often as it stands there. Where one has none: 1 if both have none, else 0."""
    if not (true and said):
        return float(true == said)
    shared = sum((Counter(true) & Counter(said)).values())
    return 2 * shared / (len(true) + len(said))


def _mean(values: Floats | Bools) -> float | None:
    return float(values.mean()) if len(values) else None


def by_task(
    images: Sequence[TruthImage],
    rows: Sequence[Row],
    synonyms: Synonyms,
    radius: str,
    measure: Callable[[Sequence[TruthImage], Sequence[Row]], Evaluated],
) -> dict[str, Figures]:
    """Task -> figures, where any image asks for another than "detect". radius: of points. measure: evaluates images and
    their rows."""
    found: dict[str, Figures] = {}
    if {image.task for image in images} <= {"detect"}:
        return found
    for task in TASKS:
        mine = [image for image in images if image.task == task]
        if mine:
            keys = {item.key for item in mine}
            answers = [row for row in rows if row.image in keys]
            evaluated = measure(mine, answers)
            found[task] = figures(
                task, evaluated, mine, {row.image: row for row in answers}, synonyms, Radius.read(radius)
            )
    return found
