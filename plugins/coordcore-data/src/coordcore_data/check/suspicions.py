"""The rules of `coordcore data check`: each looks at the numbers and says in one line what is likely wrong."""

from __future__ import annotations

import math
from typing import get_args

import attrs
import numpy as np

from coordcore.errors import shortened
from coordcore.quantisation import QUANTISATIONS
from coordcore.records.annotations import Space
from coordcore_data.check.conventions import contradicted
from coordcore_data.check.keypoints import of_keypoints
from coordcore_data.check.refused import refused
from coordcore_data.check.sample import Array, FileSizes, Sample, known, limits, ordered, valid
from coordcore_data.check.suspicion import Suspicion, nouns, percent
from coordcore_data.convert.core import BoxOrder

FEW = 10
"""Fewer boxes than this say nothing about a convention."""


@attrs.frozen(kw_only=True)
class Guess:
    """The space that the numbers fit, None when they fit several, and why."""

    space: Space | None
    why: str


def guess_space(sample: Sample) -> Guess:
    """What the numbers look like, for a file whose space nobody has said."""
    boxes = sample.boxes
    if not len(boxes):
        return Guess(space=None, why="there are no boxes")
    if sample.tokens:
        return Guess(space="bin", why="coordinates are coord tokens")
    if boxes.max() <= 1 and boxes.min() >= 0 and (boxes % 1).any():
        return Guess(space="norm1", why="all values lie in 0..1")
    if (boxes % 1).any():
        return Guess(space="pixel", why="values are fractions above 1, as bins never are")
    count = sample.spec.bins
    if boxes.max() > count:
        return Guess(space="pixel", why=f"values reach {boxes.max():g}, above the last bin {count - 1}")
    wide = (sample.sizes > 1.1 * count).any(1)
    if wide.sum() >= FEW:
        return Guess(space="bin", why=f"whole numbers up to {count}, though images are larger than that")
    best = max(fits(sample, "pixel").values())
    if best < 0.95:
        what = nouns(sample)
        why = f"whole numbers up to {count}, and as pixels no more than {percent(best)} of the {what} fit their image"
        return Guess(space="bin", why=why)
    return Guess(space=None, why=f"whole numbers below {count} that fit pixels and bins alike")


def fits(sample: Sample, space: Space) -> dict[BoxOrder, float]:
    """Order -> the share of boxes and points that are in order and inside their image when they are read so."""
    limit = limits(sample, space)
    slack = _slack(limit)
    return {order: float(valid(ordered(sample, order), limit, slack).mean()) for order in get_args(BoxOrder)}


def past_edge(sample: Sample, space: Space, order: BoxOrder) -> Array:
    """[n] bool: which boxes reach over the edge by more than rounding (a pixel in 500) explains."""
    limit = limits(sample, space)
    slack = _slack(limit)
    boxes = ordered(sample, order)
    return np.asarray(((boxes < -slack) | (boxes > limit + slack)).any(1))


def _slack(limit: Array) -> Array:
    return np.asarray(limit * 0.002)


def find(sample: Sample, space: Space, order: BoxOrder, files: FileSizes | None, declared: bool) -> list[Suspicion]:
    """Every suspicion, under the space and order that are declared or assumed; the gravest kinds first."""
    found: list[Suspicion | None] = [_no_box(sample), _unsaid(sample)]
    if len(sample.boxes) >= FEW:
        scale = _scale(sample, space) if declared or space == "bin" else None
        found.append(scale)
        turned = None if scale else _order(sample, space, order)
        found.append(turned)
        if not (scale or turned):
            found += [_reversed(sample, order), *_edges(sample, space, order), _unfilled(sample, space, order)]
        found += [_whole_image(sample, space, order), _inclusive(sample, space, order)]
    elif declared and len(sample.boxes):
        found += _edges(sample, space, order)
    found += [_flat(sample, order), _crossed(sample), _repeated(sample), _twice(sample), _conventions(sample)]
    found += [_unknown(sample), _contradicted(sample, order)] if space == "bin" else []
    found += of_keypoints(sample, order)
    if order == "xyxy":  # which is how records are read
        found += refused(sample, space)
    found += [*_files(files), *_broken(sample)]
    return [item for item in found if item is not None]


