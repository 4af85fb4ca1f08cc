"""Which predicted box belongs to which true one: by falling IoU, and by falling score as COCO does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from coordcore.records.geometry import overlaps

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""COCO's: .50, .55 ... .95. Bit i of a mask below speaks of threshold i."""

MAX_DETECTIONS = 100
"""COCO scores the best hundred boxes of an image and label."""

_ALL = (1 << len(IOU_THRESHOLDS)) - 1
_PAIRS_AT_ONCE = 1_000_000


@attrs.frozen(kw_only=True, eq=False)
class Flat:
    """The boxes of all images, one after another.

    image: [n] index of the image. label: [n] id of the label. boxes: [n, 4] x1, y1, x2, y2 in pixels.
    """

    image: Ints
    label: Ints
    boxes: Floats

    def __len__(self) -> int:
        return len(self.image)


@attrs.frozen(kw_only=True, eq=False)
class Matches:
    """What became of every predicted box ([n] each).

    pair, iou: the true box paired with it and their IoU, -1 and 0 without one. Pairs are made by falling IoU, each box
    in one pair at most: scores play no part, and the pairs at any IoU threshold are those whose IoU reaches it.
    in_crowd: the largest share of its area inside one crowd region; such a box is no mistake.
    found, ignored: one bit for each of IOU_THRESHOLDS, by COCO's rule: boxes by falling score, each takes the best true
    box that is still free, else a crowd region, and is then ignored. Boxes past MAX_DETECTIONS are ignored.
    """

    pair: Ints
    iou: Floats
    in_crowd: Floats
    found: Ints
    ignored: Ints


def bits(masks: Ints) -> Bools:
    """[n] masks as [n, 10] booleans, one column for each of IOU_THRESHOLDS."""
    flags: Bools = (masks[:, None] >> np.arange(len(IOU_THRESHOLDS))) & 1 == 1
    return flags


def match(truth: Flat, crowd: Bools, predicted: Flat, scores: Floats, *, by_label: bool) -> Matches:
    """Match the boxes of each image, those of one label among themselves unless `by_label` is False.

    crowd: [m], of the true boxes. scores: [n], finite. The order of predicted boxes decides between equal scores.
    """
    at, to, overlap = candidates(truth, crowd, predicted, by_label=by_label)
    on_crowd = crowd[to]
    in_crowd = np.zeros(len(predicted))
    np.maximum.at(in_crowd, at[on_crowd], overlap[on_crowd])
    pair, iou = _pair(at[~on_crowd], to[~on_crowd], overlap[~on_crowd], len(predicted), len(truth))
    rank = np.empty(len(predicted), dtype=np.int64)
    rank[np.argsort(-scores, kind="stable")] = np.arange(len(predicted))
    late = _place_in_group(_groups(predicted, by_label), rank) >= MAX_DETECTIONS
    close = (overlap >= IOU_THRESHOLDS[0]) & ~late[at]
    found, ignored = _coco(at[close], to[close], overlap[close], on_crowd[close], rank, len(truth))
    ignored[late] = _ALL
    return Matches(pair=pair, iou=iou, in_crowd=in_crowd, found=found, ignored=ignored)


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
        yield at[keep], to[keep], overlap[keep]
        begin = end


def _groups(side: Flat, by_label: bool, other: Flat | None = None) -> Ints:
    """One number for each image, or for each image and label; `other` shares the numbering."""
    if not by_label:
        return side.image
    labels = 1 + max((int(one.label.max()) for one in (side, other) if one is not None and len(one)), default=0)
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


def _coco(at: Ints, to: Ints, overlap: Floats, crowd: Bools, rank: Ints, truth: int) -> tuple[Ints, Ints]:
    """Masks of thresholds at which each box finds a true one, or only a crowd region (cocoeval's evaluateImg)."""
    found, ignored = np.zeros(len(rank), dtype=np.int64), np.zeros(len(rank), dtype=np.int64)
    reached = (1 << np.searchsorted(IOU_THRESHOLDS, overlap, side="right")) - 1
    wanting, free = [_ALL] * len(rank), [_ALL] * truth
    # Of equal IoUs cocoeval takes the last one, and crowd regions only when there is nothing else.
    order = np.lexsort((-to, -overlap, crowd, rank[at]))
    for p, t, mask, is_crowd in _columns(at[order], to[order], reached[order], crowd[order]):
        if is_crowd:
            taken = wanting[p] & mask
            ignored[p] |= taken
        else:
            taken = wanting[p] & mask & free[t]
            free[t] ^= taken
            found[p] |= taken
        wanting[p] ^= taken
    return found, ignored


def _columns(*arrays: NDArray[Any]) -> Iterator[tuple[Any, ...]]:
    return zip(*(array.tolist() for array in arrays), strict=True)
