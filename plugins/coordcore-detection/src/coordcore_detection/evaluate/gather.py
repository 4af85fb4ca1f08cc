"""What an evaluation works on: ground truth and answers brought together, with an account of what did not fit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import msgspec
import numpy as np

from coordcore import InputError
from coordcore.quantisation import Quantisation
from coordcore_detection.evaluate.federated import frequencies, unjudged
from coordcore_detection.evaluate.matching import Bools, Flat, Floats
from coordcore_detection.evaluate.oracle import quantised, quantised_outlines
from coordcore_detection.evaluate.points import Point, PointsOfImage
from coordcore_detection.evaluate.synonyms import Synonyms, names
from coordcore_detection.evaluate.truth import Id, TruthImage
from coordcore_detection.predict.prediction_files import NO_IMAGE
from coordcore_detection.predict.predictions import Box, Row

_NAMED = 3  # images, labels or reasons named in a note
_SHOWN = 80  # characters of each


@attrs.define
class Account:
    """What is worth telling the reader: counts by name, and a note for each that is not zero."""

    counts: dict[str, int] = attrs.field(factory=dict)
    notes: list[str] = attrs.field(factory=list)

    def count(self, name: str, number: int, note: str) -> None:
        self.counts[name] = number
        if number:
            self.notes.append(note)


@attrs.frozen(kw_only=True, eq=False)
class _Given:
    """What is held of a true image.

    on_grid, grid_outlines: its boxes and outlines as bins give them. categories: those that its question lists.
    """

    key: str
    id: Id | None
    size: tuple[int, int]
    labels: tuple[str, ...]
    boxes: Floats
    on_grid: Floats
    crowd: Bools
    absent: tuple[str, ...]
    incomplete: tuple[str, ...]
    federated: bool
    frequencies: tuple[tuple[str, str], ...]
    areas: Floats | None
    outlines: Mapping[int, Floats]
    grid_outlines: Mapping[int, Floats]
    points: tuple[Point, ...]
    targets: tuple[tuple[str, Floats], ...]
    task: str
    question: str | None
    categories: tuple[str, ...]


class Truth:
    """The ground truth, read once: images may be drawn or decoded for it, and are not held.

    Nothing depends on the order of the records: images are put in that of `image_order`, labels in that of their text.
    synonyms: what stands for each name, of true and of predicted labels. place: where each image stood among those
    given. federated: whether any image says which labels were looked for; then AP is LVIS's, and images that say
    nothing had none but their own looked for. frequency: label id -> "r", "c" or "f". merged: true labels that a
    synonym made another. outlined: whether any object is a polygon or a quad. points: how many are points. targets: how
    many are boxes in which a point is right.
    """

    def __init__(
        self, images: Iterable[TruthImage], quantisation: Quantisation, synonyms: Synonyms | None = None
    ) -> None:
        self.synonyms: Synonyms = synonyms or {}
        self._names = names(self.synonyms)
        self.merged: dict[str, None] = {}
        found: list[_Given] = []
        seen: set[str] = set()
        digests: list[bytes] = []
        self.in_bins = True
        for image in images:
            if image.key in seen:
                raise InputError(f"{image.key}: is twice in the ground truth; give each image one key")
            seen.add(image.key)
            digests.append(_digest(image))
            self.in_bins &= image.in_bins
            found.append(self._held(image, quantisation))
        if not found:
            raise InputError("the ground truth holds no images; there is nothing to evaluate")
        self.place, self.order = image_order([(item.key, item.id) for item in found])
        self.images = [found[index] for index in self.place]
        self.keys = {image.key: index for index, image in enumerate(self.images)}
        self.labels = {
            name: index for index, name in enumerate(sorted({name for item in found for name in item.labels}))
        }
        self.true_labels = len(self.labels)
        self.flat = Flat(
            image=np.repeat(np.arange(len(found)), [len(image.labels) for image in self.images]),
            label=np.array([self.labels[name] for image in self.images for name in image.labels], dtype=np.int64),
            boxes=np.concatenate([image.boxes for image in self.images]),
            areas=_areas(self.images),
        )
        self.federated = any(item.federated for item in found)
        given = ((image.key, set(image.labels), image.frequencies) for image in self.images)
        self.frequency = {self.labels[name]: frequency for name, frequency in frequencies(given).items()}
        self.on_grid = np.concatenate([image.on_grid for image in self.images])
        self.crowd = np.concatenate([image.crowd for image in self.images])
        self.outlined = any(item.outlines for item in found)
        self.points = sum(len(item.points) for item in found)
        self.targets = sum(len(item.targets) for item in found)
        self.digest = hashlib.sha256(b"".join(sorted(digests))).hexdigest()

    def description(self) -> dict[str, Any]:
        """What a contract says of it."""
        return {
            "images": len(self.keys),
            "boxes": int((~self.crowd).sum()),
            **({"points": self.points} if self.points else {}),
            **({"targets": self.targets} if self.targets else {}),
            "crowd": int(self.crowd.sum()),
            "image_order": self.order,
            "sha256": self.digest,
        }

    def unjudged(self, boxes: Flat) -> Bools | None:
        """[n]: whether nobody looked for a box's label in its image, or not for all objects; None if not federated.

        boxes: with the labels of this truth, or what `predicted` gave.
        """
        if not self.federated:
            return None
        return unjudged(
            boxes,
            self.flat,
            self.labels,
            absent=[image.absent for image in self.images],
            incomplete=[image.incomplete for image in self.images],
        )

    def _held(self, image: TruthImage, quantisation: Quantisation) -> _Given:
        try:
            on_grid = quantised(image, quantisation)
        except InputError as error:
            raise InputError(f"{image.key}: {error}") from error
        self.merged |= dict.fromkeys(label for label in image.labels if label in self._names)
        return _Given(
            key=image.key,
            id=image.id,
            size=(image.width, image.height),
            labels=self._named(image.labels),
            boxes=image.boxes,
            on_grid=on_grid,
            crowd=image.crowd,
            absent=self._named(image.absent),
            incomplete=self._named(image.incomplete),
            federated=image.federated or bool(image.absent or image.incomplete),
            frequencies=tuple(zip(self._named(image.frequencies), image.frequencies.values(), strict=True)),
            areas=image.areas,
            outlines=image.outlines,
            grid_outlines=quantised_outlines(image, quantisation),
            points=tuple((self._names.get(label, label), x, y) for label, x, y in image.points),
            targets=tuple((self._names.get(label, label), box) for label, box in image.targets),
            task=image.task,
            question=image.question,
            categories=tuple(label for label in image.categories if label in image.asked),
        )

    def outlines(self) -> list[Floats]:
        """[m] outlines of all true boxes."""
        return [outline for image in self.images for outline in _outlines(image.boxes, image.outlines)]

    def grid_outlines(self) -> list[Floats]:
        """The same as bins give them; where a quantisation has none for single points, as they are."""
        return [outline for image in self.images for outline in _outlines(image.on_grid, image.grid_outlines)]

    def on_images(self, answers: Sequence[Row | None]) -> Iterator[PointsOfImage]:
        """What points are measured by, image by image."""
        pointed = self._pointed(answers)
        for image, row in zip(self.images, answers, strict=True):
            boxes = _points(row)
            yield PointsOfImage(
                size=image.size,
                true=image.points,
                regions=[(label, _corners(box)) for label, box in image.targets]
                + [
                    (label, outline)
                    for label, outline, crowd in zip(
                        image.labels, _outlines(image.boxes, image.outlines), image.crowd, strict=True
                    )
                    if not crowd
                ],
                predicted=[((self._names.get(box.label, box.label), *box.box[:2]), box.score) for box in boxes],
                is_pointed=image.task in pointed and (bool(image.points or boxes) or row is None or not row.boxes),
            )

    def _pointed(self, answers: Sequence[Row | None]) -> set[str]:
        """The tasks whose records ask to point: that of this name where any record has it; else those whose truth or
        answers hold a point anywhere. Answers to others are to be boxes, and an empty one misses no point.
        """
        if any(image.task == "point" for image in self.images):
            return {"point"}
        return {image.task for image, row in zip(self.images, answers, strict=True) if image.points or _points(row)}

    def _named(self, labels: Iterable[str]) -> tuple[str, ...]:
        return tuple(self._names.get(label, label) for label in labels)

    def predicted(self, answers: Sequence[Row | None], account: Account) -> tuple[Flat, Floats]:
        """The boxes of the answers, with finite scores. Labels that are new get ids after those of the truth.

        Points are none of them; outlines are there where the truth has any.
        """
        given = [(index, box) for index, row in enumerate(answers) if row is not None for box in row.regions]
        boxes = np.array([box.box for _, box in given], dtype=np.float64).reshape(-1, 4)
        broken = ~(np.isfinite(boxes).all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1))
        boxes[broken] = 0.0
        account.count(
            "broken_boxes",
            int(broken.sum()),
            f"{broken.sum()} predicted boxes are none (x2 < x1, y2 < y1, or no numbers): they overlap nothing",
        )
        size = np.array([self.images[index].size for index, _ in given], dtype=np.float64).reshape(-1, 2)
        beyond = np.maximum(-boxes[:, :2], boxes[:, 2:] - size).max(1, initial=0.0)
        account.count(
            "boxes_beyond_image",
            int((beyond > 1).sum()),
            f"{(beyond > 1).sum()} predicted boxes reach beyond their image, by up to {beyond.max(initial=0.0):.6g} "
            "pixels: are their numbers pixels of the image itself?",
        )
        scores = np.array([box.score for _, box in given], dtype=np.float64)
        lacking = ~np.isfinite(scores)
        scores[lacking] = (scores[~lacking].min() if not lacking.all() else 0.0) - 1.0
        account.count(
            "unscored_boxes",
            int(lacking.sum()),
            f"{lacking.sum()} predicted boxes have no score (NaN): ranked last, and left out of the calibration error"
            if not lacking.all()
            else f"none of the {lacking.sum()} predicted boxes has a score: all rank alike in AP",
        )
        strange = ~lacking & ((scores < 0) | (scores > 1))
        account.count(
            "scores_outside_0_1",
            int(strange.sum()),
            f"{strange.sum()} scores lie outside 0..1: left out of the calibration error",
        )
        flat = Flat(
            image=np.array([index for index, _ in given], dtype=np.int64),
            label=np.array(
                [self.labels.setdefault(name, len(self.labels)) for name in self._named(box.label for _, box in given)],
                dtype=np.int64,
            ),
            boxes=boxes,
        )
        return flat, scores

    def predicted_outlines(self, answers: Sequence[Row | None], boxes: Floats) -> Sequence[Floats]:
        """[n] outlines of what `predicted` gave, of which these are the boxes."""
        given = [box.outline for row in answers if row is not None for box in row.regions]
        return [
            _corners(box) if outline is None or not np.isfinite(outline).all() else np.array(outline).reshape(-1, 2)
            for box, outline in zip(boxes, given, strict=True)
        ]


def _points(row: Row | None) -> list[Box]:
    return [] if row is None else [box for box in row.boxes if box.kind == "point"]


def image_order(images: Sequence[tuple[str, Id | None]]) -> tuple[list[int], str]:
    """The order of images, given as (key, id), that decides between equal scores; and its name for the contract.

    As pycocotools, "image_id": numbers by value, or all as text where some are text; images of one id by their keys.
    Where an image has no id, "key": 2.jpg before 10.jpg, as their ids would be.
    """
    keys = [_natural(key) for key, _ in images]
    ids = [number for _, number in images if number is not None]
    if len(ids) < len(images):
        return sorted(range(len(images)), key=lambda index: keys[index]), "key"
    text = any(isinstance(number, str) for number in ids)
    ranks: list[Any] = [str(number) for number in ids] if text else ids
    return sorted(range(len(images)), key=lambda index: (ranks[index], keys[index])), "image_id"


def _natural(key: str) -> tuple[list[Any], str]:
    """What sorts keys by their texts and, where these are equal, by the values of the whole numbers between them."""
    parts: list[Any] = re.split(r"([0-9]+)", key)
    for index in range(1, len(parts), 2):
        digits = parts[index].lstrip("0")
        parts[index] = len(digits), digits
    return parts, key


def _outlines(boxes: Floats, outlines: Mapping[int, Floats]) -> list[Floats]:
    return [outlines.get(index, _corners(box)) for index, box in enumerate(boxes)]


def _corners(box: Floats) -> Floats:
    """[4, 2] of a box."""
    return box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2)


def _areas(images: Sequence[_Given]) -> Floats | None:
    """[m] areas of all objects, the box's where an image says nothing; None where no image does."""
    if all(image.areas is None for image in images):
        return None
    boxes = [(image.boxes[:, 2:] - image.boxes[:, :2]).prod(1) for image in images]
    return np.concatenate(
        [box if image.areas is None else image.areas for image, box in zip(images, boxes, strict=True)]
    )


