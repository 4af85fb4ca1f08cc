"""Which predicted box belongs to which true one: by falling IoU, and by falling score as COCO does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from coordcore.records.geometry import overlaps
from coordcore_detection.evaluate.polygons import areas

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""COCO's: .50, .55 ... .95."""

MAX_DETECTIONS = 100
"""COCO scores the best hundred boxes of an image and label; `limit` is another number of them."""

LVIS_MAX_DETECTIONS = 300
"""LVIS scores the best three hundred boxes of an image, whatever their labels."""

AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e5**2)}
"""COCO's size classes, in square pixels: of a predicted box by its own area, of a true one by `Flat.areas`."""

_BITS = len(IOU_THRESHOLDS)
_ALL_SIZES = (1 << _BITS) - 1
_ALL = (1 << _BITS * (1 + len(AREAS))) - 1
_PAIRS_AT_ONCE = 1_000_000


@attrs.frozen(kw_only=True, eq=False)
class Flat:
    """The boxes of all images, one after another.

    image: [n] index of the image. label: [n] id of the label. boxes: [n, 4] x1, y1, x2, y2 in pixels.
    areas: [n] square pixels that decide the size classes, of the objects themselves; None takes the boxes' own.
    outlines: n times [k, 2] corners in pixels; where both sides have them, these are what overlaps, and not the boxes.
    """

    image: Ints
    label: Ints
    boxes: Floats
    areas: Floats | None = None
    outlines: Sequence[Floats] | None = None

    def __len__(self) -> int:
        return len(self.image)


@attrs.frozen(kw_only=True, eq=False)
class Matches:
    """What became of every predicted box ([n] each).

    pair, iou: the true box paired with it and their IoU, -1 and 0 without one. Pairs are made by falling IoU, each box
    in one pair at most: scores play no part, and the pairs at any IoU threshold are those whose IoU reaches it.
    in_crowd: the largest share of its area inside one crowd region; such a box is no mistake. 1 for a box that nobody
    judges: where not all objects of a label are marked, the whole image is like a crowd region of that label.
    found, ignored: masks by COCO's rule: boxes by falling score, each takes the best true box that is still free, else
    a crowd region or a true box of another size class, and is then ignored. Boxes past `limit` are ignored, and
    those of another size class, or that nobody judges, that find nothing. Bit i speaks of threshold i whatever
    the size, bit 10 a + i of the a-th of AREAS.
    place: among the boxes of the image (and label) by falling score, from 0. limit: of boxes of an image (and label).
    federated: whether by LVIS's rule, under which place and limit are those of the image whatever the labels.
    """

    pair: Ints
    iou: Floats
    in_crowd: Floats
    found: Ints
    ignored: Ints
    place: Ints
    limit: int
    federated: bool = False

    def of_all_sizes(self) -> tuple[Ints, Ints]:
        """`found` and `ignored` without the bits of size classes."""
        return self.found & _ALL_SIZES, self.ignored & _ALL_SIZES


def bits(masks: Ints, area: int = 0) -> Bools:
    """[n] masks as [n, 10] booleans, one column for each of IOU_THRESHOLDS. area: 0 for every size, else of AREAS."""
    flags: Bools = (masks[:, None] >> np.arange(area * _BITS, (area + 1) * _BITS)) & 1 == 1
    return flags


def in_areas(side: Flat) -> Bools:
    """[1 + areas, n]: whether the boxes are of every size, which they are, and of each of AREAS."""
    area = (side.boxes[:, 2:] - side.boxes[:, :2]).prod(1) if side.areas is None else side.areas
    return np.stack([np.ones(len(side), dtype=bool), *((low <= area) & (area <= high) for low, high in AREAS.values())])


def match(
    truth: Flat,
    crowd: Bools,
    predicted: Flat,
    scores: Floats,
    *,
    by_label: bool,
    limit: int = MAX_DETECTIONS,
    unjudged: Bools | None = None,
) -> Matches:
    """Match the boxes of each image, those of one label among themselves unless `by_label` is False.

    crowd: [m], of the true boxes. scores: [n], finite. The order of predicted boxes decides between equal scores.
    limit: how many boxes of an image (and label) count for AP, those of highest score. unjudged: [n], of predicted
    boxes: no mistakes, by LVIS's rule (Gupta et al., LVIS, 2019: federated); None where all labels are judged.
    """
    at, to, overlap = candidates(truth, crowd, predicted, by_label=by_label)
    on_crowd = crowd[to]
    in_crowd = np.zeros(len(predicted))
    np.maximum.at(in_crowd, at[on_crowd], overlap[on_crowd])
    pair, iou = _pair(at[~on_crowd], to[~on_crowd], overlap[~on_crowd], len(predicted), len(truth))
    rank = np.empty(len(predicted), dtype=np.int64)
    rank[np.argsort(-scores, kind="stable")] = np.arange(len(predicted))
    federated = unjudged is not None
    place = _place_in_group(_groups(predicted, by_label and not federated), rank)
    late = place >= limit
    close = (overlap >= IOU_THRESHOLDS[0]) & ~late[at]
    found, ignored = _coco(at[close], to[close], overlap[close], rank, crowd, _area_masks(truth))
    spared = _ALL ^ _area_masks(predicted)
    if unjudged is not None:
        spared[unjudged] = _ALL
        in_crowd[unjudged] = 1.0
    ignored |= ~found & spared
    ignored[late] = _ALL
    return Matches(
        pair=pair,
        iou=iou,
        in_crowd=in_crowd,
        found=found,
        ignored=ignored,
        place=place,
        limit=limit,
        federated=federated,
    )


