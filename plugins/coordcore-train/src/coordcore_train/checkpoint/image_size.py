"""The sizes to which a checkpoint's image processor brings images, made those of training. Torch-free."""

from __future__ import annotations

import math
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
    return image.resize((int(new_height * ratio), int(new_height)), Resampling.BILINEAR)


def seen_sizes(processor: Any, grid: Any) -> tuple[tuple[int, int], ...]:
    """(width, height) in pixels of each image behind a processor that cuts it into patches.

    processor: transformers' own. grid: the `image_grid_thw` that it made, [n, 3], or None. Nothing for a processor
    that works otherwise, with tiles or with one fixed size.
    """
    patch = getattr(getattr(processor, "image_processor", None), "patch_size", None)
    if grid is None or not isinstance(patch, int):
        return ()
    return tuple((int(width) * patch, int(height) * patch) for _, height, width in grid.tolist())


def adopt_image_size(folder: Path, tokens: ImageTokens, max_pixels: int | None) -> None:
    """Let the processor files in the checkpoint `folder` bring images to the size that they had in training.

    A trainer resizes by limits of its own and does not read those of the base, by which servers go. A file that says
    nothing of patches is left as it is: it is no settings of a processor that works with them.
    """
    for name in FILES:
        path = folder / name
        if not path.is_file():
            continue
        whole = read_json(path)
        before = deepcopy(whole)
        settings: Any = whole.get("image_processor", whole)
        if not isinstance(settings, dict) or not {"patch_size", "merge_size"} <= settings.keys():
            continue
        size = tokens.size(settings["patch_size"] * settings["merge_size"], max_pixels)
        known = settings.get("size")
        kept = [key for key in known if key in size] if isinstance(known, dict) else []
        settings["size"] = {key: size[key] for key in (*kept, *size)}  # in the order of the file
        # Older files have these beside `size`, and they win.
        for key, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
            if settings.get(key) is not None:
                settings[key] = size[edge]
        if whole != before:
            write_json(path, whole)