def _no_box(sample: Sample) -> Suspicion | None:
    asked = sample.records - sample.texts
    if len(sample.boxes) or not asked:
        return None
    text = f"not one of {asked} records has a box: a run learns that nothing is there, whatever the image"
    share = asked / sample.records
    return Suspicion(kind="no box", share=share, text=f"{text}; were the objects lost on the way?")


def _unsaid(sample: Sample) -> Suspicion | None:
    if not sample.unsaid:
        return None
    share = sample.unsaid / sample.records
    text = (
        f"{sample.unsaid} records ({percent(share)}) have crowd regions or points under metadata and no object: "
        "evaluation knows what not to count, training learns that nothing is there; leave them out of training"
    )
    return Suspicion(kind="unsaid", share=share, text=text)


def _scale(sample: Sample, space: Space) -> Suspicion | None:
    """Numbers that are in another space than the declared one."""
    boxes = sample.boxes
    high, fractions = boxes.max(), float((boxes % 1 != 0).mean())
    count = sample.spec.bins
    above = float((boxes > count - 1).mean())
    small = float(np.nanmin(sample.sizes)) if np.isfinite(sample.sizes).any() else math.nan
    if space == "bin":
        if high > count:
            text = f"{percent(above)} of the values are above {count - 1}, up to {high:g}: these are pixels, not bins"
            return Suspicion(kind="space", share=above, text=f"{text}; --space pixel")
        if high == count:
            seen = f"{count} occurs {int((boxes == count).sum())} times and nothing above it"
            text = f"{seen}: these are positions in 0..{count}, not bins 0..{count - 1}"
            return Suspicion(kind="space", share=above, text=f"{text}; divided by {count} they are norm1")
        if fractions:
            what = "norm1" if high <= 1 else "pixel"
            text = f"{percent(fractions)} of the values are no whole numbers, as bins are: --space {what}"
            return Suspicion(kind="space", share=fractions, text=text)
        return None
    if space == "norm1":
        beyond = float((boxes > 1).mean())
        if beyond > 0.01:
            pixels = max(fits(sample, "pixel").values()) >= 0.95
            what = "percent (0..100)" if high <= 100 else "pixels or bins"
            what += " or pixels" if high <= 100 and pixels and small <= 200 else ""
            text = f"{percent(beyond)} of the values are above 1, up to {high:g}: these are {what}, not fractions"
            return Suspicion(kind="space", share=beyond, text=text)
        return None
    if high <= 1:
        text = "no value is above 1: these are fractions, not pixels; --space norm1"
        return Suspicion(kind="space", share=1.0, text=text)
    if high <= 100 and small > 200 and fractions > 0.5:
        return Suspicion(kind="space", share=1.0, text="no value is above 100 on any image: these look like percent")
    best = max(fits(sample, "pixel").values())
    like = "bins; --space bin"
    if high == count:  # which is no bin
        like = f"positions in 0..{count}; divided by {count} they are norm1"
    if not fractions and high <= count and best < 0.95:
        text = f"whole numbers up to {high:g}, and {percent(1 - best)} of the {nouns(sample)} leave the image"
        return Suspicion(kind="space", share=1 - best, text=f"{text}: these look like {like}")
    if not fractions and high <= count and bool((sample.sizes > 1500).any(1).mean() > 0.5):
        text = f"whole numbers up to {high:g} on images of more than 1500 pixels: these look like {like}"
        return Suspicion(kind="space", share=1.0, text=text)
    return None


def _order(sample: Sample, space: Space, order: BoxOrder) -> Suspicion | None:
    """Boxes that make more sense in another order."""
    shares = fits(sample, space)
    reverse = _reversals(sample, order)
    past = float(past_edge(sample, space, order).mean())
    what = nouns(sample)
    seen = reverse or f"{percent(past)} of the {what} leave their image"
    best = max(shares, key=lambda item: (shares[item], item == order))
    if best == order or shares[best] < 0.95 or shares[best] - shares[order] < 0.005:
        return None
    text = (
        f"{seen}: this looks like {best} ({_NAMES[best]}), which fits {percent(shares[best])} of the {what} "
        f"where {order} fits {percent(shares[order])}; --boxes {best} shows it, and reads it in data convert"
    )
    return Suspicion(kind="order", share=1 - shares[order], text=text)


