"""Scenes for the tests of the evaluation: ground truth and predictions made up or drawn at random."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_detection.evaluate.matching import Bools, Flat, Floats
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.predictions import VERSION, Box, Header, Row

ANNOTATIONS = Path(__file__).parents[3] / "tests" / "data" / "coco_val2014_100_boxes.json"
SIZE = 100

Labelled = Sequence[tuple[str, tuple[float, float, float, float]]]


def header(**changes: Any) -> Header:
    values: dict[str, Any] = {
        "predictions": VERSION,
        "checkpoint": "model",
        "quantisation": DEFAULT_QUANTISATION.as_dict(),
        "decoding": {"coordinates": "argmax"},
        "score": "min",
    }
    return Header(**values | changes)


def truth(key: str, boxes: Labelled, *, crowd: Sequence[bool] | None = None, size: int = SIZE) -> TruthImage:
    return TruthImage(
        key=key,
        width=size,
        height=size,
        labels=tuple(label for label, _ in boxes),
        boxes=np.array([box for _, box in boxes], dtype=np.float64).reshape(-1, 4),
        crowd=np.array(crowd if crowd is not None else [False] * len(boxes), dtype=bool),
        open=lambda: Image.new("RGB", (size, size)),
    )


def row(key: str, boxes: Labelled, scores: Sequence[float] | None = None, **changes: Any) -> Row:
    given = scores if scores is not None else [0.5] * len(boxes)
    made = [
        Box(label=label, box=box, bins=(0, 0, 0, 0), score=score)
        for (label, box), score in zip(boxes, given, strict=True)
    ]
    return Row(**{"image": key, "width": SIZE, "height": SIZE, "text": "", "boxes": made} | changes)


def random_scene(seed: int, *, images: int = 12, labels: int = 3) -> tuple[Flat, Bools, Flat, Floats]:
    """True boxes, which of them are crowd regions, predicted boxes near them, and scores with ties.

    Image 0 holds more boxes than COCO counts; the last image holds none.
    """
    rng = np.random.default_rng(seed)
    counts = np.append(rng.poisson(5, images - 1), 0)
    counts[0] = 130
    image = np.repeat(np.arange(images), counts)
    corner = rng.uniform(0, 300, (len(image), 2))
    boxes = np.concatenate([corner, corner + np.exp(rng.normal(3.8, 1.0, corner.shape))], axis=1)
    truth = Flat(image=image, label=rng.integers(labels, size=len(image)), boxes=boxes)
    crowd = rng.random(len(image)) < 0.1
    copies = rng.integers(0, 3, len(image))
    moved = np.repeat(boxes, copies, axis=0) + rng.normal(0, 4, (copies.sum(), 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    label = np.where(rng.random(len(moved)) < 0.2, rng.integers(labels, size=len(moved)), truth.label.repeat(copies))
    predicted = Flat(image=image.repeat(copies), label=label, boxes=moved)
    return truth, crowd, predicted, rng.integers(0, 20, len(moved)) / 20


def write_grey_pictures(count: int) -> None:
    """`count` grey pictures with a box each, in pixels, and their record file val.jsonl, in the working directory."""
    lines = []
    for k in range(count):
        Image.new("RGB", (40 + k, 32), (k * 40,) * 3).save(f"{k}.png")
        record = {"images": [f"{k}.png"], "width": 40 + k, "height": 32}
        lines.append(json.dumps(record | {"objects": [{"desc": "a", "bbox_2d": [1, 2, 30, 20.5]}]}))
    Path("val.jsonl").write_text("\n".join(lines) + "\n")
