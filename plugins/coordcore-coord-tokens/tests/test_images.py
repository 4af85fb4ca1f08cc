"""Images arrive upright."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coordcore.errors import InputError
from coordcore.records.images import open_upright
from coordcore_coord_tokens import CoordJsonl

Build = Callable[..., CoordJsonl]


# Where EXIF says the stored top-left pixel belongs once the image is upright (EXIF 2.3, tag 274).
UPRIGHT_CORNER = {
    1: (0, 0),
    2: (1, 0),
    3: (1, 1),
    4: (0, 1),
    5: (0, 0),
    6: (1, 0),
    7: (1, 1),
    8: (0, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT_CORNER)
def test_every_orientation(tmp_path: Path, orientation: int) -> None:
    stored = Image.new("RGB", (40, 30), "white")
    stored.paste("black", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    width, height = (30, 40) if orientation >= 5 else (40, 30)
    image = open_upright(tmp_path / "photo.png", width=width, height=height)
    right, lower = UPRIGHT_CORNER[orientation]
    assert image.getpixel((right * (width - 1), lower * (height - 1))) == (0, 0, 0)


def test_a_box_of_a_turned_photograph_lies_on_its_object(build: Build, record: dict[str, Any]) -> None:
    # Stored 640 x 480 and turned to 480 x 640: the stored lower-left corner is the upright top-left one.
    stored = Image.new("RGB", (640, 480), "white")
    stored.paste("black", (0, 240, 320, 480))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save("turned.jpg", exif=exif, quality=100)
    item = {"desc": "black", "bbox_2d": [0, 0, 240, 320]}
    turned = {"images": ["turned.jpg"], "width": 480, "height": 640, "objects": [item]}
    (image,) = build(turned, space="pixel").train()[0].images
    outline = Image.eval(image.convert("L"), lambda level: 255 if level < 128 else 0).getbbox()
    assert outline == (0, 0, 240, 320)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (8, 6)).save(tmp_path / "photo.tif")
    assert open_upright(tmp_path / "photo.tif", width=8, height=6).mode == "RGB"


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 51, 255)):
        image.putpixel((x, 0), (255, 0, 0, alpha))
    image.save(tmp_path / "photo.png")
    read = open_upright(tmp_path / "photo.png", width=3, height=1)
    assert [read.getpixel((x, 0)) for x in range(3)] == [(255, 255, 255), (255, 204, 204), (255, 0, 0)]


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_transparent_colour_is_white(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (2, 1))
    image.save(tmp_path / "photo.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert open_upright(tmp_path / "photo.png", width=2, height=1).getpixel((0, 0)) == (255, 255, 255)


def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photo.png")
    with pytest.raises(InputError, match=r"photo\.png cannot be read: .*is a pipe or a device"):
        open_upright(tmp_path / "photo.png", width=3, height=1)
