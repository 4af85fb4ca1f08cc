"""COCO's boxes when images change from epoch to epoch: every place is still where its pixels are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coco import write_coco_records
from coordcore import BuildContext
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.records.answers import COORDJSON, Format, parse_answer
from coordcore_coord_tokens import CoordJsonl, CoordJsonlConfig
from coordcore_coord_tokens.augment.config import AugmentConfig
from coordcore_coord_tokens.formats import COMPACT, GROUPED

EPOCHS = 2


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO's records, with images of which each pixel says where it was."""
    path = write_coco_records(tmp_path_factory.mktemp("coco"))
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        y, x = np.mgrid[: record["height"], : record["width"]]
        pixels = np.stack([x % 256, y % 256, x // 256 + 16 * (y // 256)], -1).astype(np.uint8)
        Image.fromarray(pixels).save(path.parent / record["images"][0], "png")  # whatever its suffix
    return path


def was(image: Image.Image, x: int, y: int) -> tuple[int, int]:
    """Where a pixel was in the file."""
    red, green, blue = image.getpixel((x, y))
    return red + 256 * (blue % 16), green + 256 * (blue // 16)


def window(image: Image.Image) -> tuple[bool, tuple[int, int, int, int]]:
    """Whether an image is mirrored, and the part of the file that it shows."""
    (left, top), (right, bottom) = was(image, 0, 0), was(image, image.width - 1, image.height - 1)
    return left > right, (min(left, right), top, max(left, right) + 1, bottom + 1)


@pytest.mark.parametrize("form", [COORDJSON, COMPACT, GROUPED], ids=lambda form: form.name)
def test_in_every_epoch_boxes_are_inside_and_where_their_pixels_are(records: Path, form: Format) -> None:
    augment = AugmentConfig(flip=0.5, crop=(0.4, 1.0), crop_visible=0.0, shuffle_objects=True)
    config = CoordJsonlConfig(train=records, space="pixel", augment=augment)
    context = BuildContext(run_dir=records.parent, seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None, format=form)
    examples: Any = CoordJsonl.open(config, context).train()
    lines = records.read_text(encoding="utf-8").splitlines()
    mirrored = cut = found = 0
    for index, line in enumerate(lines * EPOCHS):
        epoch, place = divmod(index, len(lines))
        example = examples.in_epoch(epoch, place)
        [image] = example.images
        is_mirrored, (x1, y1, x2, y2) = window(image)
        mirrored += is_mirrored
        cut += image.size != Image.open(records.parent / json.loads(line)["images"][0]).size
        assert example.image_size == image.size == (x2 - x1, y2 - y1)
        shown = []
        for item in json.loads(line)["objects"]:
            left, top, right, bottom = np.clip(item["bbox_2d"], (x1, y1, x1, y1), (x2, y2, x2, y2))
            across = (x2 - right, x2 - left) if is_mirrored else (left - x1, right - x1)
            shown.append((item["desc"], np.array([across[0], top - y1, across[1], bottom - y1])))
        answer = parse_answer(example.messages[-1]["content"], form)
        assert answer.unread == ()
        labels = [item.desc for item in answer.objects]
        for label, said, geometry in zip(labels, answer.objects, example.geometries, strict=True):
            values = np.array(geometry.values)
            assert ((values >= 0) & (values <= 999)).all()
            np.testing.assert_allclose(said.bins, values, rtol=0, atol=0.5 + 1e-9)
            pixels = DEFAULT_QUANTISATION.decode(values, image.size * 2)
            nearest = min(range(len(shown)), key=lambda at: distance(label, pixels, shown[at]))
            assert distance(label, pixels, shown.pop(nearest)) < 1e-6
            found += 1
        # What is left is not to be seen, or is less than a pixel of it.
        assert [item for item in shown if min(item[1][2:] - item[1][:2]) >= 1] == []
    assert 0.3 < mirrored / len(lines) / EPOCHS < 0.7
    assert cut > 0.9 * len(lines) * EPOCHS
    assert found > 839


def distance(label: str, pixels: Any, shown: tuple[str, Any]) -> float:
    return float(np.abs(pixels - shown[1]).max()) if label == shown[0] else np.inf