def _area_masks(side: Flat) -> Ints:
    """[n]: all bits of the size classes that a box belongs to, and those of every size."""
    bits_of = np.array([_ALL_SIZES << _BITS * area for area in range(1 + len(AREAS))], dtype=np.int64)
    masks: Ints = bits_of @ in_areas(side)
    return masks


def candidates(truth: Flat, crowd: Bools, predicted: Flat, *, by_label: bool) -> tuple[Ints, Ints, Floats]:
    """The overlapping pairs within an image (and label): predicted index, true index, IoU.

    For a crowd region the overlap is the share of the predicted box that lies inside, as in pycocotools.
    """
    found = list(_overlapping(truth, crowd, predicted, by_label))
    if not found:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    at, to, overlap = (np.concatenate(column) for column in zip(*found, strict=True))
    return at, to, overlap


def _overlapping(truth: Flat, crowd: Bools, predicted: Flat, by_label: bool) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Candidates, a bounded number of comparisons at a time."""
    groups = _groups(truth, by_label, predicted)
    order = np.argsort(groups, kind="stable")
    wanted = _groups(predicted, by_label, truth)
    start = np.searchsorted(groups[order], wanted, side="left")
    count = np.searchsorted(groups[order], wanted, side="right") - start
    total = np.cumsum(count)
    begin = 0
    while begin < len(predicted):
        done = total[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, done + _PAIRS_AT_ONCE, side="right")))
        at = np.repeat(np.arange(begin, end), count[begin:end])
        step = np.arange(len(at)) - np.repeat(total[begin:end] - count[begin:end] - done, count[begin:end])
        to = order[start[at] + step]
        overlap = overlaps(truth.boxes[to], crowd[to], predicted.boxes[at])
        keep = overlap > 0
        at, to, overlap = at[keep], to[keep], overlap[keep]
        if truth.outlines is not None and predicted.outlines is not None:
            overlap = outline_overlaps(truth, crowd, predicted, at, to)
            keep = overlap > 0
            at, to, overlap = at[keep], to[keep], overlap[keep]
        yield at, to, overlap
        begin = end


def outline_overlaps(truth: Flat, crowd: Bools, predicted: Flat, at: Ints, to: Ints) -> Floats:
    """As `overlaps`, of the outlines at `to` of the true and at `at` of the predicted side."""
    result = np.zeros(len(at))
    for index, (p, t, is_crowd) in enumerate(_columns(at, to, crowd[to])):
        true, own, both = areas(truth.outlines[t], predicted.outlines[p])  # type: ignore[index]  # only asked where there are some
        whole = own if is_crowd else true + own - both
        result[index] = both / whole if both > 0 else 0.0
    return result


def _groups(side: Flat, by_label: bool, other: Flat | None = None) -> Ints:
    """One number for each image, or for each image and label; `other` shares the numbering."""
    if not by_label:
        return side.image
    labels = 1 + max((int(item.label.max()) for item in (side, other) if item is not None and len(item)), default=0)
    return side.image * labels + side.label


def _place_in_group(groups: Ints, rank: Ints) -> Ints:
    """[n] place of each box among those of its group, by rank."""
    order = np.lexsort((rank, groups))
    ordered = groups[order]
    place = np.empty(len(groups), dtype=np.int64)
    place[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered, side="left")
    return place


def _pair(at: Ints, to: Ints, iou: Floats, predicted: int, truth: int) -> tuple[Ints, Floats]:
    pair, best = np.full(predicted, -1, dtype=np.int64), np.zeros(predicted)
    taken = bytearray(truth)
    order = np.lexsort((to, at, -iou))
    for p, t, value in _columns(at[order], to[order], iou[order]):
        if pair[p] < 0 and not taken[t]:
            taken[t] = 1
            pair[p], best[p] = t, value
    return pair, best


def _coco(at: Ints, to: Ints, overlap: Floats, rank: Ints, crowd: Bools, areas: Ints) -> tuple[Ints, Ints]:
    """Masks of thresholds and sizes at which each box finds a true one, or only one that does not count.

    As cocoeval's evaluateImg, for all sizes in one pass. crowd, areas: [m], of the true boxes.
    """
    reached = ((1 << np.searchsorted(IOU_THRESHOLDS, overlap, side="right")) - 1) * (_ALL // _ALL_SIZES)
    counts = np.where(crowd, 0, areas)[to]
    # Each pair twice: what counts is taken before what does not; of equal IoUs cocoeval takes the last one.
    allowed = np.concatenate([reached & counts, reached & ~counts])
    spare = np.repeat([False, True], len(at))
    at, to, overlap = np.tile(at, 2), np.tile(to, 2), np.tile(overlap, 2)
    order = np.lexsort((-to, -overlap, spare, rank[at]))
    order = order[allowed[order] != 0]
    wanting, free = [_ALL] * len(rank), [_ALL] * len(crowd)
    found, ignored = [0] * len(rank), [0] * len(rank)
    for p, t, mask, is_spare, is_crowd in _columns(*(column[order] for column in (at, to, allowed, spare, crowd[to]))):
        taken = wanting[p] & mask & free[t]
        wanting[p] ^= taken
        if not is_crowd:  # a crowd region takes any number of boxes
            free[t] ^= taken
        if is_spare:
            ignored[p] |= taken
        else:
            found[p] |= taken
    return np.array(found, dtype=np.int64), np.array(ignored, dtype=np.int64)


def _columns(*arrays: NDArray[Any]) -> Iterator[tuple[Any, ...]]:
    return zip(*(array.tolist() for array in arrays), strict=True)
