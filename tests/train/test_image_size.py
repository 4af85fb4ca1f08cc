"""A merged folder's processor brings images to the size that they had in training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import support
from PIL import Image

from coordcore_train.checkpoint.image_size import ImageTokens, adopt_image_size, reduced
from coordcore_train.checkpoint.merge.run import merge_run
from coordcore_train.run.folder import RunDir

SIZES = [(20, 20), (33, 47), (100, 255), (256, 256), (300, 90), (640, 480), (1500, 1100)]


def processor(folder: Path) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(folder).image_processor


def served(settings: Any, size: tuple[int, int]) -> tuple[int, int]:
    _, height, width = settings(images=[Image.new("RGB", size)])["image_grid_thw"][0].tolist()
    return width * settings.patch_size, height * settings.patch_size


def trained(size: tuple[int, int], token: int) -> tuple[int, int]:
    from qwen_vl_utils import fetch_image

    image = fetch_image({"image": Image.new("RGB", size)}, image_patch_size=token // 2)
    return int(image.width), int(image.height)


def test_the_merged_folder_of_a_run(coord_base: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(coord_base, tmp_path / "base"))
    settings = json.loads((base / "processor_config.json").read_text())
    # As published checkpoints have it: images below 256 x 256 pixels would be enlarged.
    settings["image_processor"]["size"] = {"shortest_edge": 65536, "longest_edge": 65536 * 4}
    (base / "processor_config.json").write_text(json.dumps(settings))
    run = support.train(tmp_path, base, train={"steps": 1})
    assert run.image_tokens() == ImageTokens(least=4, most=16384)
    assert run.state()["image_tokens"] == {"least": 4, "most": 16384}
    before, after = processor(base), processor(merge_run(run.path, tmp_path / "merged").output)
    assert served(before, (33, 47)) != trained((33, 47), 16)
    assert {size: served(after, size) for size in SIZES} == {size: trained(size, 16) for size in SIZES}
    merged = json.loads((tmp_path / "merged" / "processor_config.json").read_text())
    merged["image_processor"]["size"] = settings["image_processor"]["size"]
    assert merged == settings


def test_limits_are_found_of_the_second_processor_of_a_process_too(coord_base: Path) -> None:
    """ms-swift notes them down at the first only."""
    from swift.model import get_processor

    from coordcore_train.swift.encode import image_tokens

    found = [image_tokens(get_processor(str(coord_base), model_type="qwen3_vl", use_hf=True)) for _ in range(2)]
    assert found == [ImageTokens(least=4, most=16384)] * 2


@pytest.mark.parametrize("nested", [True, False])
def test_the_limits_of_a_run_are_written_wherever_they_are_read(tmp_path: Path, nested: bool) -> None:
    settings = {"patch_size": 16, "merge_size": 2, "size": {}, "min_pixels": 3136, "max_pixels": None, "other": 1}
    name = "processor_config.json" if nested else "preprocessor_config.json"
    (tmp_path / name).write_text(json.dumps({"image_processor": settings} if nested else settings))
    adopt_image_size(tmp_path, lambda token: ImageTokens(least=2, most=100).size(token, 50_000))
    found = json.loads((tmp_path / name).read_text())
    size = {"shortest_edge": 2048, "longest_edge": 50_000}
    assert (found["image_processor"] if nested else found) == {**settings, "size": size, "min_pixels": 2048}


def test_settings_of_another_kind_stay_as_they_are(tmp_path: Path) -> None:
    text = '{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}}'
    (tmp_path / "preprocessor_config.json").write_text(text)
    adopt_image_size(tmp_path, lambda token: ImageTokens().size(token, None))
    assert (tmp_path / "preprocessor_config.json").read_text() == text


@pytest.mark.parametrize("size", [(640, 480), (100, 700), (64, 64), (33, 999)])
def test_an_image_is_reduced_as_ms_swift_does(size: tuple[int, int]) -> None:
    from swift.template.vision_utils import rescale_image

    image = Image.effect_noise(size, 60.0).convert("RGB")
    expected = rescale_image(image, 20_000)

    found = reduced(image, 20_000)

    assert found.size == expected.size
    assert found.tobytes() == expected.tobytes()
    assert reduced(image, None) is image


@pytest.mark.parametrize(("size", "seen"), [((3000, 2), (1239, 1)), ((2, 3000), (1, 1239))])
def test_a_side_of_which_nothing_would_be_left_stays_a_pixel(size: tuple[int, int], seen: tuple[int, int]) -> None:
    assert reduced(Image.new("RGB", size), 1024).size == seen


def test_a_run_whose_images_the_processor_resizes(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (tmp_path / "state.json").write_text('{"fingerprint": "a", "image_tokens": null}')

    assert run.image_tokens() is None
