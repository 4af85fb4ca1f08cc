"""A data set of the size and the kinds of LVIS's, made up from a seed: federated annotations, and detections with ties.

`python plugins/coordcore-detection/tests/lvis_support.py > lvis_golden.json` writes what lvis-api says of it, in
tox's environment `detection` (made with lvis 0.5.3). That release names `np.float`, which newer numpy has not.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

IMAGES, CATEGORIES = 100, 200
WIDTH, HEIGHT = 640, 480
MANY, CROWDED = 17, 23
"""An image of 420 detections, and one of 130 objects of one category."""


def dataset(seed: int = 7) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An LVIS file and detections. Coordinates are quarters: sums of them are exact."""
    rng = random.Random(seed)
    categories = [
        {"id": number, "name": f"thing {number}", "frequency": "f" if number <= 30 else "c" if number <= 100 else "r"}
        for number in range(1, CATEGORIES + 1)
    ]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for index in range(IMAGES):
        image_id = (index * 37) % 101 + 1000  # not in rising order
        present = {_category(rng) for _ in range(rng.randint(0, 6))}
        objects = [(category, _box(rng)) for category in sorted(present) for _ in range(rng.choice((1, 1, 1, 2, 5)))]
        if index == CROWDED:
            objects += [(1, [n % 20 * 30.0, n // 20 * 60.0, 28.0, 50.0]) for n in range(130)]
        present = {category for category, _ in objects}
        others = [number for number in range(1, CATEGORIES + 1) if number not in present]
        absent = sorted(rng.sample(others, rng.choice((0, 3, 8))))
        incomplete = sorted(item for item in present if rng.random() < 0.25)
        images.append(
            {
                "id": image_id,
                "coco_url": f"http://images.cocodataset.org/val2017/{image_id:012}.jpg",
                "width": WIDTH,
                "height": HEIGHT,
                "neg_category_ids": absent,
                "not_exhaustive_category_ids": incomplete,
            }
        )
        for category, box in objects:
            share = rng.choice((0.3, 0.5, 0.75, 1.0))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3] * share,
                    "segmentation": [],
                }
            )
        found = [(category, _moved(rng, box)) for category, box in objects for _ in range(rng.choice((0, 1, 1, 2)))]
        found = [(category if rng.random() < 0.85 else _category(rng), box) for category, box in found]
        guessed = [*absent, *present, *(rng.randint(1, CATEGORIES) for _ in range(5))]
        found += [(rng.choice(guessed), _box(rng)) for _ in range(rng.randint(0, 20))]
        if index == MANY:
            found += [(rng.choice(guessed), _box(rng)) for _ in range(420 - len(found))]
        rng.shuffle(found)
        if index % 25 != 3:  # some images have no answer
            detections += [
                {"image_id": image_id, "category_id": category, "bbox": box, "score": rng.randint(1, 20) / 20}
                for category, box in found
            ]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


def _category(rng: random.Random) -> int:
    return min(CATEGORIES, 1 + int(rng.expovariate(1 / 40)))


def _box(rng: random.Random) -> list[float]:
    """x, y, width, height inside the image, of every size class."""
    width, height = (rng.randint(16, 16 * top) / 4 for top in rng.choice(((10, 10), (30, 30), (75, 75))))
    x, y = rng.randint(0, int(4 * (WIDTH - width))) / 4, rng.randint(0, int(4 * (HEIGHT - height))) / 4
    return [x, y, width, height]


def _moved(rng: random.Random, box: list[float]) -> list[float]:
    x, y, width, height = box
    steps = [rng.choice((0, 0, 0, 0.03125, 0.0625, 0.125)) for _ in range(4)]
    x, y = (
        max(0.0, round(4 * (at + side * step)) / 4) for at, side, step in ((x, width, steps[0]), (y, height, steps[1]))
    )
    sides = (max(1.0, round(4 * side * (1 - step)) / 4) for side, step in ((width, steps[2]), (height, steps[3])))
    width, height = sides
    return [x, y, min(width, WIDTH - x), min(height, HEIGHT - y)]


def lvis_api(content: dict[str, Any], detections: list[dict[str, Any]]) -> dict[str, float]:
    """What lvis-api says, by its own names."""
    import numpy as np

    if not hasattr(np, "float"):
        np.float = float
    from lvis import LVIS, LVISEval, LVISResults

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lvis.json"
        file.write_text(json.dumps(content))
        truth = LVIS(str(file))
    evaluation = LVISEval(truth, LVISResults(truth, json.loads(json.dumps(detections))), "bbox")
    evaluation.run()
    return {name: float(value) for name, value in evaluation.get_results().items()}


if __name__ == "__main__":
    print(json.dumps(lvis_api(*dataset()), indent=2))