def _digest(image: TruthImage) -> bytes:
    told: list[Any] = [image.key, image.width, image.height, image.labels, image.crowd.tolist()]
    told += [] if image.id is None else [image.id]
    told += [image.absent, image.incomplete] if image.absent or image.incomplete else []
    told += [dict(sorted(image.frequencies.items()))] if image.frequencies else []
    told += (
        [{index: np.round(outline, 6).tolist() for index, outline in image.outlines.items()}] if image.outlines else []
    )
    told += [[(label, round(x, 6), round(y, 6)) for label, x, y in image.points]] if image.points else []
    told += [[(label, np.round(box, 6).tolist()) for label, box in image.targets]] if image.targets else []
    told += [image.task, image.question, image.categories, image.answer] if image.task != "detect" else []
    finer = b"" if image.areas is None else np.round(image.areas, 6).tobytes()
    return hashlib.sha256(json.dumps(told).encode() + np.round(image.boxes, 6).tobytes() + finer).digest()


def by_image(truth: Truth, rows: Iterable[Row], account: Account) -> list[Row | None]:
    """The row of each image of the truth. Raises InputError when an image has two that differ."""
    answers: list[Row | None] = [None] * len(truth.keys)
    unknown: dict[str, None] = {}
    repeated: dict[str, None] = {}
    for row in rows:
        index = truth.keys.get(row.image)
        if index is None:
            unknown[row.image] = None
            continue
        width, height = truth.images[index].size
        if (row.width, row.height) != (width, height):
            raise InputError(
                f"{row.image}: predicted on {row.width} x {row.height}, the ground truth says {width} x {height}; "
                "evaluate against the records that were predicted"
            )
        _require_same_question(row, truth.images[index])
        earlier = answers[index]
        if earlier is not None:
            if msgspec.json.encode(earlier) != msgspec.json.encode(row):
                raise InputError(
                    f"{row.image}: has two predictions that differ, and which comes last must decide nothing; "
                    "keep one row for each image"
                )
            repeated[row.image] = None
        answers[index] = row
    if unknown and not any(answers):
        raise InputError(
            f"none of the {len(unknown)} predicted images is in the ground truth: the predictions have "
            f"{min(unknown)!r}, the ground truth {min(truth.keys)!r}; "
            "evaluate against the records that were predicted"
        )
    missing = [key for key, row in zip(truth.keys, answers, strict=True) if row is None]
    for name, images, note in (
        ("unknown_images", sorted(unknown), "predicted images are not in the ground truth: left out"),
        ("missing_images", missing, "images have no prediction: counted as empty answers"),
        ("repeated_images", sorted(repeated), "images have the same prediction several times: it counts once"),
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


def _require_same_question(row: Row, image: _Given) -> None:
    """Raise InputError for an answer to another question: of several records of an image, the file gives the order."""
    if not isinstance(row.question, str):
        return
    wanted = [*re.split(r"\{\w+\}", image.question or ""), *image.categories]
    if lacking := [text for text in wanted if text not in row.question]:
        raise InputError(
            f"{row.image}: was asked {_short(row.question)!r}, and its record asks for {_short(lacking[0])!r}; "
            "evaluate against the records that were predicted, in their order"
        )


def was_seen(row: Row) -> bool:
    """Whether the model was shown the image."""
    return all(part.at != NO_IMAGE for part in row.unread)


def some(names: Sequence[str]) -> str:
    more = [f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return ", ".join([*(repr(_short(name)) for name in names[:_NAMED]), *more])


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _reasons(reasons: Sequence[str]) -> str:
    """The reasons with their counts, the commonest first."""
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    ordered = sorted(counts, key=lambda item: (-counts[item], item))
    more = [f"{len(ordered) - _NAMED} other reasons"] if len(ordered) > _NAMED else []
    listed = "; ".join([*(f"{counts[item]} x {_short(item)}" for item in ordered[:_NAMED]), *more])
    return f"{len(reasons)} parts of answers could not be read: {listed}"