def _reversals(sample: Sample, order: BoxOrder) -> str:
    """How many boxes have their second corner before the first, "" for none."""
    boxes = ordered(sample, order)[sample.is_box]
    if not (boxes[:, :2] > boxes[:, 2:]).any():
        return ""
    reversed_x, reversed_y = (float((boxes[:, i + 2] < boxes[:, i]).mean()) for i in (0, 1))
    return f"{percent(reversed_x)} of the boxes have x2 < x1 and {percent(reversed_y)} y2 < y1"


def _reversed(sample: Sample, order: BoxOrder) -> Suspicion | None:
    seen = _reversals(sample, order)
    if not seen:
        return None
    boxes = ordered(sample, order)[sample.is_box]
    share = float((boxes[:, :2] > boxes[:, 2:]).any(1).mean())
    return Suspicion(kind="order", share=share, text=f"{seen}; no other order fits better: single mistakes")


_NAMES = {
    "xyxy": "two corners",
    "xywh": "x, y, width, height: COCO",
    "cxcywh": "centre, width, height: YOLO",
    "yxyx": "y first: Gemini, PaliGemma",
}


def _edges(sample: Sample, space: Space, order: BoxOrder) -> list[Suspicion | None]:
    """Of boxes and of points apart."""
    over = past_edge(sample, space, order)
    limit = limits(sample, space)
    boxes = ordered(sample, order)
    beyond = np.maximum(boxes - limit, -boxes) / limit
    found: list[Suspicion | None] = []
    for noun, these, cure in (
        ("boxes", ~sample.is_point, "drawn on another size, or to be clipped"),
        ("points", sample.is_point, "set on another size, or y first, or to be left out"),
    ):
        wrong = np.flatnonzero(over & these)
        if len(wrong):
            share = len(wrong) / int(these.sum())
            text = (
                f"{percent(share)} of the {noun} reach over the edge of their image, by up to "
                f"{percent(float(np.nanmax(beyond[wrong])))} of its size (first: {sample.where(wrong[0])}): {cure}"
            )
            found.append(Suspicion(kind="edge", share=share, text=text))
    return found


def _unfilled(sample: Sample, space: Space, order: BoxOrder) -> Suspicion | None:
    """Boxes of many images that all stay away from the right and lower edge were drawn on smaller images."""
    if len(np.unique(sample.owner)) < 50:
        return None
    reach = np.nanmax(ordered(sample, order)[:, 2:] / limits(sample, space)[:, 2:], axis=0)
    if not (reach < 0.8).all():
        return None
    what = "point" if sample.is_point.all() else "box"
    text = (
        f"no {what} of {len(sample.files)} images reaches beyond {percent(float(reach[0]))} of the width and "
        f"{percent(float(reach[1]))} of the height: drawn on smaller images, or the space is wrong"
    )
    return Suspicion(kind="unfilled", share=1.0, text=text)


def _whole_image(sample: Sample, space: Space, order: BoxOrder) -> Suspicion | None:
    limit = limits(sample, space)
    boxes = ordered(sample, order)
    slack = _slack(limit)
    near = (boxes[:, :2] <= slack[:, :2]).all(1) & (boxes[:, 2:] >= (limit - slack)[:, 2:]).all(1)
    share = float((near & ~sample.is_point).sum()) / max(len(boxes) - sample.points, 1)
    if share < 0.05:
        return None
    return Suspicion(kind="whole image", share=share, text=f"{percent(share)} of the boxes cover their whole image")


def _inclusive(sample: Sample, space: Space, order: BoxOrder) -> Suspicion | None:
    """Which whole numbers stand at the edges tells whether the last pixel is included, and where counting starts."""
    boxes, sizes = ordered(sample, order)[sample.is_box], sample.sizes[sample.is_box]
    if space != "pixel" or not len(boxes) or (boxes % 1).any():
        return None
    low, from_end = boxes[:, :2], sizes - boxes[:, 2:]
    zero, item, end, before = (int(hits.sum()) for hits in (low == 0, low == 1, from_end == 0, from_end == 1))
    enough = max(5.0, 0.005 * len(boxes))
    if not zero and item >= enough and end >= enough:
        text = (
            f"boxes start at 1 ({item} times) and never at 0, and end at the width or height ({end} times): "
            "1-based with the last pixel included (VOC); subtract 1 from x1 and y1"
        )
        return Suspicion(kind="inclusive", share=item / (2 * len(boxes)), text=text)
    if zero >= enough and not end and before >= enough:
        text = (
            f"boxes start at 0 ({zero} times) and end one before the width or height ({before} times), never at it: "
            "the last pixel is included; add 1 to x2 and y2"
        )
        return Suspicion(kind="inclusive", share=before / (2 * len(boxes)), text=text)
    return None


