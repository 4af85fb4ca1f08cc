"""Training and prediction open a file as the same pixels, whatever code each of them calls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coordcore_coord_tokens import jsonl as training
from coordcore_detection.evaluate import truth_sources as prediction


def picture(mode: str) -> Image.Image:
    ramp = np.arange(12 * 8, dtype=np.uint8).reshape(8, 12) * 2
    bands = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    return Image.fromarray(np.stack([ramp + 5 * band for band in range(bands)], -1).squeeze(), mode)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_an_image_file(tmp_path: Path, mode: str, orientation: int) -> None:
    image, path = picture(mode), tmp_path / ("a.png" if mode == "RGBA" else "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    width, height = image.size if orientation == 1 else image.size[::-1]
    first = training.open_upright(path, width=width, height=height)
    other = prediction.open_upright(path, width=width, height=height)
    assert np.array_equal(np.asarray(first), np.asarray(other))
