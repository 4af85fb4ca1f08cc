"""What families' image processors are told of `train.max_pixels`: a limit of pixels, or another that is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import FAMILIES
from PIL import Image
from transformers import AutoProcessor

from coordcore_train.checkpoint.image_size import adopt_image_size, other_limits, own_size, reduced

PIXELS = ("qwen2_vl", "qwen3_5", "glm4v")

OTHERS = {
    "internvl": "max_patches = 4, size = {'height': 32, 'width': 32}",
    "gemma3_vision": "size = {'height': 32, 'width': 32}",
    "llava_onevision_hf": "image_grid_pinpoints = [[32, 32], [32, 64], [64, 32]], size = {'height': 32, 'width': 32}",
    "llava1_5_hf": "size = {'shortest_edge': 32}",
    "mistral3": "size = {'longest_edge': 64}",
    "gemma4": "max_soft_tokens = 70",
    "minicpmv4_6": "max_slice_nums = 2, scale_resolution = 64",
}


@pytest.fixture
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return FAMILIES[request.param](tmp_path / "base")


@pytest.mark.parametrize("base", PIXELS, indirect=True)
def test_a_limit_of_pixels_can_be_told(base: Path) -> None:
    assert other_limits(base) is None


@pytest.mark.parametrize(("base", "expected"), OTHERS.items(), ids=[*OTHERS], indirect=["base"])
def test_what_limits_images_instead_is_named(base: Path, expected: str) -> None:
    assert other_limits(base) == f"{expected} in processor_config.json"


@pytest.mark.parametrize("base", ["glm4v", "qwen3_vl"], indirect=True)
@pytest.mark.parametrize("size", [(640, 480), (90, 400), (64, 64), (20, 20), (333, 334)])
def test_a_merged_folder_shows_images_as_training_did(base: Path, size: tuple[int, int]) -> None:
    """Training reduces an image to `max_pixels`, and the processor sees that; a server's sees the image itself."""
    image = Image.effect_noise(size, 60.0).convert("RGB")
    before: Any = AutoProcessor.from_pretrained(base).image_processor
    token = before.patch_size * before.merge_size
    limit = 10 * token**2
    trained = seen(before, reduced(image, limit))
    told = own_size(before, limit)
    adopt_image_size(base, lambda _: told)
    after: Any = AutoProcessor.from_pretrained(base).image_processor
    assert max(abs(a - b) for a, b in zip(seen(after, image), trained, strict=True)) <= token
    assert json.loads((base / "processor_config.json").read_text())["image_processor"]["size"] == told


def seen(processor: Any, image: Image.Image) -> tuple[int, int]:
    _, height, width = processor(images=[image], return_tensors="pt")["image_grid_thw"][0].tolist()
    return width * processor.patch_size, height * processor.patch_size