def _flat(sample: Sample, order: BoxOrder) -> Suspicion | None:
    boxes = ordered(sample, order)
    flat = int(((boxes[:, :2] == boxes[:, 2:]).any(1) & ~sample.is_point).sum())
    if not flat:
        return None
    share = flat / (len(boxes) - sample.points)
    return Suspicion(kind="no extent", share=share, text=f"{flat} boxes ({percent(share)}) have no width or no height")


def _crossed(sample: Sample) -> Suspicion | None:
    if not sample.crossed:
        return None
    text = (
        f"quads whose sides cross: {sample.crossed}; write their corners in order around the shape, and not row by row"
    )
    return Suspicion(kind="crossed", share=sample.crossed / len(sample.boxes), text=text)


def _repeated(sample: Sample) -> Suspicion | None:
    if not sample.repeated:
        return None
    share = sample.repeated / len(sample.boxes)
    one = "one" if sample.points else "a box"
    text = f"{sample.repeated} {nouns(sample)} ({percent(share)}) repeat {one} of the same image and description"
    return Suspicion(kind="repeated", share=share, text=text)


def _twice(sample: Sample) -> Suspicion | None:
    names = [name for name in sample.unasked if name]
    twice = len(names) - len(set(names))
    if not twice:
        return None
    text = f"{twice} records name an image that an earlier record has: its objects are spread over several answers"
    return Suspicion(kind="same image", share=twice / len(names), text=text)


def _conventions(sample: Sample) -> Suspicion | None:
    if len(sample.declared) < 2:
        return None
    names = ", ".join(f"{shortened(name, 80)} ({count} records)" for name, count in sorted(sample.declared.items()))
    text = f"records declare different quantisations: {names}; write them again from pixels with one"
    return Suspicion(kind="quantisation", share=1.0, text=text)


def _unknown(sample: Sample) -> Suspicion | None:
    """Conventions that nothing reads bins by: `coordcore check` refuses their records."""
    unknown = [name for name in sample.declared if known(name) is None]
    if not unknown:
        return None
    count = sum(sample.declared[name] for name in unknown)
    names = ", ".join(shortened(name, 80) for name in unknown[:3])
    text = f"{count} records declare a quantisation that is not known: {names}; known: {', '.join(QUANTISATIONS)}"
    return Suspicion(kind="quantisation", share=count / sample.records, text=text)


def _contradicted(sample: Sample, order: BoxOrder) -> Suspicion | None:
    found = contradicted(sample, order)
    if found is None:
        return None
    ours, others, share = found
    declared = "the declared" if sample.quantisation or ours.name in sample.declared else "the default"
    text = (
        f"{percent(share)} of the bins are none that {declared} {ours.name} gives to whole pixels, and all are such of "
        f"{' and '.join(others)}: say so, [coords] quantisation or --quantisation"
    )
    return Suspicion(kind="convention", share=share, text=text)


def _files(files: FileSizes | None) -> list[Suspicion | None]:
    if files is None:
        return []
    return [
        Suspicion(
            kind="image files",
            share=count / files.checked,
            text=f"{what}: {count} of {files.checked} records (e.g. {shortened(files.examples[what], 300)})",
        )
        for what, count in files.problems.items()
    ]


def _broken(sample: Sample) -> list[Suspicion | None]:
    return [
        Suspicion(
            kind="unreadable",
            share=count / max(sample.records, 1),
            text=f"{shortened(what, 300)}: {count} times (first: {shortened(sample.examples[what], 300)}); "
            "left out of everything else",
        )
        for what, count in sample.problems.items()
    ]
