"""The sizes to which a checkpoint's image processor brings images, made those of training. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import attrs

from coordcore_train.checkpoint.folder import read_json, write_json

FILES = ("processor_config.json", "preprocessor_config.json")
"""Where transformers and servers read the settings of an image processor."""


@attrs.frozen(kw_only=True)
class ImageTokens:
    """The fewest and the most visual tokens that training makes of an image. Qwen's own helper decides by them."""

    least: int = 4
    most: int = 16384

    def size(self, token: int, max_pixels: int | None) -> dict[str, int]:
        """The processor's `size`, in pixels of an image, by which it does the same.

        token: side of a visual token in pixels. max_pixels: to which training reduces images first, if it does.
        """
        most = self.most * token**2
        return {"shortest_edge": self.least * token**2, "longest_edge": min(most, max_pixels or most)}


def reduced(image: Any, max_pixels: int | None) -> Any:
    """A PIL image with at most `max_pixels`, as ms-swift 4.6 reduces it in training (`rescale_image`)."""
    from PIL.Image import Resampling

    width, height = image.size
    if max_pixels is None or width * height <= max_pixels:
        return image
    ratio = width / height
    new_height = math.sqrt(max_pixels / ratio)
    # Where ms-swift leaves a side nothing, it cannot train; the processor says what is wrong with such an image.
    return image.resize((max(1, int(new_height * ratio)), max(1, int(new_height))), Resampling.BILINEAR)


def seen_sizes(processor: Any, grid: Any) -> tuple[tuple[int, int], ...]:
    """(width, height) in pixels of each image behind a processor that cuts it into patches.

    processor: transformers' own. grid: the `image_grid_thw` that it made, [n, 3], or None. Nothing for a processor
    that works otherwise, with tiles or with one fixed size.
    """
    patch = getattr(getattr(processor, "image_processor", None), "patch_size", None)
    if grid is None or not isinstance(patch, int):
        return ()
    return tuple((int(width) * patch, int(height) * patch) for _, height, width in grid.tolist())


def own_size(processor: Any, max_pixels: int) -> dict[str, int]:
    """The `size` by which an image processor brings images to the size they had where training first reduced them.

    processor: one that cuts images into patches and limits their pixels, with its own limits still in it. Some count a
    pixel once for each frame that they make of an image; how often, it is asked with a blank picture.
    """
    from PIL import Image

    patch, token = processor.patch_size, processor.patch_size * processor.merge_size
    side = 32 * token
    size = {"shortest_edge": token**2, "longest_edge": side**2}
    grid = processor(images=[Image.new("RGB", (side + side // 2,) * 2)], size=size, return_tensors="pt")[
        "image_grid_thw"
    ]
    _, height, width = grid[0].tolist()
    counted = round(side**2 / (height * width * patch**2))
    least, most = processor.size["shortest_edge"], processor.size["longest_edge"]
    return {"shortest_edge": least, "longest_edge": min(most, counted * max_pixels)}


def most_pixels(folder: Path) -> int | None:
    """To how many pixels the image processor in the checkpoint `folder` reduces an image; None where it knows none."""
    for _, _, settings in _settings(folder):
        size = settings.get("size")
        known = [settings.get("max_pixels"), size.get("longest_edge") if isinstance(size, dict) else None]
        if _has_pixels(settings) and (found := [entry for entry in known if isinstance(entry, int)]):
            return min(found)
    return None


def token_pixels(folder: Path) -> int | None:
    """How many pixels one visual token takes, by the image processor in the checkpoint `folder`; None where it cuts no
    patches. An image that is reduced to fewer may have no height or width left."""
    sides = [entry["patch_size"] * entry["merge_size"] for _, _, entry in _settings(folder) if _has_pixels(entry)]
    return sides[0] ** 2 if sides else None


def other_limits(folder: Path) -> str | None:
    """By what the image processor in the checkpoint `folder` limits images, where it cannot be told a number of pixels:
    "size = {...} in processor_config.json"; None where it can, and where its files do not say.
    """
    files = _settings(folder)
    if any(_has_pixels(settings) for _, _, settings in files):
        return None
    for path, _, settings in files:
        if found := [f"{key} = {_short(settings[key])}" for key in _LIMITS if settings.get(key) is not None]:
            return f"{', '.join(found)} in {path.name}"
    return None


def _short(value: Any) -> str:
    return text if len(text := str(value)) <= _SHOWN else f"{text[:_SHOWN]} ..."


_SHOWN = 60
_LIMITS = ("max_soft_tokens", "max_slice_nums", "scale_resolution", "max_patches", "image_grid_pinpoints", "size")
"""What image processors have that know no number of pixels: tokens, slices, tiles, grids of tiles, a side."""


def _settings(folder: Path) -> list[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """The processor files in `folder`: path, what is in the file, and the part of it that is the image processor's."""
    files = [(folder / name, read_json(folder / name)) for name in FILES if (folder / name).is_file()]
    parts = [(path, whole, whole.get("image_processor", whole)) for path, whole in files]
    return [(path, whole, settings) for path, whole, settings in parts if isinstance(settings, dict)]


def _has_pixels(settings: dict[str, Any]) -> bool:
    return {"patch_size", "merge_size"} <= settings.keys()


def adopt_image_size(folder: Path, size_of: Callable[[int], dict[str, int]]) -> None:
    """Let the processor files in the checkpoint `folder` bring images to the size that they had in training.

    size_of: the side of a visual token in pixels -> the processor's `size`. A trainer resizes by limits of its own and
    does not read those of the base, by which servers go. A file that says nothing of patches is left as it is: it is no
    settings of a processor that works with them.
    """
    for path, whole, settings in _settings(folder):
        before = deepcopy(whole)
        if not _has_pixels(settings):
            continue
        size = size_of(settings["patch_size"] * settings["merge_size"])
        known = settings.get("size")
        kept = [key for key in known if key in size] if isinstance(known, dict) else []
        settings["size"] = {key: size[key] for key in (*kept, *size)}  # in the order of the file
        # Older files have these beside `size`, and they win.
        for key, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
            if settings.get(key) is not None:
                settings[key] = size[edge]
        if whole != before:
            write_json(path, whole)
