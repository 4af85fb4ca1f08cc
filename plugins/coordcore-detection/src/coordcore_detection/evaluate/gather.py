"""What an evaluation works on: ground truth and answers brought together, with an account of what did not fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import numpy as np

from coordcore import InputError
from coordcore.quantisation import Quantisation
from coordcore_detection.evaluate.matching import Flat, Floats
from coordcore_detection.evaluate.oracle import quantised
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.prediction_files import NO_IMAGE
from coordcore_detection.predict.predictions import Row

_NAMED = 3  # images, labels or reasons named in a note


@attrs.define
class Account:
    """What is worth telling the reader: counts by name, and a note for each that is not zero."""

    counts: dict[str, int] = attrs.field(factory=dict)
    notes: list[str] = attrs.field(factory=list)

    def count(self, name: str, number: int, note: str) -> None:
        self.counts[name] = number
        if number:
            self.notes.append(note)


class Truth:
    """The ground truth, read once: images may be drawn or decoded for it, and are not held."""

    def __init__(self, images: Iterable[TruthImage], quantisation: Quantisation) -> None:
        self.keys: dict[str, int] = {}
        self.sizes: list[tuple[int, int]] = []
        self.labels: dict[str, int] = {}
        self.in_bins = True
        digests: list[bytes] = []
        image, label, boxes, on_grid, crowd = [], [], [], [], []
        for index, one in enumerate(images):
            if self.keys.setdefault(one.key, index) != index:
                raise InputError(f"{one.key}: is twice in the ground truth; give each image one key")
            self.sizes.append((one.width, one.height))
            self.in_bins &= one.in_bins
            text = json.dumps([one.key, one.width, one.height, one.labels, one.crowd.tolist()])
            digests.append(hashlib.sha256(text.encode() + np.round(one.boxes, 6).tobytes()).digest())
            image += [index] * len(one.labels)
            label += [self.labels.setdefault(name, len(self.labels)) for name in one.labels]
            boxes.append(one.boxes)
            crowd.append(one.crowd)
            try:
                on_grid.append(quantised(one, quantisation))
            except InputError as error:
                raise InputError(f"{one.key}: {error}") from error
        if not self.keys:
            raise InputError("the ground truth holds no images; there is nothing to evaluate")
        self.true_labels = len(self.labels)
        self.flat = Flat(
            image=np.array(image, dtype=np.int64), label=np.array(label, dtype=np.int64), boxes=np.concatenate(boxes)
        )
        self.on_grid = np.concatenate(on_grid)
        self.crowd = np.concatenate(crowd)
        # Sorted: the order of the records changes nothing.
        self.digest = hashlib.sha256(b"".join(sorted(digests))).hexdigest()

    def description(self) -> dict[str, Any]:
        """What a contract says of it."""
        return {
            "images": len(self.keys),
            "boxes": int((~self.crowd).sum()),
            "crowd": int(self.crowd.sum()),
            "sha256": self.digest,
        }

    def predicted(self, answers: Sequence[Row | None], account: Account) -> tuple[Flat, Floats]:
        """The boxes of the answers, with finite scores. Labels that are new get ids after those of the truth."""
        given = [(index, box) for index, row in enumerate(answers) if row is not None for box in row.boxes]
        boxes = np.array([box.box for _, box in given], dtype=np.float64).reshape(-1, 4)
        broken = ~(np.isfinite(boxes).all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1))
        boxes[broken] = 0.0
        account.count(
            "broken_boxes",
            int(broken.sum()),
            f"{broken.sum()} predicted boxes are none (x2 < x1, y2 < y1, or no numbers): they overlap nothing",
        )
        scores = np.array([box.score for _, box in given], dtype=np.float64)
        lacking = ~np.isfinite(scores)
        scores[lacking] = (scores[~lacking].min() if not lacking.all() else 0.0) - 1.0
        account.count(
            "unscored_boxes",
            int(lacking.sum()),
            f"{lacking.sum()} predicted boxes have no score (NaN): ranked last, and left out of the calibration error",
        )
        strange = ~lacking & ((scores < 0) | (scores > 1))
        account.count(
            "scores_outside_0_1",
            int(strange.sum()),
            f"{strange.sum()} scores lie outside 0..1: left out of the calibration error",
        )
        flat = Flat(
            image=np.array([index for index, _ in given], dtype=np.int64),
            label=np.array([self.labels.setdefault(box.label, len(self.labels)) for _, box in given], dtype=np.int64),
            boxes=boxes,
        )
        return flat, scores


def by_image(truth: Truth, rows: Iterable[Row], account: Account) -> list[Row | None]:
    """The row of each image of the truth."""
    answers: list[Row | None] = [None] * len(truth.keys)
    unknown: dict[str, None] = {}
    repeated: dict[str, None] = {}
    for row in rows:
        index = truth.keys.get(row.image)
        if index is None:
            unknown[row.image] = None
            continue
        width, height = truth.sizes[index]
        if (row.width, row.height) != (width, height):
            raise InputError(
                f"{row.image}: predicted on {row.width} x {row.height}, the ground truth says {width} x {height}; "
                "evaluate against the records that were predicted"
            )
        if answers[index] is not None:
            repeated[row.image] = None
        answers[index] = row
    if unknown and not any(answers):
        raise InputError(
            f"none of the {len(unknown)} predicted images is in the ground truth: predictions begin with "
            f"{next(iter(unknown))!r}, the ground truth with {next(iter(truth.keys))!r}; "
            "evaluate against the records that were predicted"
        )
    missing = [key for key, row in zip(truth.keys, answers, strict=True) if row is None]
    for name, images, note in (
        ("unknown_images", list(unknown), "predicted images are not in the ground truth: left out"),
        ("missing_images", missing, "images have no prediction: counted as empty answers"),
        ("repeated_images", list(repeated), "images have several predictions: the last one counts"),
    ):
        account.count(name, len(images), f"{len(images)} {note} ({some(images)})")
    unseen = [row.image for row in answers if row is not None and not was_seen(row)]
    account.count(
        "unopened_images",
        len(unseen),
        f"{len(unseen)} images could not be opened: counted as empty answers ({some(unseen)})",
    )
    unread = [part for row in answers if row is not None and was_seen(row) for part in row.unread]
    account.count("unread_parts", len(unread), _reasons([part.reason for part in unread]))
    return answers


def was_seen(row: Row) -> bool:
    """Whether the model was shown the image."""
    return all(part.at != NO_IMAGE for part in row.unread)


def some(names: Sequence[str]) -> str:
    more = [f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return ", ".join([*map(repr, names[:_NAMED]), *more])


def _reasons(reasons: Sequence[str]) -> str:
    """The reasons with their counts, the commonest first."""
    counts: dict[str, int] = {}
    for one in reasons:
        counts[one] = counts.get(one, 0) + 1
    ordered = sorted(counts, key=lambda one: -counts[one])
    more = [f"{len(ordered) - _NAMED} other reasons"] if len(ordered) > _NAMED else []
    listed = "; ".join([*(f"{counts[one]} x {one}" for one in ordered[:_NAMED]), *more])
    return f"{len(reasons)} parts of answers could not be read: {listed}"
